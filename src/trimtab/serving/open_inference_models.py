"""What the Open Inference Protocol tells about the gateway and its models, over REST and gRPC alike.

A model there is an endpoint here. Which models are loaded is decided by routes, so the repository extension
lists what there is and can have a failed endpoint tried again; it takes nothing away.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import version as package_version
from typing import Any

import msgspec

from trimtab.errors import InvalidInputError, RefusedError, UnavailableError, unknown
from trimtab.serving.access import Access
from trimtab.serving.loaded_endpoints import EndpointTable, LoadedEndpoint
from trimtab.serving.open_inference_tensors import datatype_of
from trimtab.serving.questions import OUTPUT
from trimtab.serving.state import State, View

OUTPUT_DATATYPE = "FP64"

EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "parameters")


class ServerMetadata(msgspec.Struct, frozen=True):
    """The server, and the extensions of the protocol that it serves."""

    name: str
    version: str
    extensions: tuple[str, ...] = EXTENSIONS


class TensorMetadata(msgspec.Struct, frozen=True):
    """A tensor that a model takes or gives; -1 stands for the number of rows."""

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1,)


class ModelMetadata(msgspec.Struct, frozen=True):
    """A model: the versions on its route, what it runs on, its tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class IndexEntry(msgspec.Struct, frozen=True):
    """A version in the repository index; `reason` says why it, or a newer route, cannot be served."""

    name: str
    version: str
    state: str
    reason: str


@functools.cache
def server_metadata() -> ServerMetadata:
    """This gateway."""
    return ServerMetadata("trimtab", package_version("trimtab"))


def model_metadata(endpoint: LoadedEndpoint, version: str | None) -> ModelMetadata:
    """An endpoint's metadata, by the signature of `version`; raises NotFoundError."""
    predictor = endpoint.predictors[endpoint.place_of(version)]
    return ModelMetadata(
        name=endpoint.name,
        versions=[str(number) for number in endpoint.versions],
        platform=f"trimtab_{predictor.specification.runtime}",
        inputs=[TensorMetadata(column.name, datatype_of(column)) for column in predictor.signature.columns],
        outputs=[TensorMetadata(OUTPUT, OUTPUT_DATATYPE)],
    )


def model_configuration(endpoint: LoadedEndpoint, version: str | None) -> dict[str, Any]:
    """The same in the words of Triton's model configuration, as far as they mean something here."""
    found = model_metadata(endpoint, version)
    return {
        "name": found.name,
        "platform": found.platform,
        "backend": "trimtab",
        "version_policy": {"specific": {"versions": list(endpoint.versions)}},
        "max_batch_size": 0,
        "input": [_configured(tensor) for tensor in found.inputs],
        "output": [_configured(tensor) for tensor in found.outputs],
    }


def _configured(tensor: TensorMetadata) -> dict[str, Any]:
    name = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    return {"name": tensor.name, "data_type": f"TYPE_{name}", "dims": list(tensor.shape)}


def repository_index(table: EndpointTable, *, ready: bool = False) -> list[IndexEntry]:
    """All versions on all routes by name; only those that can be asked, if `ready`."""
    entries = [
        IndexEntry(name, str(version), "READY", table.failures.get(name, ""))
        for name, endpoint in table.endpoints.items()
        for version in endpoint.versions
    ]
    if not ready:
        entries += [
            IndexEntry(name, "", "UNAVAILABLE", reason)
            for name, reason in table.failures.items()
            if name not in table.endpoints
        ]
    return sorted(entries, key=lambda entry: entry.name)


async def load(
    state: State, view: View, name: str, parameters: Mapping[str, Any], authorization: str | None
) -> None:
    """Have the endpoint's route looked up and what failed of it fetched again, in this worker.

    Raises UnauthorizedError without a token where there are any, InvalidInputError for a configuration of
    the caller's own, NotFoundError, UnavailableError while a route of it cannot be served.
    """
    _authorize(view, authorization)
    if parameters:
        raise InvalidInputError(
            "A model cannot be loaded with a configuration or files of the request's.",
            hint="Register a version, and put it behind the endpoint.",
        )
    table = (await state.fresh_view()).table
    if reason := table.failures.get(name):
        raise UnavailableError(f"The endpoint '{name}' cannot be loaded: {reason}")
    table.get(name)


def refuse_unload(view: View, name: str, authorization: str | None) -> RefusedError:
    """Why a model is not unloaded. Raises UnauthorizedError, NotFoundError."""
    _authorize(view, authorization)
    if name not in view.table.endpoints and name not in view.table.failures:
        raise unknown("endpoint", name, {*view.table.endpoints, *view.table.failures})
    return RefusedError(
        f"The endpoint '{name}' is not unloaded: its route decides which models are loaded.",
        hint="Change the route, as `trimtab` does when a rollout ends or a version is rolled back.",
    )


def _authorize(view: View, authorization: str | None) -> None:
    if view.access.hashes:
        Access(view.access.hashes, required=True).check(authorization)
