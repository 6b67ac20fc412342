"""The example project is an ordinary user's project, whose own tests pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.demo.example import write_example
from trimtab.errors import ConflictError, NotFoundError


def test_the_written_example_passes_its_own_tests(tmp_path: Path) -> None:
    write_example("bikes", tmp_path / "bikes")
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path / "bikes",
        env={"PYTHONPATH": ".", "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "4 passed" in finished.stdout


def test_the_example_says_whose_data_it_is(tmp_path: Path) -> None:
    files = {path.relative_to(tmp_path).as_posix() for path in write_example("bikes", tmp_path)}
    assert {
        "loop.py",
        "trimtab.toml",
        "README.md",
        "data/history.parquet",
        "data/later.parquet",
        "data/ATTRIBUTION.md",
    } <= files
    assert "CC BY 4.0" in (tmp_path / "data" / "ATTRIBUTION.md").read_text()


def test_an_unknown_example_or_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'bikes'"):
        write_example("bike", tmp_path)
    (tmp_path / "mine").touch()
    with pytest.raises(ConflictError, match="not empty"):
        write_example("bikes", tmp_path)
