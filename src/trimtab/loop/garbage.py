"""Collecting garbage: what was deleted long enough ago goes for good, and so do blobs that nothing points at.

Marked is every blob that a row points at, with the files of marked trees; swept is what is neither marked
nor young. Whoever puts a blob, or points at one that stands, makes it young again (see `Blobs`), so this can
run beside anybody who writes. Each step is whole in itself and can be taken again: a run that dies half way
leaves nothing broken, and the next one goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, column, delete, select, tuple_

from trimtab.errors import InvalidInputError
from trimtab.loop.schema import cycles_table
from trimtab.models.schema import model_versions_table
from trimtab.pipelines.schema import jobs_table, step_cache_table, step_runs_table
from trimtab.serving.schema import endpoints_table, routes_table
from trimtab.store.blobs import Blobs, KeptBlob
from trimtab.store.database import Transaction
from trimtab.store.references import HISTORY, digests_spoken_of
from trimtab.store.trees import OPENING
from trimtab.store.uploads import Uploads
from trimtab.store.vacuum import free_bytes
from trimtab.tracking import purge
from trimtab.tracking.schema import (
    artifacts_table,
    logged_model_artifacts_table,
    logged_models_table,
    runs_table,
)
from trimtab.workspace import Workspace

GRACE = timedelta(days=30)

SETTLING = timedelta(days=1)
"""A younger blob stays whatever the grace is: somebody may be about to point at it."""

AT_A_TIME = 20
"""Runs and logged models that go in one transaction, so that nobody who writes waits for long."""

LARGEST_MANIFEST = 2**28

_PLAIN = frozenset({artifacts_table.name, logged_model_artifacts_table.name})
"""What these point at are files, never trees."""

_TOLD = HISTORY | {"model_alias_events", "gate_reports", "cycle_moves", "trigger_decisions"}
"""What these say of content is history, which stays true without it."""


class Collected(msgspec.Struct, frozen=True):
    """What was let go of, or would be. `bytes` are those of blobs, uploads and drafts; `database_bytes` is
    what the metadata store holds empty, for the rows to come."""

    dry_run: bool
    older_than_seconds: float
    runs: int
    experiments: int
    logged_models: int
    blobs: int
    uploads: int
    bytes: int
    database_bytes: int


def collect_garbage(
    workspace: Workspace, *, older_than: timedelta = GRACE, dry_run: bool = False
) -> Collected:
    """Let go of what was deleted, or left without anything that points at it, for longer than `older_than`.

    Rows count by event time, files by the clock of the machine. A blob stays for `SETTLING` in any case.
    Raises InvalidInputError for a negative time.
    """
    if older_than < timedelta(0):
        raise InvalidInputError("What is collected cannot lie in the future.", hint="Use a time such as 30d.")
    before = workspace.clock.now() - older_than
    files_before = datetime.now(UTC) - max(older_than, SETTLING)
    with workspace.database.exclusive("garbage"):
        with workspace.read() as connection:
            doomed = purge.count_doomed(connection, before)
        # Listed once: what is put later is not among it, and what is made young again is not swept.
        kept = {blob.digest: blob for blob in workspace.blobs.listed()}
        garbage = list(_garbage(workspace, kept, before, files_before))
        broken, unfinished = Uploads(workspace.uploads).sweep(files_before, dry=True)
        plan = Collected(
            dry_run,
            older_than / timedelta(seconds=1),
            doomed.runs,
            doomed.experiments,
            doomed.logged_models,
            len(garbage),
            broken,
            sum(blob.size for blob in garbage) + unfinished,
            free_bytes(workspace.database),
        )
        if dry_run:
            return plan
        _carry_out(workspace, plan, before)
        return _sweep(workspace, plan, _garbage(workspace, kept, before, files_before), files_before)


def _carry_out(workspace: Workspace, plan: Collected, before: datetime) -> None:
    """Let the rows go."""
    if plan.runs or plan.experiments or plan.logged_models or plan.blobs or plan.uploads:
        # Said before anything goes: whatever happens in between, nothing vanishes unsaid.
        workspace.write(lambda tx: tx.journal("garbage.collected", "workspace", "garbage", details=plan))
    with workspace.read() as connection:
        runs = purge.doomed_runs(connection, before)
        models = purge.doomed_models(connection, before)
    for some in _batches(runs):
        workspace.write(partial(_purge_runs, before=before, among=some))
    for some in _batches(models):
        workspace.write(partial(purge.purge_models, before=before, among=some))
    workspace.write(_purge_cache)
    workspace.write(lambda tx: purge.purge_experiments(tx, before))


def _sweep(
    workspace: Workspace, plan: Collected, garbage: Iterable[KeptBlob], files_before: datetime
) -> Collected:
    """Let the files go."""
    swept = [blob.size for blob in garbage if workspace.blobs.sweep(blob.digest, files_before)]
    count, freed = Uploads(workspace.uploads).sweep(files_before)
    return msgspec.structs.replace(
        plan,
        blobs=len(swept),
        uploads=count,
        bytes=sum(swept) + freed + workspace.blobs.sweep_drafts(files_before),
        database_bytes=free_bytes(workspace.database),
    )


def _batches(numbers: list[int]) -> Iterator[list[int]]:
    return (numbers[start : start + AT_A_TIME] for start in range(0, len(numbers), AT_A_TIME))


def _purge_runs(tx: Transaction, before: datetime, among: list[int]) -> None:
    gone = purge.purge_runs(tx, before, among)
    tx.execute(delete(step_runs_table).where(step_runs_table.c.run_id.in_(gone)))


def _purge_cache(tx: Transaction) -> None:
    """Drop what was cached by runs that are gone, and that no run that stands has used."""
    cached = step_cache_table
    made = cached.c.run_id.in_(select(runs_table.c.id))
    used = cached.c.cache_key.in_(select(step_runs_table.c.cache_key))
    tx.execute(delete(cached).where(~made, ~used))


def _garbage(
    workspace: Workspace, kept: dict[str, KeptBlob], before: datetime, files_before: datetime
) -> Iterator[KeptBlob]:
    """The blobs that nothing points at, or only what is doomed, and that are not young."""
    blobs = workspace.blobs
    with workspace.read() as connection:
        marked = _marked_files(connection, before) & kept.keys()
        trees = _marked(connection, before) & kept.keys()
    # A young tree may be one whose version is about to be registered: its files may be old.
    trees |= {blob.digest for blob in kept.values() if blob.written_at >= files_before}
    for digest in trees:
        marked.add(digest)
        marked.update(_files_of(blobs, kept[digest]))
    for digest, blob in kept.items():
        if digest not in marked and blob.written_at < files_before:
            yield blob


def _files_of(blobs: Blobs, blob: KeptBlob) -> Iterable[str]:
    """The digests of a tree's files; none for another blob."""
    if not len(OPENING) < blob.size < LARGEST_MANIFEST:
        return ()
    with blobs.open(blob.digest, 0, len(OPENING)) as reader:
        if b"".join(reader) != OPENING:
            return ()
    try:
        return [file.digest for file in blobs.manifest(blob.digest).files.values()]
    except InvalidInputError:  # a file that only begins like a tree
        return ()


def _marked_files(connection: Connection, before: datetime) -> set[str]:
    """What runs and logged models point at."""
    found: set[str] = set()
    for table, condition in _of_owners(before).items():
        if table in _PLAIN:
            owned = artifacts_table if table == artifacts_table.name else logged_model_artifacts_table
            found.update(connection.execute(select(owned.c.digest).distinct().where(condition)).scalars())
    return found


def _marked(connection: Connection, before: datetime) -> set[str]:
    """What anything else points at: blobs, and trees."""
    active = select(cycles_table.c.digest).where(cycles_table.c.active.is_not(None))
    deleted, ended = _cell(model_versions_table.c.deleted_at), _cell(jobs_table.c.ended_at)
    current = select(endpoints_table.c.name, endpoints_table.c.generation)
    spoken = digests_spoken_of(
        connection,
        skip=frozenset(_TOLD | _PLAIN),
        only={
            **_of_owners(before),
            model_versions_table.name: deleted.is_(None) | (deleted >= before),
            jobs_table.name: ended.is_(None) | (ended >= before),
            routes_table.name: tuple_(_cell(routes_table.c.endpoint), _cell(routes_table.c.generation)).in_(
                current
            ),
        },
        without={cycles_table.name: frozenset({"digest"})},
    )
    return {*spoken, *connection.execute(active).scalars()}


def _of_owners(before: datetime) -> dict[str, ColumnElement[bool]]:
    """By table, which rows belong to a run or a logged model that stays."""
    runs = select(runs_table.c.number).where(purge.doomed_run(before))
    run_ids = select(runs_table.c.id).where(purge.doomed_run(before))
    models = select(logged_models_table.c.number).where(purge.doomed_model(before))
    kept_steps = select(step_runs_table.c.cache_key).where(step_runs_table.c.run_id.not_in(run_ids))
    kept_runs = select(runs_table.c.id).where(runs_table.c.number.not_in(runs))
    made_by, key = _cell(step_cache_table.c.run_id), _cell(step_cache_table.c.cache_key)
    return {
        **{table.name: _cell(table.c.run).not_in(runs) for table in purge.OF_RUNS},
        **{table.name: _cell(table.c.model).not_in(models) for table in purge.OF_MODELS},
        step_runs_table.name: _cell(step_runs_table.c.run_id).not_in(run_ids),
        step_cache_table.name: made_by.in_(kept_runs) | key.in_(kept_steps),
    }


def _cell(whole: Column[Any]) -> ColumnElement[Any]:
    """A column by its name alone, for conditions on a table that is known by its name alone."""
    return column(whole.name, whole.type)
