"""Dataset routes: what there is, and new rows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Header, Query, Request
from starlette.concurrency import run_in_threadpool

from trimtab.data.datasets import Datasets
from trimtab.data.row_formats import BY_CONTENT_TYPE, read_rows
from trimtab.digest import digest_bytes
from trimtab.errors import InvalidInputError
from trimtab.server.workspace import Caller

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.get("")
def datasets(workspace: Caller) -> list[dict[str, Any]]:
    """All datasets, by name."""
    return [msgspec.to_builtins(dataset) for dataset in Datasets(workspace).list()]


@router.get("/{name}")
def dataset(name: str, workspace: Caller) -> dict[str, Any]:
    """One dataset."""
    found: dict[str, Any] = msgspec.to_builtins(Datasets(workspace).get(name))
    return found


@router.get("/{name}/versions")
def versions(name: str, workspace: Caller) -> list[dict[str, Any]]:
    """Its versions, oldest first."""
    return [msgspec.to_builtins(version) for version in Datasets(workspace).versions(name)]


@router.post("/{name}/rows", status_code=201)
async def append_rows(
    name: str,
    request: Request,
    workspace: Caller,
    key: Annotated[str | None, Query(description="names this append, so that it can be repeated")] = None,
    on_violation: Literal["refuse", "quarantine"] = "refuse",
    content_type: Annotated[str, Header()] = "application/json",
) -> dict[str, Any]:
    """Append rows as a new version: JSON (a list of objects), newline-delimited JSON, CSV, Parquet or Arrow.

    Without `key`, the same bytes sent twice are appended once.
    """
    form = BY_CONTENT_TYPE.get(content_type.partition(";")[0].strip().lower())
    if form is None:
        raise InvalidInputError(
            f"Rows cannot be sent as '{content_type}'.", hint=f"Send {', '.join(sorted(BY_CONTENT_TYPE))}."
        )
    body = await request.body()

    def append() -> dict[str, Any]:
        version = Datasets(workspace).append(
            name,
            read_rows(body, form, Datasets(workspace).types(name)),
            key=key or digest_bytes(body),
            on_violation=on_violation,
        )
        appended: dict[str, Any] = msgspec.to_builtins(version)
        return appended

    return await run_in_threadpool(append)
