"""Snapshots of a user's project."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.pipelines.conftest import Write

from trimtab.errors import InvalidInputError
from trimtab.pipelines.project import checkout, import_project_object, snapshot, source_files
from trimtab.workspace import Workspace


def test_a_snapshot_has_the_source_and_nothing_else(
    workspace: Workspace, write: Write, tmp_path: Path
) -> None:
    root = write(loop="X = 1\n", lib__tools="Y = 2\n", data__load="Z = 3\n", lib__data__more="")
    (root / "lib" / "data" / "__init__.py").write_text("")
    (root / "data" / "rows.json").write_text("[]")
    (root / "settings.yaml").write_text("a: 1\n")
    (root / "trimtab.toml").write_text('token = "a secret"\n')
    (root / "model.bin").write_bytes(b"0")
    (root / "big.json").write_text("0" * (3 * 2**20))
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.py").write_text("")
    (root / "env").mkdir()
    (root / "env" / "pyvenv.cfg").write_text("")
    (root / "env" / "y.py").write_text("")
    outside = tmp_path / "secret"
    outside.mkdir()
    (outside / "s.py").write_text("")
    (root / "linked").symlink_to(outside)
    (root / "s.py").symlink_to(outside / "s.py")
    names = {path.relative_to(root).as_posix() for path in source_files(root)}
    assert names == {
        *("loop.py", "lib/tools.py", "lib/data/__init__.py", "lib/data/more.py"),
        "settings.yaml",
    }
    place = checkout(workspace, snapshot(workspace))
    assert {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()} == names


def test_the_same_source_gives_the_same_digest(workspace: Workspace, write: Write) -> None:
    write(loop="X = 1\n")
    before = snapshot(workspace)
    write(loop="X = 1\n")
    assert snapshot(workspace) == before
    write(loop="X = 2\n")
    assert snapshot(workspace) != before


def test_an_edit_does_not_reach_what_was_checked_out(workspace: Workspace, write: Write) -> None:
    write(loop="X = 1\n")
    digest = snapshot(workspace)
    write(loop="X = 2\n")
    assert (checkout(workspace, digest) / "loop.py").read_text() == "X = 1\n"


def test_two_snapshots_are_imported_one_after_the_other(workspace: Workspace, write: Write) -> None:
    write(loop="from part import X\n", part="X = 1\n")
    first = checkout(workspace, snapshot(workspace))
    write(part="X = 2\n")
    second = checkout(workspace, snapshot(workspace))
    assert [import_project_object(place, "loop:X") for place in (first, second, first)] == [1, 2, 1]


def test_a_src_folder_is_found(workspace: Workspace, write: Write) -> None:
    root = write(src__mine__thing="X = 5\n")
    assert import_project_object(root, "mine.thing:X") == 5


@pytest.mark.parametrize("reference", ["nothing:x", "loop:nothing", "loop", ":", ""])
def test_a_wrong_reference_is_named(workspace: Workspace, write: Write, reference: str) -> None:
    root = write(loop="X = 1\n")
    with pytest.raises(InvalidInputError, match="cannot be loaded"):
        import_project_object(root, reference)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("X = 1\n1 / 0\n", r"ZeroDivisionError: .*\(loop\.py, line 2\)"),
        ("import sys\n\nsys.exit(3)\n", r"SystemExit: 3 \(loop\.py, line 3\)"),
        ("import nothing_like_it\n", r"ModuleNotFoundError: .*\(loop\.py, line 1\)"),
        ("from part import X\n", r"ValueError: no \(part\.py, line 1\)"),
        ("def broken(:\n", r"SyntaxError: .*\(loop\.py, line 1\)\."),
    ],
)
def test_a_module_that_fails_is_told_with_its_line(
    workspace: Workspace, write: Write, source: str, words: str
) -> None:
    root = write(loop=source, part="raise ValueError('no')\n")
    with pytest.raises(InvalidInputError, match=words):
        import_project_object(root, "loop:X")


def test_what_is_no_snapshot_is_refused(workspace: Workspace) -> None:
    with pytest.raises(InvalidInputError, match="not the digest"):
        checkout(workspace, "../../etc")


def test_a_folder_that_is_no_package_pushes_nobodys_modules_out(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_mine.py").write_text("")
    (tmp_path / "loop.py").write_text("loop = 1\n")
    before = {name for name in sys.modules if name.split(".")[0] == "tests"}
    assert import_project_object(tmp_path, "loop:loop") == 1
    assert before <= set(sys.modules)
