"""A role's link to the workspace that may be dead when the role starts, and come back later."""

from __future__ import annotations

import time
from pathlib import Path

import sqlalchemy
from sqlalchemy import select

from trimtab.config import Settings
from trimtab.errors import TrimtabError, UnavailableError
from trimtab.serving.endpoints import signing_secret
from trimtab.serving.last_known import read_last_known
from trimtab.serving.schema import serving_state_table as serving_state
from trimtab.workspace import Workspace

RETRY_SECONDS = 0.5


class StoreLink:
    """Opens the workspace when it can be opened, and makes sure that it is still the same one.

    `folder` is where the gateway keeps what it last knew.
    """

    def __init__(self, project: Path, settings: Settings, folder: Path, *, actor: str) -> None:
        self._project = project
        self._settings = settings
        self._folder = folder
        self._actor = actor
        self._workspace: Workspace | None = None
        self._next_try = 0.0
        self._trouble = UnavailableError("The workspace was not opened yet.")

    def workspace(self) -> Workspace:
        """The open workspace; raises UnavailableError while it cannot be opened."""
        if self._workspace is None:
            if time.monotonic() < self._next_try:
                raise self._trouble
            try:
                self._workspace = self._open()
            except TrimtabError as error:
                self._next_try = time.monotonic() + RETRY_SECONDS
                self._trouble = (
                    error
                    if isinstance(error, UnavailableError)
                    else UnavailableError(error.message, hint=error.hint)
                )
                raise self._trouble from error
        return self._workspace

    def close(self) -> None:
        """Close the workspace, if it is open."""
        if self._workspace is not None:
            self._workspace.close()
            self._workspace = None

    def _open(self) -> Workspace:
        self._check_file()
        workspace = Workspace.open(self._project, self._settings, actor=self._actor)
        try:
            with workspace.read() as connection:
                secret = connection.execute(select(serving_state.c.secret)).scalar_one_or_none()
            if secret is None:
                secret = workspace.write(lambda tx: signing_secret(tx).hex())
            known = read_last_known(self._folder)
            if known is not None and known.secret != secret:
                raise UnavailableError(
                    f"The metadata store of {self._project} is another one than before.",
                    hint=f"If that is meant, empty the folder {self._folder} and start again.",
                )
        except BaseException:
            workspace.close()
            raise
        return workspace

    def _check_file(self) -> None:
        """A SQLite file that is not there would be made, empty: to a role that serves, it is dead."""
        url = self._settings.database
        path = Path(url.removeprefix("sqlite:///")) if url else self._project / ".trimtab" / "metadata.db"
        if (url is None or sqlalchemy.make_url(url).get_backend_name() == "sqlite") and not path.exists():
            raise UnavailableError(f"The metadata store {path} is not there.")
