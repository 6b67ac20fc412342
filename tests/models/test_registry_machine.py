"""Random sequences of everything that a registry can be asked, against a plain account of what was said."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from trimtab.clock import FixedClock
from trimtab.digest import digest_bytes
from trimtab.errors import TrimtabError
from trimtab.models.policy import Override, Policy, PolicyGate
from trimtab.models.registry import Registry
from trimtab.models.reports import GateReport, GateResult
from trimtab.store import journal
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

A, B = PolicyGate("a", {"max": 1}), PolicyGate("b", {"max": 1})
POLICIES = (Policy((A,)), Policy((A, B)), Policy((PolicyGate("a", {"max": 2}),)))
DIGESTS = tuple(digest_bytes(bytes([number])) for number in range(4))

names = st.sampled_from(["bikes", "bikes", "bikes", "cars"])  # few, so that much happens to each
aliases = st.sampled_from(["champion", "champion", "challenger", "Champion"])
overrides = st.sampled_from([None, None, Override("Ada", "because")])
policies = st.sampled_from(POLICIES)
places = st.integers(0, 5)
rarely = st.integers(0, 9).map(lambda number: number == 7)
_examples = itertools.count()


@dataclass
class Account:
    """What a model's name has been through, as a reader of this test would note it."""

    versions: dict[int, str] = field(default_factory=dict)
    policy: Policy | None = None
    reports: list[GateReport] = field(default_factory=list)
    overridden: set[str] = field(default_factory=set)  # digests that a person let pass


class RegistryMachine(RuleBasedStateMachine):
    """Each example uses names of its own in one workspace, which is what takes long to make."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        assert isinstance(workspace.clock, FixedClock)
        self.clock = workspace.clock
        self.registry = Registry(workspace)
        self.example = next(_examples)
        self.began = self.last_entry()
        self.accounts: dict[str, Account] = {}
        self.graves: dict[str, Account] = {}  # of deleted models
        self.given: dict[str, set[int]] = {}  # all numbers that a name ever gave
        self.told: dict[tuple[str, str], list[tuple[datetime, int | None]]] = {}
        self.undo: tuple[str, int] | None = None  # the last thing done: a promotion over this version

    def full(self, name: str) -> str:
        return f"{name} {self.example}"

    def attempt(self, work: Callable[[Transaction], object]) -> bool:
        """Whether the registry took it. What it refuses leaves no entry."""
        self.undo = None
        before = self.last_entry()
        try:
            self.workspace.write(work)
        except TrimtabError:
            assert self.last_entry() == before
            return False
        return True

    def last_entry(self) -> int:
        with self.workspace.read() as connection:
            return next((entry.seq for entry in journal.entries(connection, newest_first=True, limit=1)), 0)

    def pick(self, name: str, place: int) -> int:
        """One of the versions of a model, or a number that there is not."""
        numbers = sorted(self.accounts[name].versions) if name in self.accounts else []
        return numbers[place % len(numbers)] if numbers else 99

    def champion(self, name: str) -> int | None:
        return self.last_told(name, "champion")

    def last_told(self, name: str, alias: str) -> int | None:
        events = self.told.get((name, alias))
        return events[-1][1] if events else None

    def tell(self, name: str, alias: str, version: int | None) -> None:
        if self.last_told(name, alias) != version:
            self.told.setdefault((name, alias), []).append((self.clock.now(), version))

    @initialize(governed=st.sampled_from(["from the start", "from the start", "later", "never"]))
    def there_is_a_model(self, governed: str) -> None:
        self.create("bikes")
        for digest in DIGESTS[:3]:
            self.register("bikes", digest)
        if governed == "from the start":
            self.govern("bikes", POLICIES[0], "loop", None)
        for place in (0, 1):
            self.a_version_passes_and_is_promoted("bikes", place)
        if governed == "later":
            self.gates_are_run("bikes", POLICIES[0], 1, True, True)
            self.govern("bikes", POLICIES[0], "loop", None)

    @rule(hours=st.integers(0, 3))
    def time_passes(self, hours: int) -> None:
        self.clock.set(self.clock.now() + timedelta(hours=hours))

    @rule(name=names)
    def create(self, name: str) -> None:
        taken = self.attempt(lambda tx: self.registry.create_model(tx, self.full(name)))
        assert taken == (name not in self.accounts)
        if taken:
            found = self.workspace.write(lambda tx: self.registry.policy(self.full(name), tx=tx))
            buried = self.graves.pop(name, Account())
            self.accounts[name] = Account(policy=found, reports=buried.reports, overridden=buried.overridden)

    @rule(name=names, digest=st.sampled_from(DIGESTS))
    def register(self, name: str, digest: str) -> None:
        made = []
        if self.attempt(lambda tx: made.append(self.registry.register(tx, self.full(name), digest))):
            version = made[-1].version
            assert version not in self.given.setdefault(name, set())
            self.given[name].add(version)
            self.accounts[name].versions[version] = digest

    @rule(name=names, policy=policies, place=places, passes=st.booleans(), whole=st.booleans())
    def gates_are_run(self, name: str, policy: Policy, place: int, passes: bool, whole: bool) -> None:
        version = self.pick(name, place)
        if version == 99:
            return
        gates = policy.names if whole else policy.names[:1]
        report = GateReport(
            model=self.full(name),
            digest=self.accounts[name].versions[version],
            policy=policy.digest,
            results=tuple(GateResult(gate=gate, passed=passes) for gate in gates),
            created_at=self.clock.now(),
        )
        assert self.attempt(lambda tx: self.registry.add_gate_report(tx, report))
        self.accounts[name].reports.append(report)

    @rule(name=names, place=places)
    def a_version_passes_and_is_promoted(self, name: str, place: int) -> None:
        if name in self.accounts and self.accounts[name].policy is not None:
            policy = self.accounts[name].policy
            assert policy is not None
            self.gates_are_run(name, policy, place, True, True)
        self.set_alias(name, "champion", place, None)

    @rule(name=names, alias=aliases, place=places, override=overrides)
    def set_alias(self, name: str, alias: str, place: int, override: Override | None) -> None:
        version, before = self.pick(name, place), self.last_told(name, alias)
        if not self.attempt(
            lambda tx: self.registry.set_alias(tx, self.full(name), alias, version, override=override)
        ):
            return
        account = self.accounts[name]
        self.tell(name, alias, version)
        if alias == "champion" and version != before:
            self.note_override(name, version, override)
            if before is not None and account.versions[before] != account.versions[version]:
                self.undo = (name, before)

    def note_override(self, name: str, version: int, override: Override | None) -> None:
        account = self.accounts[name]
        if account.policy is None:
            return
        if override is not None:
            account.overridden.add(account.versions[version])
        else:
            assert self.has_passed(account, account.versions[version])

    @rule(name=names, alias=aliases, override=overrides)
    def delete_alias(self, name: str, alias: str, override: Override | None) -> None:
        if self.attempt(lambda tx: self.registry.delete_alias(tx, self.full(name), alias, override=override)):
            assert alias != "champion" or not self.guarded(name, override) or self.champion(name) is None
            self.tell(name, alias, None)

    @rule(name=names, to=st.none() | places, override=overrides)
    def roll_back(self, name: str, to: int | None, override: Override | None) -> None:
        target, left = None if to is None else self.pick(name, to), self.champion(name)
        gone: list[int] = []

        def work(tx: Transaction) -> None:
            made = self.registry.rollback(
                tx, self.full(name), to=target, reason="it erred", override=override
            )
            gone.append(made.version)

        if self.attempt(work):
            assert left is not None
            assert gone[-1] != left
            assert target in {None, gone[-1]}
            if override is not None:
                self.accounts[name].overridden.add(self.accounts[name].versions[gone[-1]])
            self.tell(name, "champion", gone[-1])

    @rule(name=names)
    def roll_back_as_far_as_it_goes(self, name: str) -> None:
        for _ in range(3):
            self.roll_back(name, None, None)

    @rule(name=names, place=places)
    def a_promotion_is_undone(self, name: str, place: int) -> None:
        self.a_version_passes_and_is_promoted(name, place)
        if self.undo is not None:
            self.undo_the_last_promotion()

    @precondition(lambda self: self.undo is not None)
    @rule()
    def undo_the_last_promotion(self) -> None:
        """Always possible, if what reigned before did so on a ground and was not rejected itself."""
        assert self.undo is not None
        name, before = self.undo
        account = self.accounts[name]
        events = [
            event
            for event in self.registry.history(self.full(name), "champion")
            if event.version == before and event.kind in {"set", "affirmed", "rolled_back"}
        ]
        grounded = account.policy is None or events[-1].basis != "free"
        with self.workspace.read() as connection:
            rejected = any(
                entry.details.get("digest" if "rejected" in entry.action else "from_digest")
                == account.versions[before]
                and entry.seq > events[-1].entry
                for entry in journal.entries(connection, kind="model", name=self.full(name))
                if entry.action in {"model.version_rejected", "model.rolled_back"}
            )
        done = self.attempt(lambda tx: self.registry.rollback(tx, self.full(name), reason="undo"))
        if grounded and not rejected:
            assert done
            assert self.registry.champion(self.full(name)).version == before  # type: ignore[union-attr]
        if done:
            found = self.registry.champion(self.full(name))
            assert found is not None
            self.tell(name, "champion", found.version)

    @rule(name=names, policy=policies, by=st.sampled_from(["loop", "loop", "me"]), override=overrides)
    def govern(self, name: str, policy: Policy, by: str, override: Override | None) -> None:
        account = self.accounts.get(name)
        if self.attempt(
            lambda tx: self.registry.govern(tx, self.full(name), policy, by=by, override=override)
        ):
            assert account is not None
            if account.policy is None and override is not None:
                account.overridden |= {account.versions[each] for each in self.standing(name)}
            if account.policy is not None and override is None:
                assert not policy.weakened_from(account.policy)
            account.policy = policy

    @rule(name=names, really=rarely)
    def ungovern(self, name: str, really: bool) -> None:
        if not really:
            return
        person = Override("Ada", "because")
        if self.attempt(lambda tx: self.registry.ungovern(tx, self.full(name), override=person)):
            self.accounts[name].policy = None

    @rule(name=names, place=places, stage=st.sampled_from(["Production", "Archived"]), override=overrides)
    def set_stage(self, name: str, place: int, stage: str, override: Override | None) -> None:
        version = self.pick(name, place)
        before = None if version == 99 else self.registry.get_version(self.full(name), version).stage
        if (
            self.attempt(
                lambda tx: self.registry.set_stage(tx, self.full(name), version, stage, override=override)
            )
            and stage == "Production" != before
        ):
            self.note_override(name, version, override)

    @rule(name=names, place=places)
    def reject(self, name: str, place: int) -> None:
        version = self.pick(name, place)
        self.attempt(lambda tx: self.registry.reject_version(tx, self.full(name), version, reason="it erred"))

    @rule(name=names, place=places, override=overrides)
    def delete_version(self, name: str, place: int, override: Override | None) -> None:
        version, standing = self.pick(name, place), self.standing(name)
        if self.attempt(
            lambda tx: self.registry.delete_version(tx, self.full(name), version, override=override)
        ):
            assert version not in standing or not self.guarded(name, override)
            del self.accounts[name].versions[version]
            for alias in ("champion", "challenger", "Champion"):
                if self.last_told(name, alias) == version:
                    self.tell(name, alias, None)

    @rule(name=names, override=overrides, really=rarely)
    def delete_model(self, name: str, override: Override | None, really: bool) -> None:
        if not really and not (name in self.accounts and self.guarded(name, override)):
            return
        if self.attempt(lambda tx: self.registry.delete_model(tx, self.full(name), override=override)):
            assert not self.guarded(name, override)
            self.graves[name] = self.accounts.pop(name)
            for alias in ("champion", "challenger", "Champion"):
                self.tell(name, alias, None)

    @rule(name=names, to=st.sampled_from(["bikes", "trams"]), override=overrides, really=rarely)
    def rename(self, name: str, to: str, override: Override | None, really: bool) -> None:
        if not really and not (name in self.accounts and self.guarded(name, override)):
            return
        if self.attempt(
            lambda tx: self.registry.rename_model(tx, self.full(name), self.full(to), override=override)
        ):
            if to == name:
                return  # which changes nothing
            assert not self.guarded(name, override)
            self.accounts[to] = self.accounts.pop(name)
            self.given[to] = set(self.given.get(name, set()))
            for alias in ("champion", "challenger", "Champion"):
                self.tell(to, alias, self.last_told(name, alias))
                self.tell(name, alias, None)

    def guarded(self, name: str, override: Override | None) -> bool:
        return self.accounts[name].policy is not None and override is None

    def standing(self, name: str) -> set[int]:
        if name not in self.accounts:
            return set()
        found = {
            each.version for each in self.registry.versions(self.full(name)) if each.stage == "Production"
        }
        champion = self.champion(name)
        return found if champion is None else found | {champion}

    def has_passed(self, account: Account, digest: str) -> bool:
        by_digest = {policy.digest: policy for policy in POLICIES}
        return any(
            report.digest == digest
            and report.passed
            and {result.gate for result in report.results} == set(by_digest[report.policy].names)
            for report in account.reports
        )

    @invariant()
    def what_stands_in_a_governed_model_has_passed_or_was_let_pass_by_a_person(self) -> None:
        for name, account in self.accounts.items():
            if account.policy is None:
                continue
            with self.workspace.read() as connection:
                journaled = {
                    ground["digest"]
                    for entry in journal.entries(connection, after=self.began, kind="model")
                    if entry.details.get("override")
                    for ground in (entry.details, *entry.details.get("affirmed", ()))
                    if "digest" in ground
                }
            for version in self.standing(name):
                digest = account.versions[version]
                assert self.has_passed(account, digest) or digest in account.overridden & journaled

    @invariant()
    def every_alias_was_what_it_was_said_to_be_at_every_time(self) -> None:
        for (name, alias), events in self.told.items():
            times = [at for at, _ in (events[0], *events[-2:])]  # the others were the last ones before
            for at in {*times, *(time - timedelta(microseconds=1) for time in times), self.clock.now()}:
                said = [version for since, version in events if since <= at]
                found = self.registry.alias_at(self.full(name), alias, at)
                assert (None if found is None else found.version) == (said[-1] if said else None)

    @invariant()
    def what_stands_is_what_was_said(self) -> None:
        for name, account in self.accounts.items():
            found = self.registry.versions(self.full(name))
            assert {each.version: each.digest for each in found} == account.versions
            champion = self.registry.champion(self.full(name))
            assert (None if champion is None else champion.version) == self.champion(name)

    def teardown(self) -> None:
        with self.workspace.read() as connection:
            journal.verify(connection)


@pytest.mark.timeout(600)  # a failure is made small, which takes its time
def test_no_sequence_of_changes_leads_around_the_gates(any_workspace: Workspace) -> None:
    class Machine(RegistryMachine):
        def __init__(self) -> None:
            super().__init__(any_workspace)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25 if any_workspace.settings.database is None else 10,  # half a second each
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
