"""Artifacts by the addresses that MLflow keeps: folders of this machine, and what MLflow can fetch."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from trimtab.errors import InvalidInputError
from trimtab.models.migration.source import Found
from trimtab.tracking.artifacts import files_below

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

PROXIED = "mlflow-artifacts"
"""The scheme of what an MLflow server hands out: where it keeps that, only the server knows."""

_OWNED = re.compile(
    r"(?:(?P<model>m-[0-9a-f]{32})|(?P<run>[0-9a-f]{32}))/artifacts(?:/(?P<path>.*))?", re.DOTALL
)


class ArtifactPlaces:
    """Finds artifacts for a store that is read from this machine.

    `folder` is where relative addresses begin; `proxied` is the folder or the address behind
    `mlflow-artifacts:/`, if anybody knows it.
    """

    def __init__(self, folder: Path, proxied: str | None) -> None:
        self._folder = folder
        self._proxied = proxied

    def files_at(self, address: str) -> Found:
        """The files at an address; none where there is nothing. Raises InvalidInputError where it cannot be
        known or read what is there."""
        address = self._without_proxy(address)
        if (folder := local_folder(address, self._folder)) is None:
            yield from fetched(address)
        elif folder.is_file():
            yield folder.name, folder
        elif folder.is_dir():
            yield from files_below(folder).items()

    def _without_proxy(self, address: str) -> str:
        if scheme_of(address) != PROXIED:
            return address
        if self._proxied is None:
            raise InvalidInputError(
                f"The files at {address} are kept where only their MLflow server knows.",
                hint="Name that place with --artifacts (the server's --artifacts-destination), or import "
                "from the running server by its address.",
            )
        path = unquote(urlsplit(address).path).strip("/")
        if ".." in path.split("/"):
            raise InvalidInputError(f"The address {address} leads out of its place.")
        return f"{self._proxied.rstrip('/')}/{path}"


def scheme_of(address: str) -> str:
    """The scheme of an address; "" for a path."""
    match = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+):", address)
    return match[1].lower() if match else ""


def local_folder(address: str, folder: Path) -> Path | None:
    """The path that an address names on this machine, or None for one elsewhere."""
    match scheme_of(address):
        case "":
            return folder / address
        case "file":
            return folder / unquote(urlsplit(address).path)
    return None


def owner_at(address: str) -> tuple[str, str, str] | None:
    """Whose artifacts an address names, by its form alone: kind, id, and the path below; or None."""
    if match := re.fullmatch(r"runs:/+([0-9a-f]{32})/(.+)", address, re.DOTALL):
        return "runs", match[1], match[2].strip("/")
    if match := re.fullmatch(r"models:/+(m-[0-9a-f]{32})/*(.*)", address, re.DOTALL):
        return "logged-models", match[1], match[2].strip("/")
    if match := _OWNED.search(address):
        kind = "runs" if match["run"] else "logged-models"
        return kind, match["run"] or match["model"], (match["path"] or "").strip("/")
    return None


def is_below(address: str, root: str) -> bool:
    """Whether an address lies at or below another, however the two are written."""
    inner, outer = (re.sub(r"^file:(//)?", "", each).rstrip("/") for each in (address, root))
    return inner == outer or inner.startswith(f"{outer}/")


def fetched(address: str) -> Iterator[tuple[str, Path]]:
    """The files at a remote address, fetched one at a time by MLflow's own adapter for it."""
    repository = _repository(address)
    with tempfile.TemporaryDirectory(prefix="trimtab-import-") as folder:
        to = Path(folder)
        for path in _listed(repository, address, None):
            place = to / "file"
            try:
                repository._download_file(path, str(place))
            except Exception as error:
                raise _unreachable(f"{address}/{path}", error) from error
            yield path, place
            place.unlink()


def _listed(repository: ArtifactRepository, address: str, path: str | None) -> Iterator[str]:
    try:
        found = repository.list_artifacts(path)
    except Exception as error:
        raise _unreachable(address, error) from error
    for each in found:
        if each.is_dir:
            yield from _listed(repository, address, each.path)
        else:
            yield each.path


def _repository(address: str) -> ArtifactRepository:
    # One to two seconds, and only artifacts in somebody's cloud need it.
    from mlflow.store.artifact.artifact_repository_registry import (
        get_artifact_repository,
    )

    try:
        return get_artifact_repository(address)
    except Exception as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> InvalidInputError:
    words = str(error).strip().splitlines() or [type(error).__name__]
    return InvalidInputError(
        f"The files at {address} cannot be read: {words[0]:.300}.",
        hint="See that this machine may read them, and run the same command again.",
    )
