"""What a gateway needs to start when everything else is dead: kept in one private file beside its log."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from trimtab.serving.options import Options
from trimtab.serving.routes import Route

FILE_NAME = "last-known.json"


class LastKnown(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the metadata store as far as serving goes, when it could last be read.

    `secret`: that of the prediction ids, in hexadecimal; it also tells one workspace's store from another's.
    `replay_at`: event time in microseconds since 1970 in a workspace in replay.
    """

    secret: str
    revision: int
    flush: int
    routes: dict[str, Route]
    options: dict[str, Options] = {}
    tokens: list[str]
    replay_at: int | None = None


def read_last_known(folder: Path) -> LastKnown | None:
    """What was kept in this folder, or None if there is nothing, or nothing that can be read."""
    try:
        return msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=LastKnown)
    except (FileNotFoundError, msgspec.MsgspecError, ValueError):
        return None


def keep_last_known(folder: Path, known: LastKnown) -> None:
    """Keep it, whole or not at all, readable by nobody else."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{FILE_NAME}-{os.getpid()}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(known))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / FILE_NAME)
