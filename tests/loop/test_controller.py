from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from tests.loop.scene import DAY, NAME, START, Scene, declared, fit, rentals

import trimtab as tt
from trimtab.data.datasets import Datasets
from trimtab.errors import ConflictError, RefusedError
from trimtab.loop.controller import Controller
from trimtab.loop.cycle import State
from trimtab.loop.job_queue import standing
from trimtab.models.policy import Override
from trimtab.models.registry import Registry
from trimtab.monitoring.alerts import Alerts
from trimtab.serving.endpoints import Endpoints
from trimtab.store import journal


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def shares(scene: Scene) -> dict[int, float]:
    route = Endpoints(scene.workspace).route(NAME)
    assert route is not None
    return {arm.version: arm.share for arm in route.arms}


def test_the_first_version_is_trained_gated_and_promoted_straight(scene: Scene) -> None:
    scene.bootstrap()
    cycle = scene.loops.why(NAME).cycle
    assert (cycle.trigger, cycle.state) == ("bootstrap", State.PROMOTED)
    assert cycle.datasets == {"rentals": 1}
    assert shares(scene) == {1: 100}


def test_a_trigger_leads_to_a_promotion_through_shadow_and_canary(scene: Scene) -> None:
    scene.bootstrap()
    scene.live(1, errors={1: 1.5})
    assert scene.state == "shadow"
    assert shares(scene) == {1: 100, 2: 0}
    seen = []
    for _ in range(3):
        scene.live(1, errors={1: 1.5})
        seen.append((scene.state, shares(scene)))
    assert seen == [("canary", {1: 50, 2: 50}), ("canary", {1: 0, 2: 100}), ("promoted", {2: 100})]
    assert scene.champion == 2
    moves = scene.loops.why(NAME).moves
    assert [move.to_state for move in moves] == [
        "triggered", "training", "gating", "shadow", "canary", "canary", "promoted",
    ]  # fmt: skip
    assert moves[-1].evidence["verdict"]["decision"] == "superior"  # type: ignore[index]


def test_a_worse_challenger_is_rolled_back_and_rejected(scene: Scene) -> None:
    scene.bootstrap()
    scene.loops.trigger(NAME, reason="try it")
    scene.settle()
    scene.live(3, errors={2: 1.9})
    assert scene.state == "rolled_back"
    assert scene.champion == 1
    assert shares(scene) == {1: 100}
    alert = Alerts(scene.workspace).alerts(NAME)[0]
    assert alert.name == "rollback"
    registry = Registry(scene.workspace)
    with pytest.raises(RefusedError, match="rejected"):
        scene.workspace.write(lambda tx: registry.set_alias(tx, NAME, "champion", 2))


def test_answers_far_from_the_champions_are_rolled_back_without_labels(scene: Scene) -> None:
    scene.bootstrap()
    scene.loops.trigger(NAME)
    scene.settle()
    scene.live(1, errors={2: 0.1})
    assert scene.state == "rolled_back"
    assert "times the champion's" in scene.loops.why(NAME).moves[-1].reason


def test_a_candidate_that_fails_its_gates_leaves_its_report_and_no_version(scene: Scene) -> None:
    scene.bootstrap()
    scene.loops.trigger(NAME)
    scene.settle(passed=False)
    assert scene.state == "rejected"
    registry = Registry(scene.workspace)
    assert [version.version for version in registry.versions(NAME)] == [1]
    assert not registry.gate_reports(NAME)[0].passed


def test_training_that_fails_ends_the_cycle_and_says_why(scene: Scene) -> None:
    scene.bootstrap()
    scene.loops.trigger(NAME)
    scene.settle(trained=False)
    move = scene.loops.why(NAME).moves[-1]
    assert move.to_state == "failed"
    assert "raised ValueError" in move.reason


def test_a_first_version_that_failed_is_tried_again_only_with_other_data(tmp_path: Path) -> None:
    scene = Scene(tmp_path, declared(triggers=[tt.OnBias()]))
    scene.settle(trained=False)
    scene.wait(days=30)
    scene.settle()
    assert [cycle.state.value for cycle in scene.loops.cycles(NAME)] == ["failed"]
    Datasets(scene.workspace).append("rentals", rentals(3), key="more")
    scene.settle()
    assert scene.champion == 1
    scene.close()


def test_triggers_during_a_cycle_and_in_its_cooldown_are_suppressed_and_say_so(scene: Scene) -> None:
    scene.bootstrap()
    scene.live(12, errors={1: 1.5, 2: 1.5})
    because = [(decision.trigger, decision.because) for decision in scene.loops.decisions(NAME)]
    assert ("on_bias", "active_cycle") in because
    assert ("on_bias", "cooldown") in because
    started = [decision for decision in scene.loops.decisions(NAME) if decision.outcome == "started"]
    assert all(decision.cycle for decision in started)
    assert len({(d.trigger, d.occasion) for d in scene.loops.decisions(NAME)}) == len(because)


def test_the_dwell_counts_only_once_gateways_serve_the_stage(scene: Scene) -> None:
    scene.bootstrap()
    scene.loops.trigger(NAME)
    scene.workspace.instances.leave("gateway-1")
    for _ in range(10):
        scene.controller.reconcile()
        scene.work()
    for _ in range(3):
        scene.wait(days=1)
        scene.controller.reconcile()
    assert scene.state == "shadow"
    scene.serve()
    scene.controller.reconcile()
    cycle = scene.loops.active_cycle(NAME)
    assert cycle is not None
    assert cycle.stage_since == START + 3 * DAY


def test_a_challenger_that_no_gateway_can_load_is_rolled_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.bootstrap()
    served = {NAME: 1}
    scene.loops.trigger(NAME)

    def fail(reason: str) -> None:
        failures = {NAME: reason} if reason else {}
        scene.workspace.instances.beat(
            "gateway-1", "gateway", detail={"routes": served, "failures": failures}
        )

    fail("")
    for _ in range(10):
        scene.controller.reconcile()
        scene.work()
    assert scene.state == "shadow"
    fail("version 2 needs the package onnxruntime")
    while scene.controller.reconcile():
        pass
    assert scene.state == "shadow"  # what keeps a gateway from it may pass
    monkeypatch.setattr("trimtab.loop.pilot.UNSERVED_SECONDS", 0.0)
    scene.controller.reconcile()
    assert scene.state == "rolled_back"
    ended = scene.loops.cycles(NAME, limit=1)[0]
    moves = scene.loops.why(NAME, ended.number).moves
    assert "cannot be served: gateway-1: version 2 needs the package onnxruntime" in moves[-1].reason
    route = Endpoints(scene.workspace).route(NAME)
    assert route is not None
    assert [arm.version for arm in route.arms] == [1]


def own_metric(labels: np.ndarray, predictions: np.ndarray) -> float:
    raise ZeroDivisionError


def test_a_users_metric_that_fails_stops_neither_a_rollout_nor_a_monitor_in_silence(tmp_path: Path) -> None:
    watched = [tt.Performance(own_metric, max=1.0, days=3)]
    scene = Scene(tmp_path, declared(metric=own_metric, monitors=watched, triggers=[]))
    scene.bootstrap()
    scene.loops.trigger(NAME)
    scene.live(4)
    assert scene.state == "shadow"
    scene.live(6)
    assert scene.state == "rolled_back"
    ended = scene.loops.cycles(NAME, limit=1)[0]
    reason = scene.loops.why(NAME, ended.number).moves[-1].reason
    assert reason == "it could not be measured: nobody does this here"
    found = {alert.name: alert for alert in Alerts(scene.workspace).alerts(NAME)}
    assert "could not be measured: nobody does this here" in found["trouble"].reason
    assert found["evaluation"].status == "open"
    assert "nobody does this here" in found["evaluation"].reason
    scene.close()


def test_a_person_ends_a_cycle_that_trains_for_ever(scene: Scene) -> None:
    while scene.controller.reconcile():
        pass
    job = scene.jobs.claim("worker-1", ["loop.train"])
    assert job is not None
    assert scene.state == "training"
    ended = scene.loops.cancel(NAME, reason="it hangs")
    assert (ended.state, scene.loops.why(NAME).moves[-1].reason) == (State.SUPERSEDED, "cancelled: it hangs")
    assert scene.jobs.heartbeat(job).cancel_requested
    assert scene.champion is None
    with pytest.raises(ConflictError, match="No cycle"):
        scene.loops.cancel(NAME)
    scene.loops.trigger(NAME)
    scene.settle()
    assert scene.champion == 1


def test_a_challenger_that_is_out_is_taken_back_and_not_cancelled(scene: Scene) -> None:
    scene.bootstrap()
    scene.loops.trigger(NAME)
    scene.settle()
    with pytest.raises(ConflictError, match="trimtab loop rollback"):
        scene.loops.cancel(NAME)
    assert scene.state == "shadow"


def test_a_cycle_that_is_superseded_leaves_no_work_behind(scene: Scene) -> None:
    scene.bootstrap()
    scene.loops.trigger(NAME)
    while scene.controller.reconcile():
        pass
    scene.workspace.write(
        lambda tx: Registry(scene.workspace).delete_alias(
            tx, NAME, "champion", reason="by hand", override=Override("ada", "it has to go")
        )
    )
    while scene.controller.reconcile():
        pass
    states = {cycle.number: cycle.state.value for cycle in scene.loops.cycles(NAME)}
    assert states[2] == "superseded"
    with scene.workspace.read() as connection:
        assert standing(connection, f"cycle:{NAME}-2:train").failure == "it was cancelled"


def test_a_paused_loop_does_nothing_but_watch(scene: Scene) -> None:
    scene.bootstrap()
    scene.loops.pause(NAME, reason="holidays")
    scene.live(5, errors={1: 1.5})
    assert len(scene.loops.cycles(NAME)) == 1
    assert Alerts(scene.workspace).alerts(NAME, only_open=True)[0].name == "log bias"
    with pytest.raises(RefusedError, match="paused"):
        scene.loops.trigger(NAME)
    scene.loops.resume(NAME)
    scene.live(1, errors={1: 1.5})
    assert scene.state == "shadow"


def test_advise_proposes_and_waits(tmp_path: Path) -> None:
    scene = Scene(tmp_path, declared(mode="advise"))
    scene.settle()
    assert scene.state == "proposed"
    scene.wait(days=3)
    scene.settle()
    assert scene.state == "proposed"
    assert not scene.jobs.list()
    scene.loops.approve(NAME, by="grace", reason="go")
    scene.settle()
    assert (scene.state, scene.champion) == ("promoted", 1)
    with scene.workspace.read() as connection:
        approved = next(journal.entries(connection, action="cycle.approved"))
    assert approved.details["by"] == "grace"
    scene.close()


def test_approve_trains_and_gates_but_rolls_out_only_when_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path, declared(mode="approve"))
    scene.settle()
    assert (scene.state, scene.champion) == ("awaiting_approval", None)
    waiting = scene.loops.trigger(NAME, reason="with newer data")
    assert waiting.number == 2
    with pytest.raises(ConflictError, match="not finished"):
        scene.loops.trigger(NAME)
    scene.settle()
    scene.loops.approve(NAME)
    scene.settle()
    assert (scene.state, scene.champion) == ("promoted", 2)
    assert [cycle.state.value for cycle in scene.loops.cycles(NAME)] == ["promoted", "superseded"]
    scene.close()


def test_a_rollback_takes_the_challenger_off_or_brings_the_last_champion_back(scene: Scene) -> None:
    scene.bootstrap()
    scene.live(7, errors={1: 1.5})
    assert scene.champion == 2
    scene.loops.trigger(NAME)
    scene.settle()
    assert shares(scene) == {2: 100, 3: 0}
    ended = scene.loops.rollback(NAME, reason="it smells")
    assert ended is not None
    assert ended.state is State.ROLLED_BACK
    assert (scene.champion, shares(scene)) == (2, {2: 100})
    assert scene.loops.rollback(NAME, reason="still smells") is None
    assert (scene.champion, shares(scene)) == (1, {1: 100})
    with pytest.raises(ConflictError, match="no earlier champion"):
        scene.loops.rollback(NAME, reason="worse")


def test_a_champion_changed_by_hand_supersedes_the_cycle(scene: Scene) -> None:
    scene.bootstrap()
    scene.live(7, errors={1: 1.5})
    scene.loops.trigger(NAME)
    scene.settle()
    registry = Registry(scene.workspace)
    scene.workspace.write(lambda tx: registry.rollback(tx, NAME, reason="by hand"))
    scene.settle()
    assert scene.state == "superseded"
    assert shares(scene) == {1: 100}


def test_gates_that_change_under_a_cycle_supersede_it(scene: Scene) -> None:
    scene.bootstrap()
    scene.loops.trigger(NAME)
    scene.settle()
    stricter = [*declared().declaration.gates, tt.gates.Latency(p99_ms=50)]
    scene.loops.apply(declared(gates=stricter))
    scene.settle()
    assert scene.state == "superseded"


def test_a_controller_that_was_taken_over_changes_nothing(scene: Scene) -> None:
    scene.bootstrap()
    asleep = scene.controller
    scene.loops.trigger(NAME)
    scene.workspace.leases.release(asleep._lease)  # type: ignore[arg-type]  # as if it had run out
    awake = Controller(scene.workspace, holder="another")
    assert awake.reconcile()
    scene.work()
    before = scene.loops.why(NAME).moves
    assert not asleep.reconcile()
    assert not asleep.leads
    assert scene.loops.why(NAME).moves == before


def test_a_second_controller_stands_by(scene: Scene) -> None:
    scene.bootstrap()
    second = Controller(scene.workspace, holder="second")
    assert not second.reconcile()
    assert not second.leads
    scene.controller.close()
    second.reconcile()
    assert second.leads


def test_one_loops_trouble_does_not_stop_the_others(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    Datasets(scene.workspace).create("other", time="at")

    @tt.pipeline
    def elsewhere() -> tt.Model:
        return fit(tt.dataset("other"), rate=0.1)

    scene.bootstrap()
    broken = tt.Loop(
        "a-broken-one", train=elsewhere, gates=[tt.gates.Bias(max_abs=1)], metric="rmse", mode="auto"
    )
    scene.loops.apply(broken)
    step = scene.controller._watcher.step

    def explode(loop: object, *rest: object) -> bool:
        if getattr(loop, "name", "") == "a-broken-one":
            raise RuntimeError("boom")
        return step(loop, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(scene.controller._watcher, "step", explode)
    scene.loops.trigger(NAME)
    scene.settle()
    assert scene.state == "shadow"
    assert scene.controller.failures == {"a-broken-one": "RuntimeError: boom"}


def test_an_idle_controller_knows_when_it_is_due(scene: Scene) -> None:
    scene.bootstrap()
    assert scene.controller.next_due() == START + DAY
    scene.wait(hours=5)
    assert not scene.controller.reconcile()
    scene.loops.trigger(NAME)
    scene.settle()
    cycle = scene.loops.active_cycle(NAME)
    assert cycle is not None
    assert cycle.look_at == START + DAY
    assert scene.controller.next_due() == START + DAY
    assert cycle.stage_since == START + timedelta(hours=5)
