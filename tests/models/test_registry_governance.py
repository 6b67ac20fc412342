from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from trimtab.digest import digest_bytes
from trimtab.errors import ConflictError, InvalidInputError, RefusedError
from trimtab.models.policy import Override, Policy, PolicyGate
from trimtab.models.registry import Registry
from trimtab.models.reports import GateReport, GateResult
from trimtab.store import journal
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

START = datetime(2011, 9, 1, tzinfo=UTC)
RMSLE = PolicyGate("metric rmsle", {"gate": "metric", "metric": "rmsle", "max": 0.5})
LATENCY = PolicyGate("latency", {"gate": "latency", "p99_ms": 20})
POLICY = Policy((RMSLE,))
STRICT = Policy((RMSLE, LATENCY))
OTHER = Policy((PolicyGate("metric rmsle", {"gate": "metric", "metric": "rmsle", "max": 9}),))
PERSON = Override("Ada", "the city asked for it")


def digest(version: int) -> str:
    return digest_bytes(str(version).encode())


class Model:
    """The model "bikes" of a workspace, whose version N has the content `digest(N)`."""

    def __init__(self, workspace: Workspace, versions: int) -> None:
        self.workspace = workspace
        self.registry = Registry(workspace)
        self.write(lambda tx: self.registry.create_model(tx, "bikes"))
        for version in range(1, versions + 1):
            self.write(lambda tx, it=version: self.registry.register(tx, "bikes", digest(it)))  # type: ignore[misc]

    def write(self, work: Callable[[Transaction], object]) -> object:
        return self.workspace.write(work)

    def govern(self, policy: Policy, *, by: str = "loop bikes", override: Override | None = None) -> None:
        self.write(lambda tx: self.registry.govern(tx, "bikes", policy, by=by, override=override))

    def report(
        self,
        version: int,
        policy: Policy,
        *,
        failed: tuple[str, ...] = (),
        only: tuple[str, ...] | None = None,
    ) -> None:
        names = policy.names if only is None else only
        results = tuple(
            GateResult(
                gate=name,
                passed=name not in failed,
                numbers={"value": 0.7, "rows": 336.0},
                reason="0.7 > 0.5",
            )
            for name in names
        )
        report = GateReport(
            model="bikes",
            digest=digest(version),
            policy=policy.digest,
            results=results,
            created_at=START,
            version=version,
        )
        self.write(lambda tx: self.registry.add_gate_report(tx, report))

    def crown(self, version: int, override: Override | None = None) -> None:
        self.write(lambda tx: self.registry.set_alias(tx, "bikes", "champion", version, override=override))

    def back(self, to: int | None = None, override: Override | None = None) -> None:
        self.write(
            lambda tx: self.registry.rollback(tx, "bikes", to=to, reason="errors rose", override=override)
        )

    def delete(self, version: int, override: Override | None = None) -> None:
        self.write(lambda tx: self.registry.delete_version(tx, "bikes", version, override=override))

    @property
    def champion(self) -> int | None:
        found = self.registry.champion("bikes")
        return None if found is None else found.version

    def last_entry(self) -> journal.Entry:
        with self.workspace.read() as connection:
            return next(journal.entries(connection, newest_first=True))


@pytest.fixture
def model(any_workspace: Workspace) -> Model:
    return Model(any_workspace, versions=4)


def test_without_a_report_the_champion_is_refused_with_what_is_missing_and_what_to_do(model: Model) -> None:
    model.govern(STRICT)
    with pytest.raises(RefusedError) as caught:
        model.crown(1)
    assert "metric rmsle, latency" in str(caught.value)
    assert "trimtab model validate bikes 1" in str(caught.value)
    assert model.champion is None
    assert model.last_entry().action == "model.governed"


def test_a_passing_report_for_the_very_content_lets_it_be_champion(model: Model) -> None:
    model.govern(POLICY)
    model.report(1, POLICY)
    with pytest.raises(RefusedError):
        model.crown(2)
    model.crown(1)
    assert model.champion == 1
    event = model.registry.history("bikes", "champion")[-1]
    assert (event.basis, event.policy, event.digest) == ("report", POLICY.digest, digest(1))
    assert event.report is not None
    assert model.registry.gate_report(event.report).passed
    assert model.last_entry().details["report"] == event.report


def test_other_versions_of_the_same_content_share_its_evidence(model: Model) -> None:
    model.govern(POLICY)
    model.report(1, POLICY)
    model.write(lambda tx: model.registry.register(tx, "bikes", digest(1)))
    model.crown(5)
    assert model.champion == 5


def test_a_report_that_failed_is_empty_or_lacks_a_gate_or_is_about_another_policy_lets_nothing_pass(
    model: Model,
) -> None:
    model.govern(STRICT)
    model.report(1, STRICT, failed=("latency",))
    with pytest.raises(RefusedError, match=r"did not pass: latency \(0\.7 > 0\.5\)\. Run"):
        model.crown(1)
    model.report(2, STRICT, only=())
    with pytest.raises(RefusedError, match="says nothing about: latency, metric rmsle"):
        model.crown(2)
    model.report(3, STRICT, only=("latency",))
    with pytest.raises(RefusedError, match="says nothing about: metric rmsle"):
        model.crown(3)
    model.report(4, POLICY)
    with pytest.raises(RefusedError, match="no gate report under the policy in force"):
        model.crown(4)


def test_the_newest_report_counts(model: Model) -> None:
    model.govern(POLICY)
    model.report(1, POLICY)
    model.report(1, POLICY, failed=("metric rmsle",))
    with pytest.raises(RefusedError, match="did not pass"):
        model.crown(1)
    model.report(1, POLICY)
    model.crown(1)


def test_a_report_of_another_model_counts_nothing_here(model: Model) -> None:
    registry = model.registry
    model.govern(POLICY)
    model.write(lambda tx: registry.create_model(tx, "cars"))
    report = GateReport(
        model="cars",
        digest=digest(1),
        policy=POLICY.digest,
        results=(GateResult(gate="metric rmsle", passed=True),),
        created_at=START,
    )
    model.write(lambda tx: registry.add_gate_report(tx, report))
    with pytest.raises(RefusedError):
        model.crown(1)


def test_a_report_must_fit_what_it_is_about(model: Model) -> None:
    def report(version: int | None, content: str, names: tuple[str, ...] = ("a",)) -> GateReport:
        results = tuple(GateResult(gate=name, passed=True) for name in names)
        return GateReport(
            model="bikes",
            digest=content,
            policy=POLICY.digest,
            results=results,
            created_at=START,
            version=version,
        )

    for wrong in (report(1, digest(2)), report(None, "x"), report(1, digest(1), ("a", "a"))):
        with pytest.raises(InvalidInputError):
            model.write(lambda tx, it=wrong: model.registry.add_gate_report(tx, it))  # type: ignore[misc]


def test_an_override_names_a_person_and_a_reason_and_is_journaled(model: Model) -> None:
    for person, reason in (("", "x"), ("Ada", " "), ("\t", "")):
        with pytest.raises(InvalidInputError, match="a person and a reason"):
            Override(person, reason)
    model.govern(POLICY)
    model.crown(1, override=PERSON)
    entry = model.last_entry()
    assert entry.action == "model.alias_set"
    assert entry.details["override"] == {"person": "Ada", "reason": "the city asked for it"}
    assert (entry.details["ground"], entry.reason) == ("override", "the city asked for it")


def test_an_override_that_was_not_needed_leaves_the_report_as_the_ground(model: Model) -> None:
    model.govern(POLICY)
    model.report(1, POLICY)
    model.crown(1, override=PERSON)
    assert model.registry.history("bikes", "champion")[-1].basis == "report"


WAYS_AROUND: dict[str, Callable[[Registry, Transaction, Override | None], object]] = {
    "delete the alias": lambda r, tx, o: r.delete_alias(tx, "bikes", "champion", override=o),
    "delete the version": lambda r, tx, o: r.delete_version(tx, "bikes", 1, override=o),
    "delete the model": lambda r, tx, o: r.delete_model(tx, "bikes", override=o),
    "rename the model": lambda r, tx, o: r.rename_model(tx, "bikes", "bicycles", override=o),
    "weaken the policy": lambda r, tx, o: r.govern(tx, "bikes", OTHER, by="loop bikes", override=o),
    "govern in another name": lambda r, tx, o: r.govern(tx, "bikes", POLICY, by="me", override=o),
    "set the stage": lambda r, tx, o: r.set_stage(tx, "bikes", 2, "Production", override=o),
    "an alias almost like it": lambda r, tx, o: r.set_alias(tx, "bikes", "Champion", 2, override=o),
    "set the alias": lambda r, tx, o: r.set_alias(tx, "bikes", "champion", 2, override=o),
}


@pytest.mark.parametrize("way", WAYS_AROUND)
def test_a_way_around_the_champion_is_refused_without_a_person_who_takes_it_upon_themselves(
    model: Model, way: str
) -> None:
    model.govern(POLICY)
    model.report(1, POLICY)
    model.crown(1)
    before = model.last_entry().seq
    with pytest.raises(RefusedError, match="person and a reason"):
        model.write(lambda tx: WAYS_AROUND[way](model.registry, tx, None))
    assert (model.champion, model.last_entry().seq) == (1, before)
    model.write(lambda tx: WAYS_AROUND[way](model.registry, tx, PERSON))
    assert model.last_entry().details["override"]["person"] == "Ada"


def test_a_deleted_or_renamed_name_comes_back_governed(model: Model) -> None:
    model.govern(POLICY)
    registry = model.registry
    model.write(lambda tx: registry.rename_model(tx, "bikes", "bicycles", override=PERSON))
    model.write(lambda tx: registry.delete_model(tx, "bicycles", override=PERSON))
    for name in ("bikes", "bicycles"):
        model.write(lambda tx, it=name: registry.create_model(tx, it))  # type: ignore[misc]
        made = model.workspace.write(lambda tx, it=name: registry.register(tx, it, digest(9)))  # type: ignore[misc]
        assert made.version == 5
        with pytest.raises(RefusedError):
            model.write(lambda tx, it=name: registry.set_alias(tx, it, "champion", 5))  # type: ignore[misc]


def test_a_policy_may_grow_freely_but_its_gates_may_not_go_or_change(model: Model) -> None:
    model.govern(POLICY)
    model.govern(Policy((LATENCY, RMSLE)))
    assert model.registry.policy("bikes") == Policy((LATENCY, RMSLE))
    entries = model.last_entry().seq
    model.govern(STRICT)  # the same gates in another order
    assert model.last_entry().seq == entries
    with pytest.raises(RefusedError, match="taking away or changing the gates latency is refused"):
        model.govern(POLICY)
    with pytest.raises(RefusedError, match="taking away or changing the gates"):
        model.govern(OTHER)
    model.govern(OTHER, override=PERSON)
    assert sorted(model.last_entry().details["weakened"]) == ["latency", "metric rmsle"]
    with pytest.raises(InvalidInputError, match="at least one gate"):
        Policy(())
    with pytest.raises(InvalidInputError, match="names of their own"):
        Policy((RMSLE, RMSLE))


def test_a_stronger_policy_holds_for_the_next_champion(model: Model) -> None:
    model.govern(POLICY)
    model.report(1, POLICY)
    model.report(2, POLICY)
    model.crown(1)
    model.govern(STRICT)
    assert model.champion == 1
    with pytest.raises(RefusedError, match="latency"):
        model.crown(2)
    model.report(2, STRICT)
    model.crown(2)


def test_a_champion_that_never_passed_is_not_taken_over_in_silence(model: Model) -> None:
    model.crown(1)
    with pytest.raises(RefusedError, match=r"cannot be governed yet.*trimtab model validate bikes 1"):
        model.govern(POLICY)
    model.report(1, POLICY)
    model.govern(POLICY)
    assert model.registry.history("bikes", "champion")[-1].basis == "report"
    model.write(lambda tx: model.registry.ungovern(tx, "bikes", override=PERSON))
    assert model.registry.policy("bikes") is None
    model.crown(2)
    with pytest.raises(RefusedError):
        model.govern(POLICY)
    model.govern(POLICY, override=PERSON)
    assert model.registry.history("bikes", "champion")[-1].kind == "affirmed"


def test_what_stands_in_production_is_watched_like_the_champion(model: Model) -> None:
    def stage(version: int, stage: str, *, archive: bool = False, override: Override | None = None) -> None:
        model.write(
            lambda tx: model.registry.set_stage(
                tx, "bikes", version, stage, archive_existing=archive, override=override
            )
        )

    model.govern(POLICY)
    stage(1, "Staging")
    model.report(1, POLICY)
    stage(1, "Production")
    for version, other in ((1, "Archived"), (2, "Production")):
        with pytest.raises(RefusedError):
            stage(version, other)
    with pytest.raises(RefusedError):
        model.delete(1)
    model.report(2, POLICY)
    stage(2, "Production", archive=True)
    assert [each.stage for each in model.registry.versions("bikes")] == [
        "None",
        "None",
        "Production",
        "Archived",
    ]
    model.delete(1)


def test_undoing_the_last_promotion_needs_nothing(model: Model) -> None:
    model.govern(POLICY)
    for version in (1, 2):
        model.report(version, POLICY)
        model.crown(version)
    model.govern(STRICT)  # a stricter policy does not stand in the way of the last champion
    model.report(1, STRICT, failed=("latency",))  # nor does what it found since
    model.back()
    assert model.champion == 1
    event = model.registry.history("bikes", "champion")[-1]
    assert (event.kind, event.basis) == ("rolled_back", "rollback")
    assert event.report is not None
    assert model.registry.gate_report(event.report).policy == POLICY.digest
    entry = model.last_entry()
    assert (entry.action, entry.reason) == ("model.rolled_back", "errors rose")
    assert (entry.details["from"], entry.details["version"]) == (2, 1)


def test_what_was_rolled_back_from_needs_new_evidence_to_return(model: Model) -> None:
    model.govern(POLICY)
    for version in (1, 2):
        model.report(version, POLICY)
        model.crown(version)
    model.back()
    with pytest.raises(RefusedError, match="rejected after its newest gate report"):
        model.crown(2)
    with pytest.raises(ConflictError, match="no earlier champion 2"):
        model.back(to=2)
    with pytest.raises(ConflictError, match="no earlier champion"):
        model.back()
    model.report(2, POLICY)
    model.crown(2)
    assert model.champion == 2
    model.back()
    assert model.champion == 1


def test_content_that_was_rejected_does_not_return_under_another_number(model: Model) -> None:
    model.govern(POLICY)
    for version in (1, 2):
        model.report(version, POLICY)
        model.crown(version)
    model.back()
    model.delete(2)
    model.write(lambda tx: model.registry.register(tx, "bikes", digest(2)))
    with pytest.raises(RefusedError, match="rejected"):
        model.crown(5)


def test_a_rollback_goes_further_back_under_one_policy_but_not_behind_a_stricter_one(model: Model) -> None:
    model.govern(POLICY)
    for version in (1, 2, 3):
        model.report(version, POLICY)
        model.crown(version)
    model.back(to=1)
    assert model.champion == 1
    model.report(2, POLICY)
    model.crown(2)
    model.govern(STRICT)
    model.report(4, STRICT)
    model.crown(4)
    with pytest.raises(RefusedError, match="latency"):
        model.back(to=1)
    model.back()  # 2 reigned while the stricter policy came into force
    assert model.champion == 2
    with pytest.raises(RefusedError, match="latency"):
        model.back()
    model.report(1, STRICT)
    model.back()
    assert model.champion == 1
    assert model.registry.history("bikes", "champion")[-1].basis == "report"


def test_a_champion_by_override_is_gone_back_to_only_as_the_last_one(model: Model) -> None:
    model.govern(POLICY)
    model.crown(1, override=PERSON)
    for version in (2, 3):
        model.report(version, POLICY)
        model.crown(version)
    with pytest.raises(RefusedError):
        model.back(to=1)
    model.back()
    assert model.champion == 2
    with pytest.raises(RefusedError):
        model.back()
    model.back(override=PERSON)
    assert model.champion == 1
    model.report(4, POLICY)
    model.crown(4)
    model.back()
    assert model.champion == 1


def test_a_champion_of_ungoverned_times_is_no_way_back(model: Model) -> None:
    model.crown(1)
    model.crown(2)
    model.report(2, POLICY)
    model.govern(POLICY)
    with pytest.raises(RefusedError, match="no gate report"):
        model.back()


def test_a_champion_that_a_person_took_away_is_no_way_back(model: Model) -> None:
    model.govern(POLICY)
    for version in (1, 2):
        model.report(version, POLICY)
        model.crown(version)
    model.write(lambda tx: model.registry.delete_alias(tx, "bikes", "champion", override=PERSON))
    with pytest.raises(ConflictError, match="no champion to roll back from"):
        model.back()
    model.report(3, POLICY)
    model.crown(3)
    with pytest.raises(ConflictError, match="no earlier champion 2"):
        model.back(to=2)
    model.back()
    assert model.champion == 1


def test_the_version_that_a_rollback_would_go_to_is_kept(model: Model) -> None:
    model.govern(POLICY)
    for version in (1, 2, 3):
        model.report(version, POLICY)
        model.crown(version)
    with pytest.raises(RefusedError, match="deleting version 2, which it relies on"):
        model.delete(2)
    model.delete(1)
    model.delete(2, override=PERSON)
    with pytest.raises(ConflictError, match="no earlier champion"):
        model.back()


def test_a_version_that_failed_where_it_was_tried_needs_new_evidence(model: Model) -> None:
    model.govern(POLICY)
    for version in (1, 2):
        model.report(version, POLICY)
    model.crown(1)
    model.write(lambda tx: model.registry.reject_version(tx, "bikes", 2, reason="failed in canary"))
    with pytest.raises(RefusedError, match="rejected"):
        model.crown(2)
    assert model.last_entry().reason == "failed in canary"


def test_a_model_that_nobody_governs_is_rolled_back_freely(model: Model) -> None:
    for version in (1, 2, 3):
        model.crown(version)
    model.back()
    model.back()
    assert model.champion == 1
    with pytest.raises(ConflictError):
        model.back()


def test_who_comes_first_does_not_matter_to_what_is_guarded(model: Model) -> None:
    """A policy and an unproven champion, set at the same moment: one of the two is refused."""
    for _ in range(10):
        barrier = threading.Barrier(2)

        def attempt(work: Callable[[], None], barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            try:
                work()
            except RefusedError:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            governed = pool.submit(attempt, lambda: model.govern(POLICY))
            crowned = pool.submit(attempt, lambda: model.crown(1))
            assert governed.result() != crowned.result()
        model.write(lambda tx: model.registry.ungovern(tx, "bikes", override=PERSON))
        model.write(lambda tx: model.registry.delete_alias(tx, "bikes", "champion"))


def test_the_numbers_of_a_report_are_kept(model: Model) -> None:
    model.report(1, STRICT, failed=("latency",))
    model.report(2, POLICY)
    assert [report.version for report in model.registry.gate_reports("bikes")] == [2, 1]
    report = model.registry.gate_reports("bikes", version=1)[0]
    assert not report.passed
    assert [result.gate for result in report.failed] == ["latency"]
    assert report.results[0].numbers == {"value": 0.7, "rows": 336.0}
    entry = model.last_entry()
    assert entry.action == "model.gates_evaluated"
    assert entry.details["results"][0]["numbers"] == {"value": 0.7, "rows": 336.0}
