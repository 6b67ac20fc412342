"""Opens the metadata store that an address names."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy

from trimtab.clock import Clock
from trimtab.config import without_secrets
from trimtab.errors import InvalidInputError
from trimtab.store.database import Database
from trimtab.store.postgres import PostgresDatabase
from trimtab.store.sqlite import SqliteDatabase


def open_database(url: str, clock: Clock) -> Database:
    """The store at `url`: "sqlite:///path" or "postgresql://..."; raises InvalidInputError otherwise."""
    try:
        parsed = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise _unusable(url) from None
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return SqliteDatabase(Path(parsed.database), clock)
    if parsed.get_backend_name() in {"postgresql", "postgres"}:
        return PostgresDatabase(parsed, clock)
    raise _unusable(url)


def _unusable(url: str) -> InvalidInputError:
    return InvalidInputError(
        f"'{without_secrets(url)}' is not a metadata store that Trimtab can use.",
        hint="Give sqlite:///FILE or postgresql://USER@HOST/DATABASE.",
    )
