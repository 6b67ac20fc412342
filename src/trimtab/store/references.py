"""Which blobs the metadata store speaks of.

Any digest in any text counts, in whichever table and column it stands: what is added later to a table, or by
somebody else, protects what it points at without anybody having to remember this place. Only what is known to
be history, which tells of content and does not need it, is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sqlalchemy import ColumnElement, Connection, Text, column, inspect, or_, select, table

from trimtab.digest import PREFIX

_DIGEST = re.compile(r"(?:b3:|trees/)([0-9a-f]{64})")

HISTORY = frozenset({"journal", "journal_head"})


def digests_spoken_of(
    connection: Connection,
    *,
    skip: frozenset[str] = HISTORY,
    only: Mapping[str, ColumnElement[bool]] | None = None,
    without: Mapping[str, frozenset[str]] | None = None,
) -> Iterator[str]:
    """Digests in texts of all tables but those in `skip`, perhaps more than once; of a table in `only` those
    in the rows that it says, of one in `without` those in its other columns."""
    for name, columns in _texts(connection).items():
        names = [each for each in columns if each not in (without or {}).get(name, ())]
        if name in skip or not names:
            continue
        cells = [column(each, Text) for each in names]
        spoken = or_(*(cell.contains(sign) for cell in cells for sign in (PREFIX, "trees/")))
        query = select(*cells).select_from(table(name, *cells)).where(spoken)
        if only and name in only:
            query = query.where(only[name])
        for row in connection.execute(query.execution_options(yield_per=1000)):
            for text in row:
                for found in _DIGEST.findall(text or ""):
                    yield PREFIX + found


def _texts(connection: Connection) -> dict[str, list[str]]:
    """The columns that hold text, by table, as they are in the database."""
    inspector = inspect(connection)
    return {
        name: [each["name"] for each in inspector.get_columns(name) if isinstance(each["type"], Text)]
        for name in inspector.get_table_names()
    }
