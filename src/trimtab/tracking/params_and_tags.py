"""What is written on a run besides its metrics: params, which never change, and tags, which may."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, Table, delete, select

from trimtab.errors import ConflictError, InvalidInputError
from trimtab.store.database import Transaction
from trimtab.store.upsert import upsert
from trimtab.tracking.runs import number_of
from trimtab.tracking.schema import params_table as params
from trimtab.tracking.schema import run_tags_table as run_tags

LONGEST_KEY = 250
"""As in MLflow."""

_KEYS_AT_ONCE = 500


def log_params(tx: Transaction, run_id: str, values: Mapping[str, str]) -> None:
    """Set params of a run, all or none; raises ConflictError if one of them has another value already."""
    number = number_of(tx.connection, run_id)
    rows = _rows(number, values)
    if upsert(tx, params, rows, keys=["run", "key"], update=[]) == len(rows):
        return
    keys = list(values)
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = params.c.key.in_(keys[start : start + _KEYS_AT_ONCE])
        for row in tx.execute(select(params.c.key, params.c.value).where(params.c.run == number, some)):
            if values[row.key] != row.value:
                raise ConflictError(
                    f"The param '{row.key}' of run {run_id} is '{row.value}' and cannot become "
                    f"'{values[row.key]}'.",
                    hint="Params never change: start another run, or use a tag.",
                )


def get_params(connection: Connection, run_id: str) -> dict[str, str]:
    """The params of a run, by key."""
    return _read(connection, params, number_of(connection, run_id, writing=False))


def set_tags(tx: Transaction, run_id: str, values: Mapping[str, str]) -> None:
    """Set tags of a run; a tag that stands is replaced."""
    number = number_of(tx.connection, run_id)
    upsert(tx, run_tags, _rows(number, values), keys=["run", "key"])


def delete_tag(tx: Transaction, run_id: str, key: str) -> bool:
    """Take a tag off a run; answers whether it had one of that key."""
    number = number_of(tx.connection, run_id)
    gone = tx.execute(delete(run_tags).where(run_tags.c.run == number, run_tags.c.key == key))
    return gone.rowcount > 0


def get_tags(connection: Connection, run_id: str) -> dict[str, str]:
    """The tags of a run, by key."""
    return _read(connection, run_tags, number_of(connection, run_id, writing=False))


def checked_key(key: str) -> str:
    """`key`, if it can name a metric, a param or a tag: 1 to 250 printable characters, not all blank;
    raises InvalidInputError otherwise."""
    if not key.strip() or len(key) > LONGEST_KEY or not key.isprintable():
        raise InvalidInputError(
            f"{key!r:.80} cannot name a metric, a param or a tag.",
            hint=f"Use 1 to {LONGEST_KEY} printable characters.",
        )
    return key


def checked_text(what: str, value: str) -> str:
    """`value`, if both databases can keep it as text; raises InvalidInputError otherwise."""
    try:
        encoded = value.encode()
    except (UnicodeEncodeError, AttributeError):
        encoded = b"\0"
    if b"\0" in encoded:
        raise InvalidInputError(f"The value of {what} is not text, or has a NUL or half a character in it.")
    return value


def _rows(number: int, values: Mapping[str, str]) -> list[dict[str, object]]:
    return [
        {"run": number, "key": checked_key(key), "value": checked_text(f"'{key}'", value)}
        for key, value in values.items()
    ]


def _read(connection: Connection, table: Table, number: int) -> dict[str, str]:
    query = select(table.c.key, table.c.value).where(table.c.run == number).order_by(table.c.key)
    return {row.key: row.value for row in connection.execute(query)}
