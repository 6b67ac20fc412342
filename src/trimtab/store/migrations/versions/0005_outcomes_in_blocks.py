"""Outcomes in blocks of many predictions, since a row for each cost two hundred bytes."""

import itertools
import math
import operator
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

ROWS = 2048
DAY = 86_400_000_000


def upgrade() -> None:
    """Make the changes."""
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    blocks = op.create_table(
        "outcome_blocks",
        sa.Column("id", serial, nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("shelf", sa.LargeBinary(), nullable=False),
        sa.Column("first_name", sa.LargeBinary(), nullable=False),
        sa.Column("last_name", sa.LargeBinary(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("labelled", sa.Integer(), nullable=False),
        sa.Column("revisions", sa.Integer(), nullable=False),
        sa.Column("labels", sa.LargeBinary(), nullable=True),
        sa.Column("keys", sa.LargeBinary(), nullable=True),
        sa.Column("answers", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outcome_blocks")),
    )
    standing = sa.text("SELECT * FROM outcomes ORDER BY endpoint, at, id")
    connection = op.get_bind()
    # A few blocks at a time: a Postgres driver would else hold all outcomes in memory at once.
    streamed = connection.execute(standing, execution_options={"yield_per": ROWS})
    for block in _blocks(streamed.mappings()):
        connection.execute(sa.insert(blocks), [block])
    op.create_index("ix_outcome_blocks_endpoint_day", "outcome_blocks", ["endpoint", "day"], unique=False)
    op.create_index(
        "ix_outcome_blocks_endpoint_shelf", "outcome_blocks", ["endpoint", "shelf", "last_name"], unique=False
    )
    op.drop_index(op.f("ix_outcomes_endpoint_at"), table_name="outcomes")
    op.drop_index(op.f("ix_outcomes_endpoint_key"), table_name="outcomes")
    op.drop_table("outcomes")
    op.create_index("ix_pending_labels_endpoint", "pending_labels", ["endpoint"], unique=False)


def _blocks(rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """The predictions of an endpoint and day, so many at a time."""
    for (endpoint, day), some in itertools.groupby(rows, lambda row: (row["endpoint"], row["at"] // DAY)):
        while chunk := list(itertools.islice(some, ROWS)):
            yield {"endpoint": endpoint, "day": day, **_block(chunk)}


def _block(rows: list[Any]) -> dict[str, Any]:
    """One block, in the plainest form that is read: lists, and ids as texts."""
    keys = [row["key"] for row in rows]
    keyed = any(key is not None for key in keys)
    said = [_scores(row) for row in rows]
    versions = dict.fromkeys(version for scores in said for version in scores)
    several = any(row["scores"] is not None for row in rows)
    scores = {version: [scores.get(version) for scores in said] for version in versions if several}
    labelled = [(place, row) for place, row in enumerate(rows) if row["label"] is not None]
    packed_keys = zlib.compress(msgspec.msgpack.encode(keys), 1) if keyed else None
    columns = [[row[name] for row in rows] for name in ("id", "at", "version", "answer")]
    names = [row["id"].encode(errors="surrogatepass") for row in rows]
    labels = [
        [place for place, _ in labelled],
        *([row[name] for _, row in labelled] for name in ("label", "labelled_at", "revisions")),
    ]
    return {
        "shelf": b"",
        "first_name": min(names),
        "last_name": max(names),
        "first_at": rows[0]["at"],
        "last_at": rows[-1]["at"],
        "rows": len(rows),
        "labelled": len(labelled),
        "revisions": sum(map(operator.itemgetter("revisions"), rows)),
        "labels": msgspec.msgpack.encode(labels) if labelled else None,
        "keys": b"\xff" * 8 if keyed else None,  # a filter that lets every key pass
        "answers": msgspec.msgpack.encode([*columns, scores, packed_keys]),
    }


def _scores(row: Any) -> dict[int, float | None]:
    if row["scores"] is None:
        return {row["version"]: row["answer"]}
    found = msgspec.json.decode(row["scores"], type=dict[int, float | None])
    return {version: score for version, score in found.items() if score is None or math.isfinite(score)}
