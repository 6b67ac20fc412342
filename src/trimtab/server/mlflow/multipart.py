"""MLflow's multipart upload: a client asks where to send the parts of a large file, sends them side by side,
and says when they are complete. The parts come to this server, at addresses that only who began it knows.
"""
# ruff: noqa: D101  (a message is MLflow's, and its fields say what it holds)

from __future__ import annotations

import re
from urllib.parse import quote

import msgspec
from starlette.types import Scope

from trimtab.errors import InvalidInputError
from trimtab.server.mlflow.artifact_places import enter, file_at, writable_shelf
from trimtab.server.mlflow.protocol import Caller
from trimtab.server.mlflow.transfers import header
from trimtab.server.mlflow.wire import Text
from trimtab.store.uploads import Part, Uploads
from trimtab.tracking.artifacts import confined

PARTS = "mpu/part/"
"""Below this the parts of an upload are sent: its id, '/', the part's number."""


class Create(msgspec.Struct):
    path: Text
    num_parts: int = 1


class Credential(msgspec.Struct):
    url: str
    part_number: int
    headers: dict[str, str]


class Created(msgspec.Struct):
    upload_id: str
    credentials: list[Credential]


class SentPart(msgspec.Struct):
    part_number: int
    etag: str | None = None
    url: str | None = None


class Complete(msgspec.Struct):
    path: Text
    upload_id: Text
    parts: list[SentPart]


class Abort(msgspec.Struct):
    path: Text
    upload_id: Text


class Presigned(msgspec.Struct):
    url: str
    headers: dict[str, str]
    file_size: int


class Address(msgspec.Struct, frozen=True):
    """Where the caller reaches this server, and with what."""

    root: str
    headers: dict[str, str]


def address_of(scope: Scope, prefix: str) -> Address:
    """The address that the caller of a request used, also through a proxy that says so. It goes back to the
    caller alone, with the authorization that the caller sent: it needs no trust."""
    scheme = header(scope, b"x-forwarded-proto") or scope.get("scheme", "http")
    host = header(scope, b"x-forwarded-host") or header(scope, b"host")
    before = header(scope, b"x-forwarded-prefix").rstrip("/")
    if not re.fullmatch(r"https?", scheme) or not re.fullmatch(r"[\w.:\[\]-]+", host):
        raise InvalidInputError("The request does not say to which host it was sent.")
    authorization = header(scope, b"authorization")
    return Address(
        f"{scheme}://{host}{before}{prefix}", {"Authorization": authorization} if authorization else {}
    )


def create(caller: Caller, uploads: Uploads, folder: str, request: Create, address: Address) -> Created:
    """Begin an upload."""
    target = _target(folder, request.path)
    with caller.workspace.read() as connection:
        writable_shelf(connection, target)
    upload_id = uploads.create(target, request.num_parts)
    return Created(
        upload_id,
        [
            Credential(f"{address.root}{PARTS}{upload_id}/{number}", number, address.headers)
            for number in range(1, request.num_parts + 1)
        ],
    )


def complete(caller: Caller, uploads: Uploads, folder: str, request: Complete) -> None:
    """Make a file of an upload's parts."""
    target = _target(folder, request.path)
    parts = [Part(part.part_number, (part.etag or "").strip('"') or None) for part in request.parts]
    uploads.complete(
        request.upload_id,
        target,
        parts,
        caller.workspace.blobs,
        lambda digest, size: enter(caller.workspace, target, digest, size),
    )


def abort(uploads: Uploads, folder: str, request: Abort) -> None:
    """Give an upload up."""
    uploads.abort(request.upload_id, _target(folder, request.path))


def presigned(caller: Caller, path: str, address: Address) -> Presigned:
    """Where a file can be fetched from in ranges: here."""
    _, file = file_at(caller.workspace, path)
    return Presigned(f"{address.root}artifacts/{quote(path)}", address.headers, file.size)


def part_of(path: str) -> tuple[str, int]:
    """The upload's id and the part's number that a path below `PARTS` names; raises InvalidInputError."""
    name, _, number = path.rpartition("/")
    if not re.fullmatch(r"[0-9]{1,6}", number):
        raise InvalidInputError("The path does not name a part of an upload.")
    return name, int(number)


def _target(folder: str, path: str) -> str:
    # The client sends the whole path that the file has on its machine, whichever system that has.
    name = re.split(r"[/\\]", path)[-1]
    return confined(f"{folder.rstrip('/')}/{name}" if folder else name)
