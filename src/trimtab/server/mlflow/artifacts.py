"""MLflow's artifacts: files that clients send to and fetch from this server, whatever store is behind it.

The server says where they are, as `mlflow-artifacts:/` URIs; see `artifact_places`.
"""
# ruff: noqa: D101  (a message is MLflow's, and its fields say what it holds)

from __future__ import annotations

from functools import partial
from urllib.parse import quote, unquote_to_bytes

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.server.mlflow import multipart, wire
from trimtab.server.mlflow.artifact_places import (
    File,
    children,
    enter,
    file_at,
    files_below,
    spot_at,
    writable_shelf,
)
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
from trimtab.server.mlflow.transfers import Body, download
from trimtab.server.mlflow.wire import Text
from trimtab.store.blobs import Draft
from trimtab.store.uploads import Uploads
from trimtab.tracking import artifacts
from trimtab.tracking.artifacts import confined
from trimtab.tracking.run_details import run_row

FILES = "artifacts/"
STREAMED = (FILES, multipart.PARTS)
"""What is sent below these is a file, which goes to the store as it arrives."""


class ListBelow(msgspec.Struct):
    path: str | None = None


class ListOfRun(msgspec.Struct):
    run_id: Text
    path: str | None = None


class Files(msgspec.Struct, omit_defaults=True):
    files: list[File] = []
    root_uri: str = ""


class Artifacts:
    """Answers what is below `prefix`, ".../mlflow-artifacts"."""

    def __init__(self, door: Door, prefix: str) -> None:
        self._door = door
        self._prefix = prefix.rstrip("/") + "/"
        self._uploads = Uploads(door.workspace.uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            # Decoded here, once and strictly: what is no UTF-8 is no name.
            path = unquote_to_bytes(scope.get("raw_path") or quote(scope["path"])).decode()
        except UnicodeDecodeError:
            await answer(400, "INVALID_PARAMETER_VALUE", "The path is not UTF-8.")(scope, receive, send)
            return
        path = path.removeprefix(self._prefix)
        if scope["method"] == "PUT" and path.startswith(STREAMED):
            response = await self._taken(scope, path, receive)
        else:
            body = await whole_body(scope, receive)
            work = partial(self._answer, scope, path, body)
            response = await self._door.threads.run(guarded, path, work)
        await response(scope, receive, send)

    def _answer(self, scope: Scope, path: str, body: bytes) -> Response:
        method = scope["method"]
        caller = self._door.caller(actor_of(scope))
        if method == "GET" and path.rstrip("/") == "artifacts":
            below = read_request(ListBelow, scope, body).path or ""
            return _json(Files(files_below(caller.workspace, below.strip("/"))))
        if method in {"GET", "HEAD"} and path.startswith(FILES):
            return download(
                caller.workspace.blobs, *file_at(caller.workspace, path.removeprefix(FILES)), scope
            )
        if method == "DELETE" and path.startswith(FILES):
            return _delete(caller, path.removeprefix(FILES))
        if method == "GET" and path.startswith("presigned/"):
            address = multipart.address_of(scope, self._prefix)
            return _json(multipart.presigned(caller, path.removeprefix("presigned/"), address))
        if method == "POST" and path.startswith("mpu/"):
            return self._multipart(caller, scope, path.removeprefix("mpu/"), body)
        raise EndpointMissingError(f"Trimtab has no MLflow endpoint {method} {self._prefix}{path:.200}.")

    def _multipart(self, caller: Caller, scope: Scope, path: str, body: bytes) -> Response:
        what, _, folder = path.partition("/")
        match what:
            case "create":
                request = read_request(multipart.Create, scope, body)
                address = multipart.address_of(scope, self._prefix)
                return _json(multipart.create(caller, self._uploads, folder, request, address))
            case "complete":
                multipart.complete(
                    caller, self._uploads, folder, read_request(multipart.Complete, scope, body)
                )
            case "abort":
                multipart.abort(self._uploads, folder, read_request(multipart.Abort, scope, body))
            case _:
                raise EndpointMissingError(f"Trimtab has no MLflow endpoint {self._prefix}mpu/{path:.200}.")
        return _json({})

    async def _taken(self, scope: Scope, path: str, receive: Receive) -> Response:
        body = Body(scope, receive)
        try:
            if path.startswith(FILES):
                return await self._file(path.removeprefix(FILES), actor_of(scope), body)
            return await self._part(path.removeprefix(multipart.PARTS), body)
        except Exception as error:  # noqa: BLE001  (told in the shape that the client reads)
            return guarded(path, partial(_raise, error))

    async def _file(self, path: str, actor: str, body: Body) -> Response:
        """Keep a file: a small one in one go, a larger one as it arrives."""
        first = await body.piece()

        def begin() -> Draft | None:
            workspace = self._door.caller(actor).workspace
            with workspace.read() as connection:
                writable_shelf(connection, path)
            if not body.ended:
                return workspace.blobs.draft()
            enter(workspace, path, workspace.blobs.put(first), len(first))
            return None

        def end() -> None:
            assert draft is not None
            enter(self._door.caller(actor).workspace, path, draft.keep(), draft.size)

        if (draft := await self._door.threads.run(begin)) is not None:
            with draft:
                await body.into(draft, first)
                await self._door.threads.run(end)
        return _json({})

    async def _part(self, path: str, body: Body) -> Response:
        """Keep a part of an upload."""
        name, number = multipart.part_of(path)
        with await self._door.threads.run(self._uploads.part, name, number) as draft:
            await body.into(draft)
            digest = await self._door.threads.run(draft.keep)
        return Response(headers={"ETag": f'"{digest.partition(":")[2]}"'})


def list_of_run(caller: Caller, request: ListOfRun) -> Files:
    """The files and folders of a run in one folder."""
    with caller.workspace.read() as connection:
        row = run_row(connection, request.run_id)
        if row is None:
            raise NotFoundError(f"Run with id={request.run_id:.300} not found")
        shelf = artifacts.shelf_of_run(connection, request.run_id)
        folder = (request.path or "").rstrip("/")
        listed = artifacts.list_on(connection, shelf, confined(folder) if folder else "")
    prefix = f"{folder}/" if folder else ""
    found = children(((file.path, file.size) for file in listed), folder)
    named = [File(prefix + file.path, file.is_dir, file.file_size) for file in found]
    return Files(named, wire.run_info(row).artifact_uri)


def _delete(caller: Caller, path: str) -> Response:
    with caller.workspace.read() as connection:
        spot = spot_at(connection, path.rstrip("/"))
    shelf = spot.shelf
    if shelf is None:
        raise InvalidInputError("The content of a model version never changes.")
    caller.workspace.write(lambda tx: artifacts.delete_on(tx, shelf, spot.path))
    return _json({})


def _raise(error: Exception) -> Response:
    raise error


def _json(message: object) -> Response:
    return Response(encode(message), media_type="application/json")


ENDPOINTS = (endpoint("GET", "artifacts/list", ListOfRun, list_of_run),)
