"""The journal: who changed what, why and when, each entry bound to the one before it by its hash.

An entry is written in the transaction of the change that it records, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, insert, select, update

from trimtab.digest import digest_json
from trimtab.errors import JournalBrokenError
from trimtab.store.prepared import Prepared
from trimtab.store.schema import journal_head_table as head
from trimtab.store.schema import journal_table as journal
from trimtab.store.types import to_microseconds

GENESIS = "b3:" + "0" * 64
"""What the first entry names as its predecessor."""

_encoder = msgspec.json.Encoder(order="deterministic")

# Made once: to build a statement takes SQLAlchemy several times as long as to run it.
_HEAD = Prepared(select(head.c.seq, head.c.hash).where(head.c.id == 1).with_for_update())
_NEW_HEAD = Prepared(update(head).where(head.c.id == 1).values(seq=bindparam("seq"), hash=bindparam("hash")))
_NEW_ENTRY = Prepared(insert(journal))


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry. `at` is event time, `recorded_at` the machine's time; `details` are builtins."""

    seq: int
    at: datetime
    recorded_at: datetime
    actor: str
    action: str
    kind: str
    name: str
    reason: str
    details: Any
    previous: str
    hash: str


class Verification(msgspec.Struct, frozen=True):
    """The outcome of a check that found nothing wrong: entries read, and the hash of the last."""

    entries: int
    head: str


def append(
    connection: Connection,
    *,
    at: datetime,
    actor: str,
    action: str,
    kind: str,
    name: str,
    reason: str,
    details: object,
) -> int:
    """Append one entry in the caller's transaction and answer its number.

    The head row is locked first, so that entries of concurrent transactions form one chain.
    """
    (standing,) = _HEAD.rows(connection)
    row = {
        "seq": standing.seq + 1,
        "at": at,
        "recorded_at": datetime.now(UTC),
        "actor": actor,
        "action": action,
        "kind": kind,
        "name": name,
        "reason": reason,
        "details": _encoder.encode({} if details is None else details).decode(),
        "previous": standing.hash,
    }
    row["hash"] = _hash(row)
    _NEW_ENTRY.run(connection, [row])
    _NEW_HEAD.run(connection, [{"seq": row["seq"], "hash": row["hash"]}])
    return int(row["seq"])


def entries(
    connection: Connection,
    *,
    after: int = 0,
    kind: str | None = None,
    name: str | None = None,
    action: str | None = None,
    limit: int | None = None,
    newest_first: bool = False,
) -> Iterator[Entry]:
    """Entries with a number above `after`, oldest first unless told otherwise."""
    query = select(journal).where(journal.c.seq > after)
    if kind is not None:
        query = query.where(journal.c.kind == kind)
    if name is not None:
        query = query.where(journal.c.name == name)
    if action is not None:
        query = query.where(journal.c.action == action)
    query = query.order_by(journal.c.seq.desc() if newest_first else journal.c.seq).limit(limit)
    for row in connection.execute(query).mappings():
        yield Entry(**{**row, "details": msgspec.json.decode(row["details"])})


def verify(connection: Connection) -> Verification:
    """Walk the whole chain; raises JournalBrokenError that names the first entry that does not hold."""
    previous, count = GENESIS, 0
    for row in connection.execute(select(journal).order_by(journal.c.seq)).mappings():
        count += 1
        if row["seq"] != count:
            raise _broken(count, "is missing")
        if row["previous"] != previous:
            raise _broken(count, "does not follow the one before it")
        if row["hash"] != _hash(row):
            raise _broken(count, "was changed")
        previous = row["hash"]
    standing = connection.execute(select(head.c.seq, head.c.hash).where(head.c.id == 1)).one()
    if (standing.seq, standing.hash) != (count, previous):
        raise _broken(count + 1, "is missing at the end")
    return Verification(entries=count, head=previous)


def _hash(row: dict[str, Any] | RowMapping) -> str:
    return digest_json(
        [
            row["seq"],
            to_microseconds(row["at"]),
            to_microseconds(row["recorded_at"]),
            *(row[name] for name in ("actor", "action", "kind", "name", "reason", "details", "previous")),
        ]
    )


def _broken(seq: int, what: str) -> JournalBrokenError:
    return JournalBrokenError(
        f"The journal is broken: entry {seq} {what}.",
        hint="Restore the metadata store from a backup, and find out who could write to it.",
    )
