"""Small chunks merged into large ones, so that a history that was logged point by point reads like one that
was logged in batches.

It happens while logging: each writer counts the small chunks that it adds to a key of a run, and merges them
once they are many, in a transaction of its own. A merge that never comes to be, because the process ended
or the disk was full, leaves the small chunks as they were, which is as right, only slower to read.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterable

from sqlalchemy import delete, insert

from trimtab.errors import TrimtabError
from trimtab.store.database import Database, Transaction
from trimtab.tracking.schema import metric_chunks_table as chunks

CHUNKS = 512
"""Small chunks of one key that are merged into one."""

SMALL = 32
"""A chunk with fewer points than this is small."""

_MOST_COUNTED = 100_000
_SPREAD = 37  # with no factor in common with CHUNKS: keys that are logged together come due one by one

_log = logging.getLogger(__name__)


class Compaction:
    """Counts the small chunks of one writer, and merges them. Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[tuple[int, int], tuple[int, int]] = {}  # how many, and the first one's sequence
        self._lock = threading.Lock()

    def wrote(self, run: int, keys: Iterable[int], writer: int, sequence: int, *, actor: str) -> None:
        """Tell that small chunks of these keys are written durably; may merge what is due."""
        for key, first in self._due(run, keys, sequence):
            try:
                self._database.write(
                    functools.partial(merge, run=run, key=key, writer=writer, first=first, last=sequence),
                    actor=actor,
                )
            except TrimtabError as error:
                _log.warning("small chunks of metrics stay as they are: %s", error)

    def _due(self, run: int, keys: Iterable[int], sequence: int) -> list[tuple[int, int]]:
        """The keys that now have enough, each with the sequence of its first small chunk."""
        due: list[tuple[int, int]] = []
        with self._lock:
            if len(self._counts) > _MOST_COUNTED:
                self._counts.clear()
            for key in keys:
                count, first = self._counts.get((run, key), (key * _SPREAD % CHUNKS, sequence))
                if count + 1 < CHUNKS:
                    self._counts[run, key] = (count + 1, first)
                else:
                    self._counts[run, key] = (0, sequence + 1)
                    due.append((key, first))
        return due


def merge(tx: Transaction, run: int, key: int, writer: int, first: int, last: int) -> None:
    """Make one chunk of the small ones that a writer made from sequence `first` to `last`, both included."""
    here = (chunks.c.run == run, chunks.c.key == key, chunks.c.writer == writer)
    small = (chunks.c.sequence.between(first, last), chunks.c.points < SMALL)
    # To take them out and to read them is one statement: of two that merge at once, one finds nothing.
    rows = tx.execute(delete(chunks).where(*here, *small).returning(*chunks.c)).all()
    if not rows:
        return
    width = 8  # bytes of a step, a time or a value; a chunk is all steps, then all times, then all values
    columns = [
        b"".join(row.data[place * width * row.points : (place + 1) * width * row.points] for row in rows)
        for place in range(3)
    ]
    merged = {
        "run": run,
        "key": key,
        "writer": writer,
        "sequence": max(row.sequence for row in rows),
        "points": sum(row.points for row in rows),
        "first_step": min(row.first_step for row in rows),
        "last_step": max(row.last_step for row in rows),
        "encoding": rows[0].encoding,
        "data": b"".join(columns),
    }
    tx.execute(insert(chunks).values(merged))
