"""A loop whose model is packed with a step of Python: from training to champion, if gateways may run it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.loop.test_starter import TABLES, first_cycle, written

from trimtab.config import FILE_NAME
from trimtab.loop.applying import apply_reference
from trimtab.loop.cycles import list_cycles, moves_of
from trimtab.loop.loops import Loops
from trimtab.loop.starter import start_project
from trimtab.models.registry import Registry
from trimtab.workspace import Workspace

STEP = """
def doubled(scores):
    return 2 * scores


@tt.step
def train("""


def project_with_a_step(folder: Path) -> Path:
    rows, columns = TABLES["houses"]
    start_project(folder / "project", rows, written(rows, folder, "houses"), mode="auto", **columns)
    loop = folder / "project" / "loop.py"
    text = loop.read_text()
    packed = text.replace("\n@tt.step\ndef train(", STEP, 1).replace(
        "return tt.Model.lightgbm(booster, inputs, target=TARGET)",
        "return tt.Model.lightgbm(booster, inputs, target=TARGET).with_steps(rows, after=doubled)",
    )
    assert packed.count("doubled") == 2
    loop.write_text(packed)
    return folder / "project"


@pytest.mark.parametrize("allowed", [True, False])
def test_its_model_becomes_champion_only_where_gateways_may_run_it(tmp_path: Path, allowed: bool) -> None:
    project = project_with_a_step(tmp_path)
    if allowed:
        with (project / FILE_NAME).open("a") as settings:
            settings.write('confined_models = ["houses"]\n')
    with Workspace.open(project) as workspace:
        apply_reference(workspace)
        first_cycle(workspace)
        status = Loops(workspace).status("houses")
        with workspace.read() as connection:
            (cycle,) = list_cycles(connection, "houses")
            last = moves_of(connection, cycle.id)[-1]
        if not allowed:
            assert status.champion is None
            assert 'allow it: confined_models = ["houses"] in trimtab.toml' in last.reason
            return
        assert status.champion is not None, last
        version = Registry(workspace).get_version("houses", 1)
        assert "steps.json" in workspace.blobs.manifest(version.digest).files
