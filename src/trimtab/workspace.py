"""The workspace: where state lives, and the one place that opens all of it.

It is opened once in a process, passed explicitly, and closed in reverse order.
"""

from __future__ import annotations

import copy
import getpass
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from sqlalchemy import Connection

from trimtab.clock import Clock
from trimtab.config import FILE_NAME, STATE_FOLDER, Settings, load_settings
from trimtab.errors import ConflictError, NotFoundError
from trimtab.store import migrations
from trimtab.store.blobs import Blobs, open_blobs
from trimtab.store.database import Database, Transaction
from trimtab.store.instances import Instances
from trimtab.store.leases import Leases
from trimtab.store.opening import open_database
from trimtab.store.replay import StoreClock

if TYPE_CHECKING:
    from trimtab.store.tables import Tables

T = TypeVar("T")

PRIVATE = 0o700
"""The mode of the state folder: it holds rows, and the secret that prediction ids are made with."""


class Workspace:
    """An open workspace.

    `project` is the folder of `trimtab.toml` and the user's code, `root` the folder of what Trimtab keeps
    on this machine, `actor` who is named in the journal.
    """

    project: Path
    root: Path
    settings: Settings
    clock: Clock
    database: Database
    blobs: Blobs
    leases: Leases
    instances: Instances
    actor: str

    def __init__(self, project: Path, settings: Settings, *, actor: str, clock: Clock | None) -> None:
        self.project = project.resolve()
        self.root = self.project / STATE_FOLDER
        self.settings = settings
        self.actor = actor
        self._tables: Tables | None = None
        self._closing: ExitStack | None = None
        self._owner = True
        store_clock = StoreClock()
        self.clock = clock or store_clock
        self.root.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        if not (self.root / ".gitignore").exists():
            (self.root / ".gitignore").write_text("*\n")
        with ExitStack() as stack:
            self.database = open_database(
                settings.database or f"sqlite:///{self.root / 'metadata.db'}", self.clock
            )
            stack.callback(self.database.close)
            migrations.upgrade(self.database)
            store_clock.bind(self.database)
            self.blobs = open_blobs(settings.blobs or str(self.root / "blobs"), self.root / "drafts")
            self.leases = Leases(self.database)
            self.instances = Instances(self.database)
            self._closing = stack.pop_all()

    @classmethod
    def create(
        cls,
        project: Path,
        settings: Settings | None = None,
        *,
        actor: str | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Make a workspace in a folder and open it; raises ConflictError if there is one. Where
        that fails, nothing of it stays."""
        try:
            (project / STATE_FOLDER).mkdir(mode=PRIVATE, parents=True)  # of two who try at once one makes it
        except FileExistsError:
            raise ConflictError(
                f"There is already a workspace in {project}.", hint="Open it, or choose another folder."
            ) from None
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, project / STATE_FOLDER, ignore_errors=True)
            if not (project / FILE_NAME).exists():
                undo.callback((project / FILE_NAME).unlink)
                (project / FILE_NAME).write_text(
                    "# Settings of this workspace: see `trimtab doctor --settings`.\n"
                )
            opened = cls._opened(project, settings, actor, clock)
            undo.pop_all()
        return opened

    @classmethod
    def open(
        cls,
        project: Path,
        settings: Settings | None = None,
        *,
        actor: str | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Open the workspace of a project; raises NotFoundError if the folder has no `trimtab.toml`."""
        if not (project / FILE_NAME).exists():
            raise NotFoundError(
                f"There is no Trimtab project in {project} (no {FILE_NAME}).",
                hint="Make one with `trimtab init`, or name its folder with --dir.",
            )
        return cls._opened(project, settings, actor, clock)

    @classmethod
    def _opened(
        cls, project: Path, settings: Settings | None, actor: str | None, clock: Clock | None
    ) -> Self:
        return cls(project, settings or load_settings(project), actor=actor or default_actor(), clock=clock)

    @property
    def tables(self) -> Tables:
        """The table store; opened when first asked for, since Polars and delta-rs take a while to load."""
        if self._tables is None:
            from trimtab.store.tables import DeltaTables  # noqa: PLC0415  (0.4 s, and most commands need none)

            self._tables = DeltaTables(
                self.settings.tables or str(self.root / "tables"), self.database.exclusive
            )
        return self._tables

    @property
    def cache(self) -> Path:
        """A folder for files that can be made again."""
        folder = self.root / "cache"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def uploads(self) -> Path:
        """The folder of what clients send to this machine in parts."""
        return self.root / "uploads"

    def read(self) -> AbstractContextManager[Connection]:
        """A connection to the metadata store on one consistent snapshot."""
        return self.database.read()

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one durable transaction of the metadata store, in this workspace's actor's name."""
        return self.database.write(work, actor=self.actor)

    def acting_as(self, actor: str) -> Workspace:
        """The same open workspace in somebody else's name; closing it closes nothing."""
        other = copy.copy(self)
        other.actor = actor
        other._owner = False
        return other

    def close(self) -> None:
        """Close all stores, the last opened first. Closing twice is fine."""
        if self._owner and self._closing is not None:
            self._closing.close()
            self._closing = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_owner", False) and getattr(self, "_closing", None) is not None:
            warnings.warn(f"The workspace {self.project} was not closed.", ResourceWarning, stacklevel=2)


def default_actor() -> str:
    """Who acts if nobody is named: TRIMTAB_ACTOR, or the account's name."""
    try:
        return os.environ.get("TRIMTAB_ACTOR") or getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        return f"uid-{os.getuid()}"
