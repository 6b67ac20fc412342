"""Letting go of what lies in this machine's cache and can be made again: models and code that nothing points
at any more, and drafts of processes that were killed."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection

from trimtab.loop.cycles import active_cycles
from trimtab.loop.records import all_loops, get_applied
from trimtab.serving.endpoints import current_routes
from trimtab.workspace import Workspace

KINDS = ("models", "projects", "values")
DRAFTS = ("run-", "worker-", "snapshot-", ".fetch-", ".damaged-", ".gone-")
DRAFT_AGE = timedelta(days=7)
"""No step runs for so long, so what is older belongs to nobody."""

_log = logging.getLogger(__name__)


def tidy_caches(workspace: Workspace) -> int:
    """Remove what was not written for as many days (by the machine's clock) as the setting `recent_days`
    says and no route, loop or unfinished cycle needs, and old drafts; answers how many folders and files."""
    now = time.time()
    aged = now - timedelta(days=workspace.settings.recent_days).total_seconds()
    abandoned = now - DRAFT_AGE.total_seconds()
    with workspace.read() as connection:
        needed = {digest.removeprefix("b3:") for digest in _needed(connection)}
    removed = 0
    for place in (workspace.cache, *(workspace.cache / kind for kind in KINDS)):
        for entry in place.iterdir() if place.is_dir() else ():
            draft = entry.name.startswith(DRAFTS)
            content = place != workspace.cache and entry.name.removeprefix("b3-") not in needed
            if (draft and _older(entry, abandoned)) or (content and not draft and _older(entry, aged)):
                removed += _remove(entry)
    return removed


def _needed(connection: Connection) -> Iterator[str]:
    for route in current_routes(connection).values():
        yield from (arm.digest for arm in route.arms)
    for loop in all_loops(connection):
        yield get_applied(connection, loop.name, loop.version).project
    for cycle in active_cycles(connection).values():
        yield cycle.digest
        yield get_applied(connection, cycle.loop, cycle.declaration).project


def _older(entry: Path, moment: float) -> bool:
    try:
        return entry.stat().st_mtime < moment
    except FileNotFoundError:
        return False


def _remove(entry: Path) -> bool:
    """Remove it whole: nobody may take half of it for all of it."""
    gone = entry if entry.name.startswith(".") else entry.with_name(f".gone-{entry.name}")
    try:
        entry.rename(gone)
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    except OSError as error:
        _log.warning("%s stays in the cache: %s", entry, error)
        return False
    return True
