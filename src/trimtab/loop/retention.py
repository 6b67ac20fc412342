"""What a workspace lets go of as it ages: rows of the fast indexes. Prediction log, journal, runs and models
keep all of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import Connection

from trimtab.loop.champions import champion_since
from trimtab.loop.declaration import Declaration
from trimtab.loop.orders import KINDS, IngestOrder, MeasureOrder, WatchOrder
from trimtab.loop.records import all_loops, get_applied
from trimtab.monitoring.alerts import prune_findings
from trimtab.monitoring.live_profiles import prune_profiles
from trimtab.monitoring.monitors import Performance
from trimtab.monitoring.outcomes import Span, prune
from trimtab.pipelines.jobs import prune_jobs
from trimtab.serving.indexing import prune_segments
from trimtab.store.database import Transaction
from trimtab.store.instances import prune_instances
from trimtab.workspace import Workspace

REPEATED = [KINDS[order] for order in (IngestOrder, WatchOrder, MeasureOrder)]
"""Orders about one moment, which nobody asks for again once it has passed."""


def forget(tx: Transaction, workspace: Workspace, moment: datetime) -> None:
    """Drop what is older than the setting `recent_days`, and than any loop looks back.

    What a champion did in its first days stays for as long as a monitor compares with it.
    """
    declared = [
        get_applied(tx.connection, loop.name, loop.version).declaration for loop in all_loops(tx.connection)
    ]
    reach = [timedelta(days=workspace.settings.recent_days), *map(_reach, declared)]
    before = moment - max(reach)
    prune(tx, before, keep=[span for each in declared for span in _first_days(tx.connection, each)])
    prune_profiles(tx, before)
    prune_findings(tx, before)
    prune_segments(tx, before)
    prune_jobs(tx, before, REPEATED)
    prune_instances(tx)


def _reach(declared: Declaration) -> timedelta:
    """How far back the loop's monitors and rollouts look."""
    windows = [timedelta(days=monitor.days) for monitor in declared.monitors]
    return max([*windows, declared.rollout.plan.max_duration]) + declared.label_wait


def _first_days(connection: Connection, declared: Declaration) -> Iterator[Span]:
    since = champion_since(connection, declared.model)
    for monitor in declared.monitors:
        if since is not None and isinstance(monitor, Performance) and monitor.drop is not None:
            yield Span(declared.endpoint, since, since + timedelta(days=monitor.days))
