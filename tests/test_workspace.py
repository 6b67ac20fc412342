"""The composition root: made once, opened many times, closed in order."""

import gc
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab.config import STATE_FOLDER, Settings
from trimtab.errors import ConflictError, NotFoundError, UnavailableError
from trimtab.store import journal
from trimtab.workspace import Workspace


def put(workspace: Workspace, name: str) -> int:
    return workspace.write(lambda tx: tx.journal("thing.put", "thing", name))


def entries(workspace: Workspace) -> list[tuple[str, str]]:
    with workspace.read() as connection:
        return [(entry.actor, entry.name) for entry in journal.entries(connection)]


def test_what_was_kept_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    with Workspace.create(tmp_path / "project", actor="ada") as workspace:
        put(workspace, "a")
        digest = workspace.blobs.put(b"kept")
    with Workspace.open(tmp_path / "project", actor="bob") as workspace:
        put(workspace, "b")
        assert entries(workspace) == [("ada", "a"), ("bob", "b")]
        assert workspace.blobs.get(digest) == b"kept"


def test_a_folder_holds_one_workspace(tmp_path: Path) -> None:
    Workspace.create(tmp_path).close()
    with pytest.raises(ConflictError, match="already a workspace"):
        Workspace.create(tmp_path)


def test_a_folder_without_a_project_is_not_opened_and_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="trimtab init"):
        Workspace.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_that_cannot_be_made_leaves_nothing_that_blocks_the_next_try(
    tmp_path: Path, free_port: int
) -> None:
    unreachable = Settings(database=f"postgresql://nobody@127.0.0.1:{free_port}/nothing")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnavailableError):
            Workspace.create(tmp_path, unreachable)
        gc.collect()
    Workspace.create(tmp_path).close()


def test_somebody_else_acts_through_the_same_stores(workspace: Workspace) -> None:
    other = workspace.acting_as("bob")
    put(other, "b")
    other.close()
    put(workspace, "a")
    assert entries(workspace) == [("bob", "b"), ("tester", "a")]


def test_a_closed_workspace_refuses_writes_and_may_be_closed_again(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path)
    workspace.close()
    workspace.close()
    with pytest.raises(UnavailableError, match="closed"):
        put(workspace, "a")


def test_a_workspace_that_nobody_closed_is_warned_about(tmp_path: Path) -> None:
    def forget() -> None:
        Workspace.create(tmp_path).blobs.put(b"")
        gc.collect()

    with pytest.warns(ResourceWarning, match="was not closed"):
        forget()


def test_its_state_stays_out_of_version_control(workspace: Workspace) -> None:
    assert (workspace.root / ".gitignore").read_text() == "*\n"
    assert workspace.root == workspace.project / STATE_FOLDER


@pytest.mark.parametrize("store", [lambda w: w.database, lambda w: w.blobs, lambda w: w.tables])
def test_the_stores_may_lie_elsewhere(tmp_path: Path, store: Callable[[Workspace], object]) -> None:
    elsewhere = tmp_path / "elsewhere"
    settings = Settings(
        database=f"sqlite:///{elsewhere / 'metadata.db'}",
        blobs=str(elsewhere / "blobs"),
        tables=str(elsewhere / "tables"),
    )
    with Workspace.create(tmp_path / "project", settings) as workspace:
        assert store(workspace)
        workspace.blobs.put(b"kept")
        assert {path.name for path in workspace.root.iterdir()} <= {".gitignore", "cache"}
        assert (elsewhere / "metadata.db").exists()
