"""The command `gc`."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import Trimtab
from tests.loop.scene import NAME, Scene

from trimtab.cli.gc_command import duration
from trimtab.data.datasets import Datasets
from trimtab.tracking.tracking import Tracking


def grow_old(scene: Scene, days: int) -> None:
    scene.wait(days=days)
    for path in (scene.workspace.root / "blobs").rglob("*"):
        at = path.stat().st_mtime - days * 86_400
        os.utime(path, (at, at))


def deleted_run(scene: Scene) -> str:
    tracking = Tracking(scene.workspace)
    run = tracking.start_run("trials")
    tracking.log_artifact(run.id, b"12345", "file")
    tracking.delete_run(run.id)
    return run.id


def test_what_was_deleted_goes_when_the_grace_is_over(trimtab: Trimtab, project: Path, scene: Scene) -> None:
    run = deleted_run(scene)
    grow_old(scene, 7)
    at = ("--dir", project)
    # The command lives by the machine's clock, for which the scene's times are long ago.
    planned = trimtab("gc", "--dry-run", *at, "--older-than", "6d", "--json").json
    assert (planned["runs"], planned["blobs"], planned["bytes"], planned["dry_run"]) == (1, 1, 5, True)
    assert "Nothing was deleted" in trimtab("gc", "--dry-run", *at).out
    assert Tracking(scene.workspace).load_artifact(run, "file") == b"12345"
    done = trimtab("gc", *at, "--older-than", "6d", "--json").json
    assert (done["runs"], done["blobs"], done["bytes"]) == (1, 1, 5)
    again = trimtab("gc", *at, "--older-than", "0d", "--compact")
    assert again.status == 0
    assert "Files of the last day stay" in again.out
    assert "garbage.collected" in trimtab("journal", "list", *at).out


def test_nothing_that_a_loop_needs_goes(
    trimtab: Trimtab, project: Path, scene: Scene, tmp_path: Path
) -> None:
    with scene.workspace.read() as connection:
        declared = scene.loops.status(NAME)
        snapshot = connection.exec_driver_sql("SELECT project FROM loop_versions").scalar_one()
    before = set(scene.workspace.blobs.digests())
    grow_old(scene, 400)
    assert trimtab("gc", "--dir", project, "--older-than", "0d", "--json").json["blobs"] == 0
    assert set(scene.workspace.blobs.digests()) == before
    scene.workspace.blobs.fetch_tree(snapshot, tmp_path / "snapshot")
    Datasets(scene.workspace).profile("rentals", 1)
    assert declared.champion == scene.loops.status(NAME).champion


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("30d", timedelta(days=30)),
        ("1w2d", timedelta(days=9)),
        ("1.5h", timedelta(minutes=90)),
        ("0s", timedelta()),
    ],
)
def test_a_length_of_time_is_read(text: str, meant: timedelta) -> None:
    assert duration(text) == meant


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7 days", "7d ", "1d;", "9" * 400 + "d"])
def test_what_is_no_length_of_time_is_refused(trimtab: Trimtab, project: Path, text: str) -> None:
    trimtab("gc", "--dir", project, f"--older-than={text}").failed(2, "time")
