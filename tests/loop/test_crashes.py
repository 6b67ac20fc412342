"""A loop under a world that does anything at any time, and a controller that dies at any write."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select
from tests.loop.scene import NAME, CrashError, CrashingDatabase, Scene

from trimtab.errors import ConflictError, RefusedError
from trimtab.loop.controller import Controller
from trimtab.loop.cycle import ARROWS, State
from trimtab.loop.cycles import active_cycles, list_cycles, moves_of
from trimtab.models.aliases import CHAMPION
from trimtab.models.registry import Registry
from trimtab.monitoring.alerts import Alerts
from trimtab.pipelines.schema import jobs_table
from trimtab.serving.endpoints import Endpoints
from trimtab.store import journal

ERRORS = st.sampled_from([1.0, 1.02, 1.6, 0.1])


def story(folder: Path, *, dying: bool, database: str | None = None) -> list[object]:
    """What a loop does in six days in which its champion decays; with `dying`, at each write of its
    controller another one has to go on."""
    scene = Scene(folder, database=database)
    scene.bootstrap()
    mortal = CrashingDatabase(scene.workspace.database)
    mortal.always = dying
    for _ in range(6):
        scene.traffic(1, errors={1: 1.5})
        while True:
            workspace = scene.workspace.acting_as("controller")
            workspace.database = mortal  # type: ignore[assignment]  # the same calls, but it dies
            try:
                scene.settle(controller=Controller(workspace))
                break
            except CrashError:
                continue
    told: list[object] = [
        (
            cycle.id,
            cycle.state,
            cycle.candidate,
            cycle.finished_at,
            [m.reason for m in scene.loops.why(NAME, cycle.id).moves],
        )
        for cycle in scene.loops.cycles(NAME)
    ]
    told += [(d.trigger, d.occasion, d.outcome, d.because) for d in scene.loops.decisions(NAME)]
    told += [(job.kind, job.dedupe_key) for job in scene.jobs.list()]
    told += [(e.kind, e.version, e.at) for e in Registry(scene.workspace).history(NAME)]
    told += [(c.at, c.route.arms) for c in Endpoints(scene.workspace).history(NAME)]
    told += [(f.at, f.status) for f in Alerts(scene.workspace).findings(NAME)]
    with scene.workspace.read() as connection:
        journal.verify(connection)
        told += [(e.at, e.action, e.name) for e in journal.entries(connection)]
    scene.close()
    return told


def test_a_controller_that_dies_at_every_write_leaves_the_same_story(tmp_path: Path) -> None:
    undisturbed = story(tmp_path / "undisturbed", dying=False)
    assert any("superior on live labels" in str(part) for part in undisturbed)
    assert story(tmp_path / "dying", dying=True) == undisturbed


def test_the_story_is_the_same_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    expected = story(tmp_path / "sqlite", dying=False)
    assert story(tmp_path / "postgres", dying=True, database=postgres_url) == expected


class LoopUnderFire(RuleBasedStateMachine):
    """Whatever happens and whenever the controller dies: one cycle, one champion, one training for each."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="trimtab-test-"))
        self.scene = Scene(self.folder)
        self.database = CrashingDatabase(self.scene.workspace.database)
        self.errors: dict[int, float] = {}
        self.ended: dict[str, tuple[str, int]] = {}
        self.controller = self.restarted()

    def restarted(self) -> Controller:
        """A controller that knows nothing of what the one before was doing."""
        workspace = self.scene.workspace.acting_as("controller")
        workspace.database = self.database  # type: ignore[assignment]  # the same calls, but it dies
        return Controller(workspace)

    def teardown(self) -> None:
        with self.scene.workspace.read() as connection:
            journal.verify(connection)
        self.scene.close()
        shutil.rmtree(self.folder)

    @initialize()
    def first_version(self) -> None:
        self.scene.bootstrap()
        self.controller = self.restarted()

    # -- the loop -----------------------------------------------------------------------------------------

    @rule(passes=st.integers(1, 4))
    def reconcile(self, passes: int) -> None:
        for _ in range(passes):
            self.controller.reconcile()
        assert not self.controller.failures

    @rule(write=st.integers(1, 4), after_commit=st.booleans())
    def reconcile_until_it_dies(self, write: int, after_commit: bool) -> None:
        self.database.writes_left, self.database.after_commit = write, after_commit
        try:
            for _ in range(8):
                self.controller.reconcile()
        except CrashError:
            self.controller = self.restarted()
        finally:
            self.database.writes_left = None

    @rule(trained=st.sampled_from([True, True, True, False]), passed=st.sampled_from([True, True, False]))
    def work(self, trained: bool, passed: bool) -> None:
        self.scene.work(trained=trained, passed=passed)

    @rule()
    def serve(self) -> None:
        self.scene.serve()

    @rule(days=st.integers(1, 4), errors=st.tuples(ERRORS, ERRORS))
    def days_pass_in_peace(self, days: int, errors: tuple[float, float]) -> None:
        """All roles work as they should for a while, so that long stories are told too."""
        for _ in range(days):
            self.a_day_passes(errors)

    def a_day_passes(self, errors: tuple[float, float]) -> None:
        active = self.scene.loops.active_cycle(NAME)
        champion, candidate = self.scene.champion, None if active is None else active.candidate
        told = {champion or 0: errors[0], candidate or 0: errors[1]}
        self.scene.traffic(1, errors=told)
        self.scene.settle(controller=self.controller)
        event(self.scene.state)

    # -- people -------------------------------------------------------------------------------------------

    @rule()
    def somebody_triggers(self) -> None:
        with contextlib.suppress(ConflictError, RefusedError):
            self.scene.loops.trigger(NAME)

    @rule()
    def somebody_rolls_back(self) -> None:
        with contextlib.suppress(ConflictError):
            self.scene.loops.rollback(NAME, reason="a person thinks so")

    @rule(mode=st.sampled_from(["auto", "auto", "approve", "advise"]))
    def somebody_sets_the_mode(self, mode: str) -> None:
        self.scene.loops.set_mode(NAME, mode)  # type: ignore[arg-type]

    @precondition(lambda self: self.scene.state in ("proposed", "awaiting_approval"))
    @rule()
    def somebody_approves(self) -> None:
        self.scene.loops.approve(NAME)

    @rule(paused=st.booleans())
    def somebody_pauses_or_resumes(self, paused: bool) -> None:
        (self.scene.loops.pause if paused else self.scene.loops.resume)(NAME)

    # -- what must hold -----------------------------------------------------------------------------------

    @invariant()
    def there_is_one_unfinished_cycle_at_most(self) -> None:
        with self.scene.workspace.read() as connection:
            cycles = list_cycles(connection, NAME)
            active = active_cycles(connection)
        unfinished = [cycle for cycle in cycles if not cycle.state.final]
        assert unfinished == list(active.values())
        assert len(unfinished) <= 1

    @invariant()
    def cycles_take_lawful_arrows_and_stay_where_they_end(self) -> None:
        with self.scene.workspace.read() as connection:
            for cycle in list_cycles(connection, NAME):
                moves = moves_of(connection, cycle.id)
                assert [move.sequence for move in moves] == list(range(1, cycle.moves + 1))
                for before, after in itertools.pairwise(moves):
                    assert after.from_state == before.to_state
                    assert State(after.to_state) in ARROWS[State(after.from_state)]
                assert moves[-1].to_state == cycle.state.value
                if cycle.id in self.ended:
                    assert self.ended[cycle.id] == (cycle.state.value, cycle.moves)
                elif cycle.state.final:
                    self.ended[cycle.id] = (cycle.state.value, cycle.moves)

    @invariant()
    def each_cycle_trains_and_is_gated_once_at_most(self) -> None:
        with self.scene.workspace.read() as connection:
            ordered = connection.execute(select(jobs_table.c.kind, jobs_table.c.spec)).all()
        trained = Counter(spec["cycle"] for kind, spec in ordered if kind == "loop.train")
        gated = Counter(spec["digest"] for kind, spec in ordered if kind == "loop.gates")
        assert not trained or max(trained.values()) == 1
        assert not gated or max(gated.values()) == 1

    @invariant()
    def the_champion_answers_and_came_by_a_promotion_or_a_rollback(self) -> None:
        champion = self.scene.champion
        route = Endpoints(self.scene.workspace).route(NAME)
        if champion is None:
            assert route is None
            return
        assert route is not None
        assert [arm.version for arm in route.arms if arm.role == "primary"] == [champion]
        promoted = {c.candidate for c in self.scene.loops.cycles(NAME) if c.state is State.PROMOTED}
        assert champion in promoted
        events = Registry(self.scene.workspace).history(NAME, CHAMPION)
        assert sum(event.kind == "set" for event in events) == len(promoted)

    @invariant()
    def a_challenger_is_on_the_route_only_while_its_cycle_rolls_out(self) -> None:
        route = Endpoints(self.scene.workspace).route(NAME)
        others = [] if route is None else [arm.version for arm in route.arms if arm.role != "primary"]
        active = self.scene.loops.active_cycle(NAME)
        rolling = [active.candidate] if active is not None and active.state.rolling_out else []
        assert others == rolling


TestLoopUnderFire = LoopUnderFire.TestCase
TestLoopUnderFire.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
