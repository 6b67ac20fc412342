"""MLflow's artifacts: files that clients send to and fetch from this server, whatever store is behind it.

The server says where they are, as `mlflow-artifacts:/` URIs:

    <experiment>/<run>/artifacts/...             the files of a run
    <experiment>/models/<model>/artifacts/...    the files of a logged model
    trees/<digest>/...                           the content of a model version, which never changes
"""
# ruff: noqa: D101  (a message is MLflow's, and its fields say what it holds)

from __future__ import annotations

import asyncio
import mimetypes
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote_to_bytes

import msgspec
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from trimtab.digest import PREFIX, is_digest
from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.models.versions import is_registered
from trimtab.server.mlflow import wire
from trimtab.server.mlflow.errors import EndpointMissingError, answer
from trimtab.server.mlflow.protocol import (
    Caller,
    Door,
    actor_of,
    encode,
    endpoint,
    guarded,
    read_request,
    whole_body,
)
from trimtab.server.mlflow.wire import Text, experiment_number
from trimtab.store.blobs import Manifest
from trimtab.tracking import artifacts, logged_models
from trimtab.tracking.artifacts import Shelf, confined
from trimtab.tracking.run_details import run_row

IN_MEMORY = 2**20
"""Bytes up to which a file is held in memory on its way."""

TREES = "trees"


class ListBelow(msgspec.Struct):
    path: str | None = None


class ListOfRun(msgspec.Struct):
    run_id: Text
    path: str | None = None


class File(msgspec.Struct, omit_defaults=True):
    path: str
    is_dir: bool
    file_size: int | None = None


class Files(msgspec.Struct, omit_defaults=True):
    files: list[File] = []
    root_uri: str = ""


class Place(msgspec.Struct, frozen=True):
    """A path below a shelf, or below the tree of a model version."""

    path: str
    shelf: Shelf | None = None
    tree: str = ""


class Artifacts:
    """Answers what is below `prefix`, ".../mlflow-artifacts"."""

    def __init__(self, door: Door, prefix: str) -> None:
        self._door = door
        self._prefix = prefix.rstrip("/") + "/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method = scope["method"]
        try:
            # Decoded here, once and strictly: what is no UTF-8 is no name.
            path = unquote_to_bytes(scope.get("raw_path") or quote(scope["path"])).decode()
        except UnicodeDecodeError:
            await answer(400, "INVALID_PARAMETER_VALUE", "The path is not UTF-8.")(scope, receive, send)
            return
        path = path.removeprefix(self._prefix)
        caller = await run_in_threadpool(self._door.caller, actor_of(scope))
        if method == "PUT" and path.startswith("artifacts/"):
            response = await self._upload(caller, path.removeprefix("artifacts/"), receive)
        else:
            body = await whole_body(receive)
            response = await run_in_threadpool(guarded, path, lambda: self._answer(caller, scope, path, body))
        await response(scope, receive, send)

    def _answer(self, caller: Caller, scope: Scope, path: str, body: bytes) -> Response:
        method = scope["method"]
        if method == "GET" and path.rstrip("/") == "artifacts":
            below = read_request(ListBelow, scope, body).path or ""
            return Response(encode(Files(list_below(caller, below))), media_type="application/json")
        if path.startswith("artifacts/"):
            name = path.removeprefix("artifacts/")
            if method == "GET":
                return _download(caller, name)
            if method == "DELETE":
                return _delete(caller, name)
        if path.startswith(("mpu/", "presigned/")):
            return answer(
                501,
                "NOT_IMPLEMENTED",
                "Multipart upload is not supported for the current artifact repository",
            )
        raise EndpointMissingError(f"Trimtab has no MLflow endpoint {method} {self._prefix}{path:.200}.")

    async def _upload(self, caller: Caller, path: str, receive: Receive) -> Response:
        """Keep a file as it arrives: small ones in memory, others on disk, until their content is stored."""
        with tempfile.SpooledTemporaryFile(IN_MEMORY, mode="w+b", dir=str(caller.workspace.cache)) as file:
            size = 0
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return answer(400, "INVALID_PARAMETER_VALUE", "The upload was broken off.")
                chunk = message.get("body", b"")
                if size + len(chunk) > IN_MEMORY:
                    await asyncio.to_thread(file.write, chunk)
                else:
                    file.write(chunk)
                size += len(chunk)
                if not message.get("more_body", False):
                    break
            return await run_in_threadpool(guarded, path, lambda: _store(caller, path, file, size))


def list_of_run(caller: Caller, request: ListOfRun) -> Files:
    """The files and folders of a run in one folder."""
    with caller.workspace.read() as connection:
        row = run_row(connection, request.run_id)
        if row is None:
            raise NotFoundError(f"Run with id={request.run_id:.300} not found")
        shelf = artifacts.shelf_of_run(connection, request.run_id)
        folder = _folder(request.path or "")
        found = _children(_sizes(artifacts.list_on(connection, shelf, folder)), folder)
    prefix = f"{folder}/" if folder else ""
    named = [File(prefix + file.path, file.is_dir, file.file_size) for file in found]
    return Files(named, wire.run_info(row).artifact_uri)


def list_below(caller: Caller, path: str) -> list[File]:
    """The files and folders in one folder, named without it."""
    with caller.workspace.read() as connection:
        try:
            place = _place(connection, path.strip("/"))
        except NotFoundError:
            return []
        if place.shelf is not None:
            return _children(_sizes(artifacts.list_on(connection, place.shelf, place.path)), place.path)
    files = caller.workspace.blobs.manifest(place.tree).files
    return _children([(name, file.size) for name, file in files.items()], place.path)


def tree_of(caller: Caller, uri: str) -> str | None:
    """Keep what is at an `mlflow-artifacts:` URI of this server's as a tree, and answer its digest; None
    where there is nothing. No content is copied: it is in the blob store already."""
    path = uri.removeprefix("mlflow-artifacts:").lstrip("/")
    with caller.workspace.read() as connection:
        place = _place(connection, path.strip("/"))
        if place.shelf is None:
            return place.tree if not place.path else None
        listed = artifacts.list_on(connection, place.shelf, place.path)
    cut = len(place.path) + 1 if place.path else 0
    files = {each.path[cut:]: {"digest": each.digest, "size": each.size} for each in listed}
    if not files:
        return None
    manifest = msgspec.convert({"type": "tree", "files": files}, Manifest)
    return caller.workspace.blobs.put(msgspec.json.encode(manifest, order="deterministic"))


def tree_uri(digest: str) -> str:
    """The URI at which the content of a model version is."""
    return f"mlflow-artifacts:/{TREES}/{digest.removeprefix(PREFIX)}"


def _store(caller: Caller, path: str, file: IO[bytes], size: int) -> Response:
    with caller.workspace.read() as connection:
        place = _place(connection, path, writing=True)
        if place.shelf is None or not place.path:
            raise InvalidInputError("A file goes below a run or a logged model; nothing else takes any.")
    blobs = caller.workspace.blobs
    file.seek(0)
    if size <= IN_MEMORY:
        digest = blobs.put(file.read())
    else:
        with tempfile.NamedTemporaryFile(dir=caller.workspace.cache) as whole:
            while chunk := file.read(IN_MEMORY):
                whole.write(chunk)
            whole.flush()
            digest = blobs.put_file(Path(whole.name))
    shelf = place.shelf
    caller.workspace.write(lambda tx: artifacts.record_on(tx, shelf, {place.path: (digest, size)}))
    return Response(b"{}", media_type="application/json")


def _download(caller: Caller, path: str) -> Response:
    with caller.workspace.read() as connection:
        place = _place(connection, path)
        if place.shelf is not None:
            found = artifacts.get_on(connection, place.shelf, place.path)
            digest, size = found.digest, found.size
    if place.shelf is None:
        file = caller.workspace.blobs.manifest(place.tree).files.get(place.path)
        if file is None:
            raise NotFoundError(f"The model version has no file '{place.path:.300}'.")
        digest, size = file.digest, file.size
    name = place.path.rsplit("/", 1)[-1]
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {
        # Whatever was logged, a browser must not run it as a page of this server's.
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "X-Content-Type-Options": "nosniff",
    }
    if size <= IN_MEMORY:
        return Response(caller.workspace.blobs.get(digest), media_type=kind, headers=headers)
    with tempfile.TemporaryDirectory(dir=caller.workspace.cache) as folder:
        fetched = Path(folder) / "file"
        caller.workspace.blobs.fetch_file(digest, fetched)
        opened = fetched.open("rb")  # its name goes now, its bytes when it is closed
    headers["Content-Length"] = str(size)
    # Not a FileResponse: the server would open the file by its name, when that may be gone.
    return StreamingResponse(_chunks(opened), media_type=kind, headers=headers)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(IN_MEMORY):
            yield chunk


def _delete(caller: Caller, path: str) -> Response:
    with caller.workspace.read() as connection:
        place = _place(connection, path.rstrip("/"))
    shelf = place.shelf
    if shelf is None:
        raise InvalidInputError("The content of a model version never changes.")
    caller.workspace.write(lambda tx: artifacts.delete_on(tx, shelf, place.path))
    return Response(b"{}", media_type="application/json")


def _place(connection: Connection, path: str, *, writing: bool = False) -> Place:
    """Where a path leads; raises NotFoundError for what is not there, InvalidInputError for a path that
    leads anywhere else, ConflictError if `writing` to a deleted run."""
    confined(path)
    match path.split("/"):
        case ["trees", name, *rest]:
            digest = PREFIX + name
            if not is_digest(digest) or not is_registered(connection, digest):
                raise NotFoundError(f"There is no model version with the content {name:.80}.")
            return Place("/".join(rest), tree=digest)
        case [experiment, "models", model_id, "artifacts", *rest]:
            row = logged_models.find(connection, model_id, deleted=True)
            owner, shelf = row.experiment_id, artifacts.shelf_of_model(row.number, model_id)
        case [experiment, run_id, "artifacts", *rest]:
            found = run_row(connection, run_id)
            if found is None:
                raise NotFoundError(f"Run with id={run_id:.300} not found")
            owner, shelf = found.experiment_id, artifacts.shelf_of_run(connection, run_id, writing=writing)
        case _:
            raise NotFoundError(f"No run and no logged model has its artifacts at '{path:.300}'.")
    if experiment_number(experiment) != owner:
        raise NotFoundError(f"No run and no logged model has its artifacts at '{path:.300}'.")
    return Place("/".join(rest), shelf=shelf)


def _folder(path: str) -> str:
    path = path.rstrip("/")
    return confined(path) if path else ""


def _sizes(files: Iterable[artifacts.Artifact]) -> list[tuple[str, int]]:
    return [(file.path, file.size) for file in files]


def _children(files: Iterable[tuple[str, int]], folder: str) -> list[File]:
    prefix = f"{folder}/" if folder else ""
    found: dict[str, File] = {}
    for path, size in files:
        if path.startswith(prefix):
            name, slash, _ = path[len(prefix) :].partition("/")
            found.setdefault(name, File(name, True) if slash else File(name, False, size))
    return [found[name] for name in sorted(found)]


ENDPOINTS = (endpoint("GET", "artifacts/list", ListOfRun, list_of_run),)
