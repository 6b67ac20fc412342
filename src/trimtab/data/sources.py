"""Sources: folders and Delta tables that others fill, looked at on a schedule.

Each file, and each commit of a table, is appended once: by its name and its content's digest. One that
cannot be used is recorded with the reason, and the others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, select, update

from trimtab.clock import as_utc
from trimtab.data.appends import OnViolation
from trimtab.data.datasets import Datasets
from trimtab.data.offers import Offer, missing_commits, offers
from trimtab.data.schema import dataset_sources_table as sources
from trimtab.data.schema import source_files_table as files
from trimtab.data.spec import ColumnType
from trimtab.data.versions import DatasetVersion, column_types, find_dataset
from trimtab.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert
from trimtab.workspace import Workspace

MINUTE = timedelta(minutes=1)
SETTLE = timedelta(seconds=2)


class Source(msgspec.Struct, frozen=True):
    """A folder (or a Delta table's folder) that feeds a dataset.

    It is looked at when `every` of event time has passed since `looked_at`. `problem` says why the last look
    failed, and is empty if it did not.
    """

    dataset: str
    folder: str
    every: timedelta
    settle: timedelta
    on_violation: OnViolation
    looked_at: datetime | None
    problem: str


class SourceFile(msgspec.Struct, frozen=True):
    """A file that was looked at: the version that it made, or the reason why it made none."""

    dataset: str
    folder: str
    name: str
    digest: str
    version: int | None
    reason: str
    at: datetime


class Sources:
    """The sources of a workspace's datasets."""

    def __init__(self, workspace: Workspace) -> None:
        self._ws = workspace

    def register(
        self,
        dataset: str,
        folder: Path | str,
        *,
        every: timedelta = MINUTE,
        settle: timedelta = SETTLE,
        on_violation: OnViolation = "quarantine",
    ) -> Source:
        """Look at a folder from now on; registering it again changes how. A relative one lies in the project.

        A file is left alone for `settle` (by the machine's clock) after its last change.
        """
        if every <= timedelta(0) or settle < timedelta(0):
            raise InvalidInputError("A source is looked at at some interval, and settles in some time.")
        name = str(folder)
        if not (self._ws.project / name).is_dir():
            raise InvalidInputError(f"{name} is not a folder.", hint="Make it first.")

        def work(tx: Transaction) -> Source:
            find_dataset(tx.connection, dataset)
            row: dict[str, object] = {
                "dataset": dataset,
                "folder": name,
                "every_seconds": every.total_seconds(),
                "settle_seconds": settle.total_seconds(),
                "on_violation": on_violation,
            }
            upsert(
                tx,
                sources,
                [{**row, "problem": ""}],
                keys=["dataset", "folder"],
                update=["every_seconds", "settle_seconds", "on_violation"],
            )
            tx.journal("source.registered", "dataset", dataset, details=row)
            return _sources(tx.connection, dataset, name)[0]

        return self._ws.write(work)

    def remove(self, dataset: str, folder: Path | str) -> None:
        """Look at a folder no more; what it brought stays. Raises NotFoundError if it is no source."""

        def work(tx: Transaction) -> None:
            where = (sources.c.dataset == dataset, sources.c.folder == str(folder))
            if not tx.execute(delete(sources).where(*where)).rowcount:
                raise NotFoundError(f"{folder} is not a source of '{dataset}'.")
            tx.journal("source.removed", "dataset", dataset, details={"folder": str(folder)})

        self._ws.write(work)

    def list(self, dataset: str | None = None) -> Sequence[Source]:
        """All sources, or those of one dataset."""
        with self._ws.read() as connection:
            return _sources(connection, dataset)

    def files(self, dataset: str) -> Sequence[SourceFile]:
        """All files of a dataset's sources that were looked at, in that order."""
        with self._ws.read() as connection:
            rows = connection.execute(
                select(files).where(files.c.dataset == dataset).order_by(files.c.at, files.c.name)
            ).all()
        return [
            SourceFile(row.dataset, row.folder, row.name, row.digest, row.version, row.reason, row.at)
            for row in rows
        ]

    def retry(self, dataset: str) -> int:
        """Forget the files that could not be used, so that they are tried again; answers how many."""

        def work(tx: Transaction) -> int:
            where = (files.c.dataset == dataset, files.c.version.is_(None), files.c.reason != "")
            forgotten = tx.execute(delete(files).where(*where)).rowcount
            if forgotten:
                tx.journal("source.retried", "dataset", dataset, details={"files": forgotten})
            return forgotten

        return self._ws.write(work)

    def next_due(self) -> datetime | None:
        """The event time at which a source is to be looked at next; None if there is none."""
        now = self._ws.clock.now()
        return min((_due(source) or now for source in self.list()), default=None)

    def poll_due(self, now: datetime | None = None) -> Sequence[DatasetVersion]:
        """Look at all sources whose time has come; answers the versions made."""
        now = self._ws.clock.now() if now is None else as_utc(now)
        due = [source for source in self.list() if (at := _due(source)) is None or at <= now]
        return [version for source in due for version in self._look(source, now)]

    def poll(self, dataset: str, now: datetime | None = None) -> Sequence[DatasetVersion]:
        """Look at all sources of a dataset, whether or not their time has come; answers the versions made."""
        now = self._ws.clock.now() if now is None else as_utc(now)
        return [version for source in self.list(dataset) for version in self._look(source, now)]

    def _look(self, source: Source, now: datetime) -> Sequence[DatasetVersion]:
        made: list[DatasetVersion] = []
        problems = []
        seen, types = self._known(source)
        try:
            for place, offer in enumerate(offers(self._ws.project / source.folder, source.settle)):
                if place == 0 and offer.commit and (gap := missing_commits(offer, seen.states)):
                    problems.append(gap)
                try:
                    version = self._take(source, offer, seen, types, now)
                except FileNotFoundError:
                    continue  # it went away while we looked
                except OSError as error:
                    problems.append(f"{offer.name} cannot be opened: {error.strerror}")
                else:
                    made += [version] if version is not None else []
        except UnavailableError as error:
            problems.append(str(error))
        self._looked(source, now, "; ".join(problems))
        return made

    def _take(
        self,
        source: Source,
        offer: Offer,
        seen: _Seen,
        types: dict[str, ColumnType],
        now: datetime,
    ) -> DatasetVersion | None:
        """Append what is offered, unless it was before; None if it made no version."""
        if seen.states.get(offer.name) == (offer.size, offer.modified_ns):
            return None
        digest = offer.digest()
        if (offer.name, digest) in seen.contents:
            self._ws.write(lambda tx: _record_state(tx, source, offer, digest))
            return None
        version, reason = None, ""
        try:
            rows = offer.read(types)
            if rows is not None:
                version = Datasets(self._ws).append(
                    source.dataset,
                    rows,
                    key=f"file:{offer.name}:{digest}",
                    on_violation=source.on_violation,
                )
        except (InvalidInputError, ConflictError) as error:
            reason = str(error)
        self._ws.write(lambda tx: _record(tx, source, offer, digest, version, reason, now))
        return version

    def _known(self, source: Source) -> tuple[_Seen, dict[str, ColumnType]]:
        with self._ws.read() as connection:
            rows = connection.execute(
                select(files).where(files.c.dataset == source.dataset, files.c.folder == source.folder)
            ).all()
            types = column_types(connection, source.dataset)
        states = {row.name: (row.size, row.modified_ns) for row in sorted(rows, key=lambda row: row.at)}
        return _Seen(states, {(row.name, row.digest) for row in rows}), types

    def _looked(self, source: Source, now: datetime, problem: str) -> None:
        def work(tx: Transaction) -> None:
            where = (sources.c.dataset == source.dataset, sources.c.folder == source.folder)
            tx.execute(update(sources).where(*where).values(looked_at=now, problem=problem))
            if problem != source.problem:
                action = "source.failed" if problem else "source.recovered"
                details = {"folder": source.folder, "problem": problem}
                tx.journal(action, "dataset", source.dataset, reason=problem, details=details)

        self._ws.write(work)


class _Seen(msgspec.Struct):
    """What was looked at before: each name's size and time of change, and each name with each digest."""

    states: dict[str, tuple[int, int]]
    contents: set[tuple[str, str]]


def _record(
    tx: Transaction,
    source: Source,
    offer: Offer,
    digest: str,
    version: DatasetVersion | None,
    reason: str,
    now: datetime,
) -> None:
    row = {
        "dataset": source.dataset,
        "folder": source.folder,
        "name": offer.name,
        "digest": digest,
        "size": offer.size,
        "modified_ns": offer.modified_ns,
        "version": None if version is None else version.number,
        "reason": reason,
        "at": now,
    }
    upsert(tx, files, [row], keys=["dataset", "folder", "name", "digest"])
    if reason:
        details = {"folder": source.folder, "file": offer.name, "digest": digest}
        tx.journal("source.file_refused", "dataset", source.dataset, reason=reason, details=details)


def _record_state(tx: Transaction, source: Source, offer: Offer, digest: str) -> None:
    """Known content with a new time of change: it need not be read the next time."""
    tx.execute(
        update(files)
        .where(
            files.c.dataset == source.dataset,
            files.c.folder == source.folder,
            files.c.name == offer.name,
            files.c.digest == digest,
        )
        .values(size=offer.size, modified_ns=offer.modified_ns)
    )


def _sources(
    connection: Connection, dataset: str | None = None, folder: str | None = None
) -> Sequence[Source]:
    query = select(sources).order_by(sources.c.dataset, sources.c.folder)
    if dataset is not None:
        find_dataset(connection, dataset)
        query = query.where(sources.c.dataset == dataset)
    if folder is not None:
        query = query.where(sources.c.folder == folder)
    return [_source(row) for row in connection.execute(query)]


def _source(row: Row[Any]) -> Source:
    return Source(
        dataset=row.dataset,
        folder=row.folder,
        every=timedelta(seconds=row.every_seconds),
        settle=timedelta(seconds=row.settle_seconds),
        on_violation=row.on_violation,
        looked_at=row.looked_at,
        problem=row.problem,
    )


def _due(source: Source) -> datetime | None:
    """When it is to be looked at; None for at once."""
    return None if source.looked_at is None else source.looked_at + source.every
