from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import Trimtab
from tests.loop.scene import Scene, declared

LOOP = Path(__file__).parent.parent / "loop" / "project" / "loop.py"


def test_a_loop_is_applied_once_and_listed(trimtab: Trimtab, project: Path) -> None:
    shutil.copy(LOOP, project)
    trimtab("loop", "apply", "--dir", project).failed(2, "No loop is named", "module:name")
    trimtab("loop", "apply", "loop:loop", "--dir", project).failed(3, "reads the dataset 'demand'")
    assert trimtab("data", "create", "demand", "--time", "at", "--dir", project).status == 0
    for _ in range(2):
        assert trimtab("loop", "apply", "loop:loop", "--dir", project, "--json").json["version"] == 1
    assert "version 1" in trimtab("loop", "apply", "loop:loop", "--dir", project).out
    found = trimtab("loop", "list", "--dir", project, "--json").json
    assert [loop["name"] for loop in found] == ["bikes", "demand"]
    assert "demand" in trimtab("loop", "list", "--dir", project).out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import nothing_like_that", "ModuleNotFoundError"),
        ("def (", "SyntaxError"),
        ("loop = 3", "'mine:loop' is int, not a loop"),
        ("import trimtab as tt\nloop = tt.Loop('x', train=print, gates=[])", "which is not a pipeline"),
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    ],
)
def test_a_loop_that_cannot_be_loaded_is_told_without_a_traceback(
    trimtab: Trimtab, project: Path, text: str, told: str
) -> None:
    (project / "mine.py").write_text(text)
    trimtab("loop", "apply", "mine:loop", "--dir", project).failed(2, told)


def test_how_a_loop_stands_is_shown_with_its_evidence(trimtab: Trimtab, project: Path, scene: Scene) -> None:
    scene.live(2, errors={1: 1.5})
    at = ("bikes", "--dir", project)
    shown = trimtab("loop", "show", *at).out
    assert "version 1" in shown
    assert "log bias" in shown
    status = trimtab("loop", "show", *at, "--json").json
    assert status["status"]["champion"]["version"] == 1
    assert status["open_alerts"][0]["name"] == "log bias"
    cycles = trimtab("loop", "cycles", *at, "--json").json
    assert cycles[-1]["state"] == "promoted"
    assert "bootstrap" in trimtab("loop", "cycles", *at).out
    findings = trimtab("loop", "findings", *at, "--json", "--limit", "2").json
    assert len(findings) == 2
    assert "log bias" in trimtab("loop", "findings", *at).out
    assert trimtab("loop", "alerts", *at, "--json").json[0]["name"] == "log bias"
    assert "log bias" in trimtab("loop", "alerts", *at).out
    assert "champion" in trimtab("why", *at).out
    why = trimtab("why", "bikes", "1", "--dir", project, "--json").json
    assert [move["to_state"] for move in why["moves"]][-1] == "promoted"


def test_a_person_gives_orders(trimtab: Trimtab, project: Path, scene: Scene) -> None:
    at = ("bikes", "--dir", project)
    trimtab("loop", "approve", *at).failed(4, "Nothing of the loop 'bikes' waits for approval")
    assert "is paused" in trimtab("loop", "pause", *at, "--reason", "holidays").out
    assert "paused" in trimtab("loop", "show", *at).out
    trimtab("loop", "trigger", *at).failed(4, "is paused", "trimtab loop resume bikes")
    assert "goes on" in trimtab("loop", "resume", *at).out
    assert "mode approve" in trimtab("loop", "mode", "bikes", "approve", "--dir", project).out
    asked = trimtab("loop", "trigger", *at, "--param", "rate=0.3", "--reason", "try", "--json").json
    assert (asked["state"], asked["params"], asked["reason"]) == ("triggered", {"rate": 0.3}, "try")
    scene.settle()
    assert "awaiting approval" in trimtab("loop", "show", *at).out
    assert trimtab("loop", "approve", *at, "--json").json["approved_by"]
    scene.settle()
    assert scene.state == "shadow"
    trimtab("loop", "cancel", *at).failed(4, "is out already", "trimtab loop rollback bikes")
    ended = trimtab("loop", "rollback", *at, "--reason", "it smells")
    assert "Cycle 2 is rolled back. The champion is version 1." in ended.out
    trimtab("loop", "trigger", *at)
    assert trimtab("loop", "cancel", *at, "--reason", "enough", "--json").json["state"] == "superseded"


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["show", "bike"], 3, "Did you mean 'bikes'?"),
        (["cycles", "bike"], 3, "'bike'"),
        (["findings", "bike"], 3, "'bike'"),
        (["alerts", "bike"], 3, "'bike'"),
        (["trigger", "bike"], 3, "'bike'"),
        (["approve", "bike"], 3, "'bike'"),
        (["pause", "bike"], 3, "'bike'"),
        (["resume", "bike"], 3, "'bike'"),
        (["mode", "bikes", "wild"], 2, "Give auto, approve or advise"),
        (["trigger", "bikes", "--param", "rate"], 2, "Write it as name=value"),
        (["trigger", "bikes", "--param", "rat=1"], 2, "has no parameter 'rat'", ),
        (["rollback", "bikes"], 2, "--reason"),
        (["rollback", "bikes", "--reason", "x"], 4, "bikes"),
        (["show", "bikes", "--limit", "0"], 2, "No such option"),
        (["cycles", "bikes", "--limit", "0"], 2, "--limit"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_told_with_its_status(
    trimtab: Trimtab, project: Path, words: list[str], status: int, told: str
) -> None:
    trimtab("loop", *words, "--dir", project).failed(status, told)


def test_what_is_unknown_to_why_is_told(trimtab: Trimtab, project: Path) -> None:
    trimtab("why", "bike", "--dir", project).failed(3, "Did you mean 'bikes'?")
    trimtab("why", "bikes", "17", "--dir", project).failed(3, "bikes-17")


def test_gates_that_were_taken_away_are_refused(trimtab: Trimtab, project: Path, scene: Scene) -> None:
    assert declared().declaration.gates
    changed = LOOP.read_text().replace('"demand",', '"bikes",').replace("demand", "rentals")
    (project / "weaker.py").write_text(changed)
    ended = trimtab("loop", "apply", "weaker:loop", "--dir", project)
    ended.failed(4, "bikes")
    assert scene.champion == 1
