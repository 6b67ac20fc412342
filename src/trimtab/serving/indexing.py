"""Indexing: what a shipper tells the metadata store about log rows, all in one transaction.

The transaction also moves the segments' offsets on, so that a kill neither loses a row nor counts it twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import insert, select, update

from trimtab.errors import ConflictError
from trimtab.serving.log_rows import LogRows
from trimtab.serving.schema import log_segments_table as log_segments
from trimtab.store.database import Transaction


class Piece(msgspec.Struct, frozen=True):
    """The rows of one segment between two offsets. `host` and `folder` say where it lies."""

    segment: str
    host: str
    folder: str
    start: int
    end: int
    rows: LogRows


class OffsetMovedError(ConflictError):
    """Somebody else has indexed this segment meanwhile: look again from where it stands now."""

    code = "offset_moved"


def index(tx: Transaction, pieces: Sequence[Piece]) -> None:
    """Index these pieces, each from where its segment's index ends; raises OffsetMovedError otherwise."""
    for piece in pieces:
        _advance(tx, piece)


def _advance(tx: Transaction, piece: Piece) -> None:
    standing = tx.execute(
        select(log_segments.c.indexed).where(log_segments.c.id == piece.segment).with_for_update()
    ).scalar_one_or_none()
    if (standing or 0) != piece.start:
        raise OffsetMovedError(f"The segment {piece.segment} is indexed up to {standing}, not {piece.start}.")
    rows, labels = len(piece.rows.predictions), len(piece.rows.labels)
    if standing is None:
        tx.execute(
            insert(log_segments).values(
                id=piece.segment,
                host=piece.host,
                folder=piece.folder,
                indexed=piece.end,
                rows=rows,
                labels=labels,
            )
        )
    else:
        tx.execute(
            update(log_segments)
            .where(log_segments.c.id == piece.segment)
            .values(indexed=piece.end, rows=log_segments.c.rows + rows, labels=log_segments.c.labels + labels)
        )
