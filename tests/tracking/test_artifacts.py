from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.errors import ConflictError, InvalidInputError, NotFoundError
from trimtab.tracking.artifacts import confined
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace


def test_files_are_kept_by_path_and_content(any_workspace: Workspace, tmp_path: Path) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    (tmp_path / "plot.html").write_text("<p>")
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "a.txt").write_text("a")
    (tmp_path / "folder" / "deep" / "b.txt").write_text("bb")
    tracking.log_artifact(run.id, tmp_path / "plot.html")
    tracking.log_artifact(run.id, tmp_path / "folder", "model")
    tracking.log_artifact(run.id, b"<p>", "copy.html")
    found = tracking.artifacts(run.id)
    assert [(each.path, each.size) for each in found] == [
        ("copy.html", 3),
        ("model/a.txt", 1),
        ("model/deep/b.txt", 2),
        ("plot.html", 3),
    ]
    assert found[0].digest == found[3].digest
    assert [each.path for each in tracking.artifacts(run.id, "model/deep")] == ["model/deep/b.txt"]
    assert tracking.artifacts(run.id, "mod") == []
    assert tracking.load_artifact(run.id, "model/a.txt") == b"a"
    tracking.fetch_artifact(run.id, "plot.html", tmp_path / "out.html")
    assert (tmp_path / "out.html").read_text() == "<p>"
    tracking.log_artifact(run.id, b"new", "model/a.txt")
    assert tracking.load_artifact(run.id, "model/a.txt") == b"new"
    with pytest.raises(NotFoundError, match="no artifact 'a"):
        tracking.load_artifact(run.id, "a.txt")


BAD_PATHS = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../x",
    "a/../b",
    "a/..",
    ".",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\\b",
    "..\\x",
    "C:\\x",
    "a\0b",
    "\ud800",
    "x" * 1001,
    "é" * 501,
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_out_of_the_run_is_refused(workspace: Workspace, path: str) -> None:
    tracking = Tracking(workspace)
    run = tracking.start_run("bikes")
    with pytest.raises(InvalidInputError):
        tracking.log_artifact(run.id, b"x", path)
    with pytest.raises(InvalidInputError):
        tracking.load_artifact(run.id, path)
    assert tracking.artifacts(run.id) == []


@given(path=st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=60))
def test_a_path_that_is_taken_stays_below_any_folder_that_it_is_joined_to(path: str) -> None:
    try:
        taken = confined(path)
    except InvalidInputError:
        assert any(part in {"", ".", ".."} for part in path.split("/")) or "\\" in path or "\0" in path
        return
    assert taken == path
    root = Path("/folder/of/run")
    joined = Path(f"{root}/{taken}")
    assert joined.is_relative_to(root)
    assert ".." not in joined.parts
    assert joined != root


@pytest.mark.parametrize(
    "path",
    ["名前/ファイル.txt", "a b/#c?d=e", "%2e%2e/x", "...", "..a", "~/x", "👩‍🔬", "e\u0301", "\u202e.x"],
)
def test_any_unicode_makes_a_name(any_workspace: Workspace, path: str) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    tracking.log_artifact(run.id, b"x", path)
    assert [each.path for each in tracking.artifacts(run.id)] == [path]
    assert tracking.load_artifact(run.id, path) == b"x"


@given(names=st.lists(st.text("ab/.0é", min_size=1, max_size=5), max_size=8))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_files_of_a_run_can_always_be_written_to_a_folder(
    any_workspace: Workspace, names: list[str]
) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    kept: set[str] = set()
    for name in names:
        parts = name.split("/")
        bad = any(part in {"", ".", ".."} for part in parts)
        clash = any(
            other != name and (other.startswith(name + "/") or name.startswith(other + "/")) for other in kept
        )
        if bad or clash:
            with pytest.raises((InvalidInputError, ConflictError)):
                tracking.log_artifact(run.id, b"", name)
        else:
            tracking.log_artifact(run.id, b"", name)
            kept.add(name)
    assert [each.path for each in tracking.artifacts(run.id)] == sorted(kept)
    folder = "a"
    below = [each.path for each in tracking.artifacts(run.id, folder)]
    assert below == sorted(name for name in kept if name.startswith("a/"))


def test_a_folder_with_a_link_out_of_it_is_refused_whole(workspace: Workspace, tmp_path: Path) -> None:
    tracking = Tracking(workspace)
    run = tracking.start_run("bikes")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "good.txt").write_text("x")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidInputError, match="link"):
        tracking.log_artifact(run.id, folder)
    (folder / "link").unlink()
    (folder / "loop").symlink_to(folder)
    with pytest.raises(InvalidInputError, match="link"):
        tracking.log_artifact(run.id, folder)
    assert tracking.artifacts(run.id) == []
    (folder / "loop").unlink()
    (folder / "inner").symlink_to(folder / "good.txt")
    tracking.log_artifact(run.id, folder)
    assert [each.path for each in tracking.artifacts(run.id)] == ["good.txt", "inner"]
