from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trimtab.clock import FixedClock
from trimtab.errors import ConflictError, InvalidInputError, NotFoundError
from trimtab.store import journal
from trimtab.tracking.tracking import Tracking
from trimtab.workspace import Workspace


def move(workspace: Workspace, **by: float) -> datetime:
    assert isinstance(workspace.clock, FixedClock)
    workspace.clock.set(workspace.clock.now() + timedelta(**by))
    return workspace.clock.now()


def test_an_experiment_is_made_once_and_journaled(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    first = tracking.get_or_create_experiment("bikes")
    assert tracking.get_or_create_experiment("bikes") == first
    assert [experiment.name for experiment in tracking.experiments()] == ["bikes"]
    with any_workspace.read() as connection:
        assert [entry.action for entry in journal.entries(connection, kind="experiment")] == [
            "experiment.created"
        ]


def test_a_deleted_experiment_takes_no_runs_until_it_is_restored(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    tracking.get_or_create_experiment("bikes")
    tracking.delete_experiment("bikes")
    tracking.delete_experiment("bikes")
    assert tracking.experiments() == []
    assert [each.lifecycle for each in tracking.experiments(lifecycle=None)] == ["deleted"]
    with pytest.raises(ConflictError, match=r"deleted\. Restore it"):
        tracking.start_run("bikes")
    tracking.restore_experiment("bikes")
    tracking.start_run("bikes")
    with pytest.raises(NotFoundError, match="Did you mean 'bikes'"):
        tracking.delete_experiment("biks")


def test_a_run_has_its_times_its_actor_and_its_place(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    began = any_workspace.clock.now()
    parent = tracking.start_run("bikes", name="cycle 1", tags={"why": "drift"})
    child = tracking.start_run("bikes", parent=parent.id)
    assert len(parent.id) == 32
    assert int(parent.id, 16) >= 0
    assert (parent.status, parent.started_at, parent.ended_at) == ("RUNNING", began, None)
    assert parent.actor == "tester"
    ended = move(any_workspace, minutes=5)
    assert tracking.finish_run(child.id, "FAILED").status == "FAILED"
    move(any_workspace, minutes=5)
    assert tracking.finish_run(child.id, "FAILED").ended_at == ended
    assert [run.id for run in tracking.children(parent.id)] == [child.id]
    assert tracking.get_run(child.id).parent == parent.id
    assert tracking.tags(parent.id) == {"why": "drift"}


def test_a_run_that_stands_is_taken_up_again_in_its_place_only(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes", run_id="a" * 32, name="first")
    tracking.finish_run(run.id, "KILLED")
    move(any_workspace, hours=1)
    assert tracking.start_run("bikes", run_id="a" * 32, name="second") == run
    with pytest.raises(ConflictError, match="new id"):
        tracking.start_run("cars", run_id="a" * 32)
    assert [experiment.name for experiment in tracking.experiments()] == ["bikes"]
    with pytest.raises(ConflictError):
        tracking.start_run("bikes", run_id="a" * 32, parent=tracking.start_run("bikes").id)


def test_runs_that_cannot_be_are_refused(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    for wrong in ("", "A" * 32, "a" * 31, "../" + "a" * 29, "a" * 32 + "\n"):
        with pytest.raises((InvalidInputError, NotFoundError)):
            tracking.get_run(wrong)
        if wrong:
            with pytest.raises(InvalidInputError, match="32 hexadecimal"):
                tracking.start_run("bikes", run_id=wrong)
    with pytest.raises(NotFoundError, match="no run"):
        tracking.start_run("bikes", parent="b" * 32)
    with pytest.raises(InvalidInputError, match="cannot end as RUNNING"):
        tracking.finish_run(tracking.start_run("bikes").id, "RUNNING")
    with pytest.raises(InvalidInputError):
        tracking.start_run(" ")


def test_a_deleted_run_takes_nothing_until_it_is_restored(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    tracking.log_params(run.id, {"depth": 3})
    tracking.delete_run(run.id)
    assert tracking.search(["bikes"]).runs == ()
    assert tracking.search(["bikes"], lifecycle="deleted").runs[0].id == run.id
    assert tracking.params(run.id) == {"depth": "3"}
    for write in (
        lambda: tracking.log_params(run.id, {"rate": 1}),
        lambda: tracking.log_metrics(run.id, {"loss": 1.0}),
        lambda: tracking.set_tags(run.id, {"a": "b"}),
        lambda: tracking.log_artifact(run.id, b"", "a.txt"),
        lambda: tracking.finish_run(run.id),
    ):
        with pytest.raises(ConflictError, match="Restore it"):
            write()
    tracking.restore_run(run.id)
    tracking.log_params(run.id, {"rate": 1})


def test_a_search_pages_through_all_runs_once_latest_first(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    made = []
    for number in range(7):
        made.append(tracking.start_run("bikes", name=str(number)).id)
        if number % 2:  # so that some start at the same time
            move(any_workspace, seconds=1)
    tracking.start_run("cars")
    found: list[str] = []
    token = ""
    while True:
        page = tracking.search(["bikes"], limit=2, page_token=token)
        found += [run.id for run in page.runs]
        token = page.next_page_token
        if not token:
            break
    assert found == made[::-1]
    assert len(tracking.search().runs) == 8
    with pytest.raises(InvalidInputError, match="no page token"):
        tracking.search(page_token="x")


def test_a_search_keeps_to_its_conditions(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    good = tracking.start_run("bikes", tags={"loop": "bikes", "cycle": "1"})
    tracking.start_run("bikes", tags={"loop": "bikes", "cycle": "2"})
    bad = tracking.start_run("bikes", tags={"loop": "cars", "cycle": "1"})
    tracking.finish_run(bad.id, "FAILED")
    assert [run.id for run in tracking.search(tags={"loop": "bikes", "cycle": "1"}).runs] == [good.id]
    assert [run.id for run in tracking.search(statuses=["FAILED", "KILLED"]).runs] == [bad.id]
    assert tracking.search(["none"]).runs == ()
    assert tracking.search([]).runs == ()


def test_event_time_is_what_a_run_gets(any_workspace: Workspace) -> None:
    assert Tracking(any_workspace).start_run("bikes").started_at == datetime(2011, 9, 1, tzinfo=UTC)


def test_a_param_never_changes_and_is_set_with_all_others_or_not_at_all(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    tracking.log_params(run.id, {"rate": 0.1, "depth": 3, "note": "é ' \" %s"})
    tracking.log_params(run.id, {"rate": 0.1})
    with pytest.raises(ConflictError, match=r"'rate' of run .* is '0\.1' and cannot become '0\.2'"):
        tracking.log_params(run.id, {"leaves": 31, "rate": 0.2})
    assert tracking.params(run.id) == {"depth": "3", "note": "é ' \" %s", "rate": "0.1"}
    tracking.log_params(run.id, {})


def test_a_tag_is_replaced_and_taken_off(any_workspace: Workspace) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes", tags={"a": "1"})
    tracking.set_tags(run.id, {"a": "2", "b": "3"})
    assert tracking.tags(run.id) == {"a": "2", "b": "3"}


@pytest.mark.parametrize("key", ["", "  ", "a\0b", "line\nbreak", "x" * 251, "\ud800"])
def test_a_key_that_cannot_be_one_is_refused(any_workspace: Workspace, key: str) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    with pytest.raises(InvalidInputError, match="printable"):
        tracking.log_params(run.id, {key: 1})
    with pytest.raises(InvalidInputError, match="printable"):
        tracking.set_tags(run.id, {key: "1"})
    with pytest.raises(InvalidInputError, match="printable"):
        tracking.log_metrics(run.id, {key: 1.0})


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_a_text_that_no_database_keeps_is_refused(any_workspace: Workspace, value: str) -> None:
    tracking = Tracking(any_workspace)
    run = tracking.start_run("bikes")
    with pytest.raises(InvalidInputError, match="not text"):
        tracking.set_tags(run.id, {"key": value})
