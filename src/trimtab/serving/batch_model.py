"""Which model batch inference asks: an endpoint's, a registered version, what a run logged, or a folder."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from trimtab.digest import digest_bytes, digest_file, digest_json
from trimtab.errors import ConflictError, InvalidInputError, NotFoundError, RefusedError
from trimtab.models.confined.confinement import NOTHING, Confinement
from trimtab.models.confined.predictor import check_servable, load_servable
from trimtab.models.contents import address_of, is_address, tree_at
from trimtab.models.registry import Registry
from trimtab.models.signature import Signature
from trimtab.models.sources import place_of_source, version_in
from trimtab.models.specification import MLMODEL_FILE, SPECIFICATION_FILE, read_specification
from trimtab.serving.endpoints import Endpoints
from trimtab.workspace import Workspace

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:.*", re.DOTALL)
_FORMS = "MODEL is a folder in MLmodel format, models:/NAME/VERSION, models:/NAME@ALIAS or runs:/ID/PATH."


class ChosenModel(msgspec.Struct, frozen=True):
    """A model's files on this machine. `digest` is of what decides its answers, the same wherever it lies.
    `model` is its name, by which `confinement` allows it a process of its own; `version` is that of the
    registry, None for a model that is not in it."""

    title: str
    folder: Path
    digest: str
    signature: Signature
    model: str
    version: int | None = None
    confinement: Confinement = NOTHING


def model_of_endpoint(workspace: Workspace, endpoint: str, version: int | None = None) -> ChosenModel:
    """The version that answers at an endpoint (the primary of its route), or another of its model.

    Raises NotFoundError, ConflictError for an endpoint without a route, and what `model_at` does.
    """
    standing = Endpoints(workspace).get(endpoint)
    route = Endpoints(workspace).route(endpoint)
    if version is not None:
        found = Registry(workspace).get_version(standing.model, version)
        number, digest = found.version, found.digest
    elif route is None:
        raise ConflictError(
            f"No version answers at the endpoint '{endpoint}' yet.",
            hint=f"Put one there (trimtab endpoint deploy {endpoint} ...), or name one with --version.",
        )
    else:
        number, digest = route.primary.version, route.primary.digest
    title = f"version {number} of '{standing.model}' (endpoint '{endpoint}')"
    return _chosen(workspace, title, _fetched(workspace, digest, title), standing.model, number)


def model_at(workspace: Workspace | None, model: str) -> ChosenModel:
    """The model at an address, or in a folder. Raises NotFoundError, InvalidInputError for another address,
    ModelCorruptError, RefusedError for a model that no gateway serves."""
    if _ADDRESS.fullmatch(model) is None:
        folder = Path(model)
        if not folder.is_dir():
            raise NotFoundError(f"There is no folder '{folder}'.", hint=_FORMS)
        return _chosen(workspace, f"the model in '{folder}'", folder, folder.resolve().name)
    if workspace is None:
        raise NotFoundError(
            f"There is no project to find '{model}' in.", hint="Name the folder of one with --dir."
        )
    registry = Registry(workspace)
    found = version_in(registry, model)
    if found is not None:
        title = f"version {found.version} of '{found.model}'"
        return _chosen(workspace, title, _fetched(workspace, found.digest, title), found.model, found.version)
    place = place_of_source(registry, workspace.project, model)
    if place is None:
        raise InvalidInputError(f"'{model}' is no address of a model in this project.", hint=_FORMS)
    digest = tree_at(workspace, place)
    if digest is None:
        raise NotFoundError(f"There are no files at '{model}'.", hint=_FORMS)
    title = f"the model at '{model}'"
    return _chosen(workspace, title, _fetched(workspace, digest, title), model.rstrip("/").rpartition("/")[2])


def _fetched(workspace: Workspace, digest: str, title: str) -> Path:
    """Where this machine's gateways keep it as well."""
    if is_address(workspace, digest):
        raise RefusedError(
            f"The files of {title} are elsewhere, at {address_of(workspace, digest)}.",
            hint="Fetch them, and name their folder.",
        )
    folder = workspace.cache / "models" / digest.replace(":", "-")
    workspace.blobs.fetch_tree(digest, folder)
    return folder


def _chosen(
    workspace: Workspace | None, title: str, folder: Path, model: str, version: int | None = None
) -> ChosenModel:
    confinement = NOTHING if workspace is None else Confinement.of(workspace.settings)
    if (folder / SPECIFICATION_FILE).exists() or not (folder / MLMODEL_FILE).is_file():
        specification = read_specification(folder)
        check_servable(folder, model=model, confinement=confinement)
        signature = specification.signature
        digest = digest_bytes(specification.to_json())  # which has the digest of the model's file
    else:
        with load_servable(folder, model=model, confinement=confinement) as predictor:
            signature = predictor.signature
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        digest = digest_json({str(path.relative_to(folder)): digest_file(path) for path in files})
    return ChosenModel(
        title=title,
        folder=folder.resolve(),
        digest=digest,
        signature=signature,
        model=model,
        version=version,
        confinement=confinement,
    )
