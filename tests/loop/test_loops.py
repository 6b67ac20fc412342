from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.loop.scene import NAME, Scene, declared

import trimtab as tt
from trimtab.data.datasets import Datasets
from trimtab.errors import ConflictError, InvalidInputError, NotFoundError, RefusedError
from trimtab.loop.loops import Loops
from trimtab.models.policy import Override
from trimtab.models.registry import Registry
from trimtab.serving.endpoints import Endpoints
from trimtab.store import journal
from trimtab.workspace import Workspace


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def actions(workspace: Workspace, kind: str) -> list[str]:
    with workspace.read() as connection:
        return [entry.action for entry in journal.entries(connection, kind=kind)]


def test_applying_makes_model_and_endpoint_and_puts_the_gates_on_the_model(scene: Scene) -> None:
    model = Registry(scene.workspace).model(NAME)
    assert model.governed_by == f"loop {NAME}"
    assert Endpoints(scene.workspace).get(NAME).model == NAME
    assert [(loop.name, loop.version, loop.mode) for loop in scene.loops.list()] == [(NAME, 1, "auto")]


def test_applying_the_same_again_changes_nothing(scene: Scene) -> None:
    with scene.workspace.read() as connection:
        before = journal.verify(connection)
    assert scene.loops.apply(declared()).version == 1
    with scene.workspace.read() as connection:
        assert journal.verify(connection) == before


def test_another_declaration_or_other_code_makes_a_new_version(scene: Scene) -> None:
    assert scene.loops.apply(declared(label_delay="1h")).version == 2
    (scene.workspace.project / "more.py").write_text("A = 1\n")
    applied = scene.loops.apply(declared(label_delay="1h"))
    assert applied.version == 3
    assert actions(scene.workspace, "loop") == ["loop.applied"] * 3


def test_a_mode_that_a_person_set_outlives_a_declaration_that_does_not_change_it(scene: Scene) -> None:
    scene.loops.set_mode(NAME, "approve")
    scene.loops.apply(declared(label_delay="1h"))
    assert scene.loops.status(NAME).loop.mode == "approve"
    scene.loops.apply(declared(mode="advise"))
    assert scene.loops.status(NAME).loop.mode == "advise"


def test_gates_are_taken_away_only_by_a_persons_override(scene: Scene) -> None:
    weaker = declared(gates=[tt.gates.Bias(max_abs=9)], metric="rmse")
    with pytest.raises(RefusedError, match="gates"):
        scene.loops.apply(weaker)
    assert scene.loops.status(NAME).loop.version == 1
    override = Override(person="grace", reason="the gate was wrong")
    assert scene.loops.apply(weaker, override=override).version == 2


def test_an_unknown_dataset_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    with Workspace.create(tmp_path / "project") as workspace:
        Datasets(workspace).create("rental", time="at")
        with pytest.raises(NotFoundError, match=r"'rentals', which is not there.*'rental'") as caught:
            Loops(workspace).apply(declared())
        assert "trimtab data create rentals" in str(caught.value)
        assert Loops(workspace).list() == []
        assert Registry(workspace).models() == []


def test_days_cannot_be_held_out_of_a_dataset_without_time(tmp_path: Path) -> None:
    with Workspace.create(tmp_path / "project") as workspace:
        Datasets(workspace).create("rentals")
        with pytest.raises(InvalidInputError, match="no time column"):
            Loops(workspace).apply(declared())


def test_two_loops_cannot_have_one_model(scene: Scene) -> None:
    other = tt.Loop("other", train=declared().train, gates=[tt.gates.BeatsChampion("rmse")], model=NAME)
    with pytest.raises(ConflictError, match=f"'{NAME}' already has the model"):
        scene.loops.apply(other)
    with pytest.raises(ConflictError, match="Keep them"):
        scene.loops.apply(declared(model="another"))


def test_every_order_of_a_person_is_journaled_in_their_name(scene: Scene) -> None:
    grace = Loops(scene.workspace.acting_as("grace"))
    grace.pause(NAME, reason="holidays")
    grace.resume(NAME)
    grace.set_mode(NAME, "advise", reason="careful")
    grace.set_mode(NAME, "advise")
    cycle = grace.trigger(NAME, params={"rate": 0.2}, reason="try it")
    assert cycle.actor == "grace"
    with scene.workspace.read() as connection:
        told = [(e.actor, e.action, e.reason) for e in journal.entries(connection) if e.actor == "grace"]
    assert told == [
        ("grace", "loop.paused", "holidays"),
        ("grace", "loop.resumed", ""),
        ("grace", "loop.mode_set", "careful"),
        ("grace", "cycle.started", "try it"),
        ("grace", "trigger.started", "try it"),
    ]


def test_what_makes_no_sense_is_refused_and_changes_nothing(scene: Scene) -> None:
    with pytest.raises(InvalidInputError, match=r"no parameter 'rates'.*'rate'"):
        scene.loops.trigger(NAME, params={"rates": 1})
    with pytest.raises(ConflictError, match="Nothing of the loop"):
        scene.loops.approve(NAME)
    with pytest.raises(ConflictError, match="no champion"):
        scene.loops.rollback(NAME, reason="why not")
    with pytest.raises(InvalidInputError, match="not known"):
        scene.loops.set_mode(NAME, "wild")  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="Did you mean 'bikes'"):
        scene.loops.status("bike")
    with pytest.raises(NotFoundError, match="no cycle yet"):
        scene.loops.why(NAME)
    assert scene.loops.cycles(NAME) == []


def test_why_tells_the_numbers_of_every_decision(scene: Scene) -> None:
    scene.bootstrap()
    scene.live(5, errors={1: 1.5})
    why = scene.loops.why(NAME, 2)
    assert why.cycle.id == f"{NAME}-2"
    assert why.decisions[0].numbers["value"] == pytest.approx(0.4, abs=0.1)
    gates = next(move for move in why.moves if move.to_state == "shadow")
    assert {result["gate"] for result in gates.evidence["results"]} == {"beats champion rmsle", "bias"}  # type: ignore[index]
    promoted = why.moves[-1].evidence
    assert promoted["pairs"] == 72  # type: ignore[index]
    assert len(promoted["differences"]) == 3  # type: ignore[index]
    assert scene.loops.why(NAME, f"{NAME}-1").cycle.number == 1
    assert scene.loops.why(NAME).cycle.id == scene.loops.cycles(NAME)[0].id


def test_a_workspace_can_be_moved_with_its_loops(scene: Scene, tmp_path: Path) -> None:
    scene.bootstrap()
    scene.close()
    shutil.copytree(tmp_path / "project", tmp_path / "moved")
    with Workspace.open(tmp_path / "moved") as workspace:
        champion = Loops(workspace).status(NAME).champion
        assert champion is not None
        assert champion.version == 1
