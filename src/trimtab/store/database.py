"""The port of the metadata store: one SQLite file or one Postgres database behind the same two calls.

`read` gives a connection on a snapshot; `write` runs a function in one durable transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, InterfaceError, OperationalError

from trimtab.errors import InvalidInputError, StorageFullError, UnavailableError
from trimtab.store import journal

T = TypeVar("T")


class Transaction:
    """What a write works with: the connection, who acts, and the event time of the change."""

    def __init__(self, connection: Connection, actor: str, at: datetime) -> None:
        self.connection = connection
        self.actor = actor
        self.at = at

    def execute(
        self,
        statement: Executable,
        parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> CursorResult[Any]:
        """Run one statement in this transaction."""
        return self.connection.execute(statement, parameters)

    def journal(self, action: str, kind: str, name: str, *, reason: str = "", details: object = None) -> int:
        """Append an entry to the journal in this transaction; answers its number.

        `action` is a past-tense dotted word ("model.alias_set"), `kind` and `name` say what it was done
        to; `details` is anything that msgspec can encode.
        """
        return journal.append(
            self.connection,
            at=self.at,
            actor=self.actor,
            action=action,
            kind=kind,
            name=name,
            reason=reason,
            details=details,
        )


class Database(Protocol):
    """The port of the metadata store."""

    engine: Engine

    def read(self) -> AbstractContextManager[Connection]:
        """A connection on one consistent snapshot."""
        ...

    def write(self, work: Callable[[Transaction], T], *, actor: str) -> T:
        """Run `work` in one transaction and return its answer once it is durable.

        What `work` raises is raised here and changes nothing. `work` does no I/O and may be run more than
        once. Raises UnavailableError when the store does not answer and StorageFullError when it is full.
        """
        ...

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock `name` across processes; a holder that dies lets go of it."""
        ...

    def watch(self) -> Watch:
        """Something that tells when anybody has committed a change."""
        ...

    def close(self) -> None:
        """Finish what was asked, then let go of all connections."""
        ...


class Watch(Protocol):
    """Tells whether anybody has committed since it was last asked: a cheap question, to be put before dear
    ones. It may say yes for nothing, and never says no after a commit. For one thread."""

    def changed(self) -> bool:
        """Whether something was committed since the last answer; True the first time."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait for a commit, `seconds` at the most; whether there was one."""
        ...


def nested() -> RuntimeError:
    """A mistake in our own code, which would otherwise wait for itself for ever."""
    return RuntimeError(
        "A write was asked for inside another; hand the outer one's transaction down instead."
    )


def closed() -> UnavailableError:
    """What a write to a closed store meets."""
    return UnavailableError("This workspace is closed.", hint="Open it again.")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the drivers' words for "full", "not there" and "cannot be kept" into ours."""
    try:
        yield
    except (DataError, UnicodeEncodeError, OverflowError) as error:
        # A number beyond 64 bits, a NUL (Postgres), half a surrogate pair.
        if isinstance(error, OverflowError) and "SQLite" not in str(error):
            raise
        words = str(error.orig if isinstance(error, DataError) else error).strip().splitlines()[0]
        raise InvalidInputError(
            f"The metadata store cannot hold this value: {words}.", hint="Correct it and try again."
        ) from error
    except DBAPIError as error:
        # A file that is no database, or a damaged one, is a plain DatabaseError to the driver.
        if not isinstance(error, OperationalError | InterfaceError) and type(error) is not DatabaseError:
            raise
        words = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        if "is full" in words or "No space left" in words:
            raise StorageFullError(
                f"The metadata store is full: {words}.", hint="Free some space and try again."
            ) from error
        if "readonly database" in words or "unable to open database file" in words:
            raise UnavailableError(
                f"The metadata store cannot be opened to write: {words}.",
                hint="See that this account may write to the state folder and all that is in it.",
            ) from error
        raise UnavailableError(
            f"The metadata store does not answer: {words}.", hint="Check that it runs and can be reached."
        ) from error
