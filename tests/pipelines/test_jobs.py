"""The job queue: each job is done once, by whoever holds the newest claim."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from trimtab.errors import LeaseLostError, NotFoundError
from trimtab.pipelines.jobs import JobError, Jobs, enqueue
from trimtab.workspace import Workspace

KINDS = ["pipeline"]


def test_the_same_dedupe_key_gives_the_same_job(any_workspace: Workspace) -> None:
    jobs = Jobs(any_workspace)
    first = jobs.enqueue("pipeline", {"n": 1}, dedupe_key="cycle-1")
    assert jobs.enqueue("pipeline", {"n": 2}, dedupe_key="cycle-1") == first
    claim = jobs.claim("w", KINDS)
    assert claim is not None
    jobs.finish(claim, {"ok": True})
    again = jobs.enqueue("pipeline", {"n": 2}, dedupe_key="cycle-1")
    assert (again.id, again.state, again.result) == (first.id, "finished", {"ok": True})
    assert len(jobs.list()) == 1


def test_a_job_is_asked_for_in_the_transaction_that_decides_it(any_workspace: Workspace) -> None:
    def work(tx: object) -> None:
        enqueue(tx, "pipeline", {}, dedupe_key="x")  # type: ignore[arg-type]  # a Transaction
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  (the very one)
        any_workspace.write(work)
    assert Jobs(any_workspace).list() == []


def test_jobs_are_claimed_in_order_and_by_kind(any_workspace: Workspace) -> None:
    jobs = Jobs(any_workspace)
    for number in range(3):
        jobs.enqueue("pipeline" if number else "other", {"n": number}, dedupe_key=str(number))
    claims = [jobs.claim("w", KINDS) for _ in range(3)]
    assert [claim and claim.spec["n"] for claim in claims] == [1, 2, None]
    assert jobs.unfinished() == 3
    assert [job.spec["n"] for job in jobs.list("queued")] == [0]


def test_two_workers_never_get_the_same_job(any_workspace: Workspace) -> None:
    jobs = Jobs(any_workspace)
    for number in range(20):
        jobs.enqueue("pipeline", number, dedupe_key=str(number))

    def take(worker: str) -> list[int]:
        taken = []
        while (job := jobs.claim(worker, KINDS)) is not None:
            taken.append(job.spec)
        return taken

    with ThreadPoolExecutor(4) as threads:
        found = [spec for taken in threads.map(take, "abcd") for spec in taken]
    assert sorted(found) == list(range(20))


def test_a_worker_that_lost_its_claim_cannot_finish_the_job(any_workspace: Workspace) -> None:
    jobs = Jobs(any_workspace)
    jobs.enqueue("pipeline", {}, dedupe_key="x")
    late = jobs.claim("late", KINDS, seconds=-1)
    assert late is not None
    current = jobs.claim("current", KINDS)
    assert current is not None
    assert (current.id, current.attempts) == (late.id, 2)
    assert current.token > late.token
    for act in (
        lambda: jobs.finish(late, 1),
        lambda: jobs.fail(late, JobError("x", "y")),
        lambda: jobs.heartbeat(late),
        lambda: jobs.give_back(late),
    ):
        with pytest.raises(LeaseLostError, match="no longer held by the claim 1 of 'late'"):
            act()
    jobs.finish(current, 2)
    assert jobs.get(current.id).result == 2


def test_a_heartbeat_keeps_the_claim(any_workspace: Workspace) -> None:
    jobs = Jobs(any_workspace)
    jobs.enqueue("pipeline", {}, dedupe_key="x")
    claim = jobs.claim("w", KINDS, seconds=-1)
    assert claim is not None
    jobs.heartbeat(claim)
    assert jobs.claim("other", KINDS) is None


def test_attempts_are_bounded(any_workspace: Workspace) -> None:
    jobs = Jobs(any_workspace)
    job = jobs.enqueue("pipeline", {}, dedupe_key="x", max_attempts=2)
    for _ in range(2):
        assert jobs.claim("w", KINDS, seconds=-1) is not None
    assert jobs.claim("w", KINDS) is None
    found = jobs.get(job.id)
    assert found.state == "failed"
    assert found.error is not None
    assert (found.error.code, found.ended) == ("died", True)


def test_a_failure_is_final_unless_it_may_be_retried(any_workspace: Workspace) -> None:
    jobs = Jobs(any_workspace)
    jobs.enqueue("pipeline", {}, dedupe_key="x", max_attempts=2)
    error = JobError("unavailable", "no store")
    states = []
    for _ in range(2):
        claim = jobs.claim("w", KINDS)
        assert claim is not None
        jobs.fail(claim, error, retry=True)
        states.append(jobs.get(claim.id).state)
    assert states == ["queued", "failed"]
    other = jobs.enqueue("pipeline", {}, dedupe_key="y")
    claim = jobs.claim("w", KINDS)
    assert claim is not None
    jobs.fail(claim, error)
    assert (jobs.get(other.id).state, jobs.get(other.id).error) == ("failed", error)


def test_giving_a_job_back_does_not_cost_an_attempt(any_workspace: Workspace) -> None:
    jobs = Jobs(any_workspace)
    jobs.enqueue("pipeline", {}, dedupe_key="x")
    for _ in range(5):
        claim = jobs.claim("w", KINDS)
        assert claim is not None
        assert claim.attempts == 1
        jobs.give_back(claim)


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_is_asked_to_stop(
    any_workspace: Workspace,
) -> None:
    jobs = Jobs(any_workspace)
    queued = jobs.enqueue("pipeline", {}, dedupe_key="x")
    assert jobs.cancel(queued.id).state == "cancelled"
    assert jobs.claim("w", KINDS) is None
    running = jobs.enqueue("pipeline", {}, dedupe_key="y")
    claim = jobs.claim("w", KINDS)
    assert claim is not None
    assert jobs.cancel(running.id).state == "running"
    assert jobs.heartbeat(claim).cancel_requested
    jobs.cancelled(claim)
    assert jobs.cancel(running.id).state == "cancelled"


def test_an_unknown_job_is_not_found(workspace: Workspace) -> None:
    with pytest.raises(NotFoundError, match="no job 'x'"):
        Jobs(workspace).get("x")
