"""One model behind an endpoint at once, wherever it lies: what `trimtab serve` does before it serves."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trimtab.config import FILE_NAME
from trimtab.errors import InvalidInputError, NotFoundError, RefusedError
from trimtab.loop.deployment import Deployments
from trimtab.models.confined.confinement import Confinement
from trimtab.models.contents import address_of, is_address, tree_at
from trimtab.models.registry import Registry
from trimtab.models.runtimes.runtime import may_run_code
from trimtab.models.signature import Signature
from trimtab.models.sources import place_of_source, version_in
from trimtab.models.specification import SPECIFICATION_FILE, read_example, read_specification
from trimtab.models.versions import ModelVersion, VersionRecord
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace

if TYPE_CHECKING:
    from trimtab.models.encoding import Columns
    from trimtab.models.runtimes.predictor import Predictor

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:.*", re.DOTALL)
_FORMS = "MODEL is a folder in MLmodel format, models:/NAME/VERSION, models:/NAME@ALIAS or runs:/ID/PATH."


class Standing(msgspec.Struct, frozen=True):
    """A model that stands behind an endpoint, and the first row of its own example."""

    endpoint: str
    model: str
    version: int
    row: dict[str, Any]


def is_model_address(model: str) -> bool:
    """Whether a MODEL is an address and not a folder."""
    return _ADDRESS.fullmatch(model) is not None


def project_for(model: str, folder: Path | None) -> Path | None:
    """The project folder in which a MODEL is served: `folder`, or else the current one if it is a project;
    None for the folder of a model where there is neither. Raises NotFoundError where there is no project to
    look an address up in."""
    if folder is None and (Path() / FILE_NAME).exists():
        return Path()
    if is_model_address(model) and (folder is None or not (folder / FILE_NAME).exists()):
        raise NotFoundError(
            f"There is no Trimtab project in {folder or Path().resolve()} (no {FILE_NAME}).",
            hint=f"Name the folder of the one to look '{model}' up in with --dir.",
        )
    return folder


def open_project(folder: Path | None) -> Workspace:
    """The workspace of a project folder; made if there is none. None stands for a new folder among the
    temporary files."""
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="trimtab-serve-"))
    return Workspace.open(folder) if (folder / FILE_NAME).exists() else Workspace.create(folder)


def check_folder(folder: Path, name: str | None, confinement: Confinement) -> None:
    """Raise the reason if a folder holds no model that a gateway serves under a name: NotFoundError,
    ModelCorruptError, RefusedError."""
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder '{folder}'.", hint=_FORMS)
    if not (folder / SPECIFICATION_FILE).exists() or may_run_code(read_specification(folder).runtime):
        from trimtab.models.confined.predictor import check_servable  # noqa: PLC0415  (0.2 s, and few need it)

        check_servable(folder, model=name or endpoint_name(str(folder)), confinement=confinement)


def stand(workspace: Workspace, model: str, name: str | None) -> Standing:
    """Put a MODEL behind the endpoint `name`; by default that is called as the model is.

    A folder, or what a run logged, becomes a version of a registered model called as the endpoint, unless its
    newest version has that very content. Raises NotFoundError, RefusedError for a model that no gateway
    serves, whose gates forbid it, or for the endpoint of a loop, ModelCorruptError.
    """
    registry, deployments = Registry(workspace), Deployments(workspace)
    found = _version(registry, model)
    digest = _digest(workspace, registry, model) if found is None else found.digest
    if is_address(workspace, digest):
        raise RefusedError(
            f"The files of '{model}' are elsewhere, at {address_of(workspace, digest)}.",
            hint="Fetch them, and serve their folder.",
        )
    named = endpoint_name(model) if found is None else found.model
    endpoint = name or endpoint_name(named)
    signature, row = _described(workspace, digest, endpoint if found is None else found.model)

    def work(tx: Transaction) -> ModelVersion:
        version = found or _registered(registry, tx, endpoint, digest, model, signature)
        deployments.deploy(tx, endpoint, version.model, version.version, reason="trimtab serve")
        return version

    version = workspace.write(work)
    return Standing(endpoint, version.model, version.version, row)


def loaded(workspace: Workspace, digest: str, model: str) -> Predictor:
    """The model of that name and content, loaded as this machine's gateways load it, from where they look for
    it first. Raises RefusedError for one that they do not serve, ModelCorruptError, UnavailableError."""
    from trimtab.models.confined.predictor import load_servable  # noqa: PLC0415  (0.2 s, and `stand` waits)

    folder = _fetched(workspace, digest)
    return load_servable(folder, model=model, confinement=Confinement.of(workspace.settings))


def _described(workspace: Workspace, digest: str, model: str) -> tuple[Signature, dict[str, Any]]:
    """What a model takes, and the first row of its example. One that Trimtab packaged need not be loaded for
    that."""
    folder = _fetched(workspace, digest)
    if (folder / SPECIFICATION_FILE).exists():
        signature = read_specification(folder).signature
        return signature, _first_row(signature, read_example(folder))
    with loaded(workspace, digest, model) as predictor:
        return predictor.signature, _first_row(predictor.signature, predictor.example)


def _first_row(signature: Signature, example: Columns) -> dict[str, Any]:
    return {name: example[name][0] for name in signature.names if name in example}


def _fetched(workspace: Workspace, digest: str) -> Path:
    folder = workspace.cache / "models" / digest.replace(":", "-")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        workspace.blobs.fetch_tree(digest, folder)
    return folder


def endpoint_name(model: str) -> str:
    """A name for an endpoint, after a model's name, its folder, or the last part of its address."""
    last = model.rstrip("/").rpartition("/")[2] if is_model_address(model) else Path(model).resolve().name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:128]
    return name or "model"


def _version(registry: Registry, model: str) -> ModelVersion | None:
    if not is_model_address(model):
        return None
    return version_in(registry, model)


def _digest(workspace: Workspace, registry: Registry, model: str) -> str:
    if not is_model_address(model):
        return workspace.blobs.put_tree(Path(model))
    place = place_of_source(registry, workspace.project, model)
    if place is None:
        raise InvalidInputError(f"'{model}' is no address of a model in this project.", hint=_FORMS)
    digest = tree_at(workspace, place)
    if digest is None:
        raise NotFoundError(f"There are no files at '{model}'.", hint=_FORMS)
    return digest


def _registered(
    registry: Registry, tx: Transaction, name: str, digest: str, source: str, signature: Signature
) -> ModelVersion:
    registry.create_model(tx, name, exist_ok=True)
    newest = next(iter(registry.versions(name, tx=tx)), None)
    if newest is not None and newest.digest == digest:
        return newest
    if not is_model_address(source):
        source = str(Path(source).resolve())
    return registry.register(tx, name, digest, source=source, record=VersionRecord(signature=signature))
