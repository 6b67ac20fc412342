from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Trimtab

from trimtab.workspace import Workspace

PIPELINES = """
import trimtab as tt

@tt.step
def double(number: int) -> int:
    return 2 * number

@tt.step
def fail(number: int) -> int:
    print("last words")
    raise ValueError("no luck")

@tt.pipeline
def good(number: int = 1) -> int:
    return double(number)

@tt.pipeline
def bad(number: int = 1) -> int:
    return fail(double(number))

@tt.pipeline
def reads() -> int:
    return double(tt.dataset("trips"))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with pipelines, none of which needs any data."""
    Workspace.create(tmp_path).close()
    (tmp_path / "pipes.py").write_text(PIPELINES)
    return tmp_path


def test_a_pipeline_is_run_and_its_outputs_named(trimtab: Trimtab, project: Path) -> None:
    ended = trimtab("run", "pipes:good", "--param", "number=4", "--dir", project, "--json").json
    assert ended["status"] == "finished"
    assert ended["outputs"]["output"].startswith("b3:")
    again = trimtab("run", "pipes:good", "--param", "number=4", "--dir", project)
    assert again.status == 0
    assert ended["outputs"]["output"] in again.out


def test_a_failed_step_is_named_and_the_status_is_1(trimtab: Trimtab, project: Path) -> None:
    ended = trimtab("run", "pipes:bad", "--dir", project)
    assert ended.status == 1
    assert "pipes.fail" in ended.out
    assert "no luck" in ended.out


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["pipes:better"], 2, "'pipes:better' cannot be loaded"),
        (["pipes"], 2, "module:name"),
        (["pipes:double"], 2, "is not a pipeline"),
        (["pipes:good", "--param", "numbr=1"], 2, "Did you mean 'number'?"),
        (["pipes:good", "--param", "number"], 2, "name=value"),
        (["pipes:good", "--param", "number=much"], 2, "cannot be 'much'"),
        (["pipes:good", "--as-of", "noon"], 2, "noon"),
        (["pipes:reads"], 3, "no dataset 'trips'"),
    ],
)
def test_a_users_mistake_is_told_with_its_status(
    trimtab: Trimtab, project: Path, words: list[str], status: int, told: str
) -> None:
    trimtab("run", *words, "--dir", project).failed(status, told)
