from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest

from trimtab.clock import FixedClock
from trimtab.digest import digest_bytes
from trimtab.errors import ConflictError, InvalidInputError, NotFoundError, TrimtabError
from trimtab.models.registry import Registry
from trimtab.models.signature import Column, Signature
from trimtab.models.versions import DataVersion, ModelVersion, VersionRecord
from trimtab.store import journal
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

T = TypeVar("T")
ONE, TWO, THREE = (digest_bytes(data) for data in (b"1", b"2", b"3"))
START = datetime(2011, 9, 1, tzinfo=UTC)


@pytest.fixture
def registry(any_workspace: Workspace) -> Registry:
    registry = Registry(any_workspace)
    any_workspace.write(lambda tx: registry.create_model(tx, "bikes"))
    return registry


@pytest.fixture
def write(any_workspace: Workspace) -> Callable[[Callable[[Transaction], object]], object]:
    return any_workspace.write


def register(workspace: Workspace, digest: str, key: str | None = None) -> ModelVersion:
    registry = Registry(workspace)
    return workspace.write(lambda tx: registry.register(tx, "bikes", digest, request_key=key))


def point(workspace: Workspace, alias: str, version: int, reason: str = "") -> None:
    registry = Registry(workspace)
    workspace.write(lambda tx: registry.set_alias(tx, "bikes", alias, version, reason=reason))


def move(workspace: Workspace, days: int) -> datetime:
    assert isinstance(workspace.clock, FixedClock)
    workspace.clock.set(workspace.clock.now() + timedelta(days=days))
    return workspace.clock.now()


def actions(workspace: Workspace) -> list[str]:
    with workspace.read() as connection:
        return [entry.action for entry in journal.entries(connection, kind="model")]


def test_a_version_carries_what_it_was_made_of(any_workspace: Workspace, registry: Registry) -> None:
    record = VersionRecord(
        signature=Signature((Column("hour", "number"), Column("season", "category", categories=("1", "2")))),
        data=(DataVersion("trips", 3, ONE),),
        features=("hour", "season"),
        pipeline="loop:training",
        params={"learning_rate": 0.1, "note": None},
        code=TWO,
        environment=THREE,
        as_of=START,
        metrics={"rmsle": 0.4, "auc": None},
    )
    made = any_workspace.write(
        lambda tx: registry.register(
            tx,
            "bikes",
            ONE,
            run_id="a" * 32,
            source="runs:/a/model",
            description="first",
            record=record,
            tags={"cycle": "1"},
        )
    )
    found = registry.get_version("bikes", 1)
    assert found == made
    assert (found.version, found.digest, found.record, found.tags) == (1, ONE, record, {"cycle": "1"})
    assert (found.run_id, found.actor, found.created_at) == ("a" * 32, "tester", START)
    assert actions(any_workspace) == ["model.created", "model.version_registered"]


def test_a_version_number_is_never_given_twice(any_workspace: Workspace, registry: Registry) -> None:
    assert [register(any_workspace, digest).version for digest in (ONE, ONE, TWO)] == [1, 2, 3]
    any_workspace.write(lambda tx: registry.delete_version(tx, "bikes", 3))
    assert register(any_workspace, TWO).version == 4
    assert [version.version for version in registry.versions("bikes")] == [4, 2, 1]
    with pytest.raises(NotFoundError, match="was deleted"):
        registry.get_version("bikes", 3)
    any_workspace.write(lambda tx: registry.delete_model(tx, "bikes"))
    with pytest.raises(NotFoundError, match="no model 'bikes'"):
        registry.versions("bikes")
    any_workspace.write(lambda tx: registry.create_model(tx, "bikes"))
    assert registry.versions("bikes") == []
    assert register(any_workspace, ONE).version == 5


def test_a_request_that_is_sent_again_makes_no_second_version(
    any_workspace: Workspace, registry: Registry
) -> None:
    first = register(any_workspace, ONE, "cycle 1")
    assert register(any_workspace, ONE, "cycle 1") == first
    assert register(any_workspace, ONE, "cycle 2").version == 2
    assert register(any_workspace, ONE).version == 3
    assert register(any_workspace, ONE).version == 4
    with pytest.raises(ConflictError, match="with other content"):
        register(any_workspace, TWO, "cycle 1")
    any_workspace.write(lambda tx: registry.delete_version(tx, "bikes", 2))
    with pytest.raises(ConflictError, match="deleted since"):
        register(any_workspace, ONE, "cycle 2")
    assert actions(any_workspace).count("model.version_registered") == 4


def test_concurrent_requests_get_numbers_of_their_own(any_workspace: Workspace, registry: Registry) -> None:
    found: list[int] = []
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(5):
                found.append(register(any_workspace, ONE, f"{name} {number}").version)
                register(any_workspace, ONE, f"shared {number}")
        except TrimtabError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(set(found)) == 20
    assert len(registry.versions("bikes")) == 25
    with any_workspace.read() as connection:
        journal.verify(connection)


def test_an_alias_names_one_version_and_its_history_tells_which_when(
    any_workspace: Workspace, registry: Registry
) -> None:
    for digest in (ONE, TWO):
        register(any_workspace, digest)
    assert registry.champion("bikes") is None
    point(any_workspace, "champion", 1, "first")
    first = any_workspace.clock.now()
    second = move(any_workspace, 10)
    point(any_workspace, "champion", 2, "better")
    point(any_workspace, "champion", 2, "again")
    third = move(any_workspace, 10)
    assert any_workspace.write(lambda tx: registry.delete_alias(tx, "bikes", "champion", reason="off"))
    assert not any_workspace.write(lambda tx: registry.delete_alias(tx, "bikes", "champion"))

    def at(moment: datetime) -> int | None:
        event = registry.alias_at("bikes", "champion", moment)
        return None if event is None else event.version

    assert at(first - timedelta(seconds=1)) is None
    assert at(first) == 1
    assert at(second - timedelta(microseconds=1)) == 1
    assert at(second) == 2
    assert at(third) is None
    assert [(event.kind, event.version, event.reason) for event in registry.history("bikes", "champion")] == [
        ("set", 1, "first"),
        ("set", 2, "better"),
        ("deleted", None, "off"),
    ]
    with pytest.raises(InvalidInputError, match="no time zone"):
        registry.alias_at("bikes", "champion", datetime(2011, 1, 1))  # noqa: DTZ001
    with pytest.raises(NotFoundError):
        registry.alias_at("cars", "champion", first)


def test_an_alias_goes_with_its_version(any_workspace: Workspace, registry: Registry) -> None:
    register(any_workspace, ONE)
    point(any_workspace, "champion", 1)
    point(any_workspace, "fast", 1)
    assert registry.get_version("bikes", 1).aliases == ("champion", "fast")
    assert registry.alias("bikes", "fast").version == 1
    any_workspace.write(lambda tx: registry.delete_version(tx, "bikes", 1))
    with pytest.raises(NotFoundError, match="no alias 'fast'"):
        registry.alias("bikes", "fast")
    assert registry.history("bikes", "fast")[-1].kind == "deleted"
    with pytest.raises(NotFoundError, match="was deleted"):
        point(any_workspace, "fast", 1)


def test_an_old_name_keeps_its_history_and_a_used_name_is_not_given_to_another(
    any_workspace: Workspace, registry: Registry
) -> None:
    register(any_workspace, ONE)
    point(any_workspace, "champion", 1)
    began = any_workspace.clock.now()
    renamed = move(any_workspace, 1)
    any_workspace.write(lambda tx: registry.rename_model(tx, "bikes", "bicycles"))
    assert registry.get_version("bicycles", 1).digest == ONE
    for name, before, after in (("bikes", 1, None), ("bicycles", None, 1)):
        told = [registry.alias_at(name, "champion", at) for at in (began, renamed)]
        assert [event and event.version for event in told] == [before, after]
    with pytest.raises(NotFoundError, match="no model"):
        registry.versions("bikes")
    any_workspace.write(lambda tx: registry.create_model(tx, "bikes"))
    assert register(any_workspace, TWO).version == 2
    with pytest.raises(ConflictError, match="is or was"):
        any_workspace.write(lambda tx: registry.rename_model(tx, "bicycles", "bikes"))
    any_workspace.write(lambda tx: registry.rename_model(tx, "bicycles", "bicycles"))  # changes nothing
    assert [model.name for model in registry.models()] == ["bicycles", "bikes"]


def test_names_that_cannot_be_are_refused(any_workspace: Workspace, registry: Registry) -> None:
    register(any_workspace, ONE)
    for name in ("", " a", "a/b", "a:b", "a\\b", "..", "a\0", "a\nb", "x" * 251):
        with pytest.raises(InvalidInputError, match="name of a model"):
            any_workspace.write(lambda tx, it=name: registry.create_model(tx, it))  # type: ignore[misc]
    for alias in ("", "latest", "Latest", "v1", "V12", "a b", "a/b", "é.", "champion\n"):
        with pytest.raises(InvalidInputError, match="cannot be an alias"):
            point(any_workspace, alias, 1)
    for digest in ("", "b3:", "sha256:" + "0" * 64, ONE.upper(), "/etc/passwd"):
        with pytest.raises(InvalidInputError, match="no digest"):
            register(any_workspace, digest)
    with pytest.raises(ConflictError, match="a model 'bikes' already"):
        any_workspace.write(lambda tx: registry.create_model(tx, "bikes"))
    assert any_workspace.write(lambda tx: registry.create_model(tx, "bikes", exist_ok=True)).name == "bikes"
    with pytest.raises(NotFoundError, match="Did you mean 'bikes'"):
        any_workspace.write(lambda tx: registry.register(tx, "bike", ONE))


def test_tags_and_descriptions_are_changed_and_journaled(
    any_workspace: Workspace, registry: Registry
) -> None:
    register(any_workspace, ONE)
    any_workspace.write(lambda tx: registry.set_tag(tx, "bikes", "team", "city"))
    any_workspace.write(lambda tx: registry.set_tag(tx, "bikes", "cycle", "1", version=1))
    any_workspace.write(lambda tx: registry.set_tag(tx, "bikes", "cycle", "2", version=1))
    any_workspace.write(lambda tx: registry.describe(tx, "bikes", "all of it"))
    any_workspace.write(lambda tx: registry.describe(tx, "bikes", "the first", version=1))
    model, version = registry.model("bikes"), registry.get_version("bikes", 1)
    assert (model.tags, model.description) == ({"team": "city"}, "all of it")
    assert (version.tags, version.description) == ({"cycle": "2"}, "the first")
    any_workspace.write(lambda tx: registry.delete_tag(tx, "bikes", "cycle", version=1))
    any_workspace.write(lambda tx: registry.delete_tag(tx, "bikes", "cycle", version=1))
    assert registry.get_version("bikes", 1).tags == {}
    assert actions(any_workspace)[2:] == ["model.tag_set"] * 3 + ["model.described"] * 2 + [
        "model.tag_deleted"
    ]


def test_a_change_that_fails_leaves_nothing(any_workspace: Workspace, registry: Registry) -> None:
    register(any_workspace, ONE)
    before = actions(any_workspace)

    def work(tx: Transaction) -> None:
        registry.set_alias(tx, "bikes", "champion", 1)
        registry.register(tx, "bikes", TWO)
        registry.get_version("bikes", 2, tx=tx)
        registry.set_alias(tx, "bikes", "champion", 9)

    with pytest.raises(NotFoundError, match="is not there"):
        any_workspace.write(work)
    assert registry.champion("bikes") is None
    assert registry.history("bikes") == []
    assert actions(any_workspace) == before
    assert register(any_workspace, TWO).version == 2


def test_stages_of_a_model_that_nobody_governs_are_moved_freely(
    any_workspace: Workspace, registry: Registry
) -> None:
    for digest in (ONE, TWO):
        register(any_workspace, digest)
    for version in (1, 2):
        any_workspace.write(
            lambda tx, it=version: registry.set_stage(tx, "bikes", it, "Production", archive_existing=True)  # type: ignore[misc]
        )
    assert [version.stage for version in registry.versions("bikes")] == ["Production", "Archived"]
    any_workspace.write(lambda tx: registry.set_stage(tx, "bikes", 2, "None"))
    with pytest.raises(InvalidInputError, match="no stage"):
        any_workspace.write(lambda tx: registry.set_stage(tx, "bikes", 2, "production"))
