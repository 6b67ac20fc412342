"""A machine's clock that was set back: what was written by the clock before is not waited for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from trimtab.pipelines.jobs import Jobs
from trimtab.pipelines.schema import jobs_table
from trimtab.store.schema import instances_table, leases_table
from trimtab.workspace import Workspace

HOUR = timedelta(hours=1)


def later() -> datetime:
    """The time of a clock that ran an hour ahead, and was then set right."""
    return datetime.now(UTC) + HOUR


def test_a_dead_holders_lease_is_taken_over(any_workspace: Workspace) -> None:
    leases = any_workspace.leases
    stale = leases.acquire("controller", "a", seconds=6)
    assert stale is not None
    assert leases.acquire("controller", "b", seconds=6) is None
    any_workspace.write(lambda tx: tx.execute(update(leases_table).values(expires_at=later())))
    taken = leases.acquire("controller", "b", seconds=6)
    assert taken is not None
    assert taken.token > stale.token


def test_a_dead_workers_job_is_claimed_again(any_workspace: Workspace) -> None:
    jobs = Jobs(any_workspace)
    job = jobs.enqueue("pipeline", {}, dedupe_key="x")
    assert jobs.claim("a", ["pipeline"]) is not None
    assert jobs.claim("b", ["pipeline"]) is None
    any_workspace.write(lambda tx: tx.execute(update(jobs_table).values(lease_until=later())))
    claimed = jobs.claim("b", ["pipeline"])
    assert claimed is not None
    assert (claimed.id, claimed.worker, claimed.attempts) == (job.id, "b", 2)


def test_a_process_that_was_last_heard_of_in_the_future_is_not_waited_for(any_workspace: Workspace) -> None:
    any_workspace.instances.beat("gateway-1", "gateway")
    any_workspace.instances.beat("gateway-2", "gateway")
    ahead = update(instances_table).where(instances_table.c.id == "gateway-1").values(heartbeat_at=later())
    any_workspace.write(lambda tx: tx.execute(ahead))
    assert [one.id for one in any_workspace.instances.live("gateway")] == ["gateway-2"]
