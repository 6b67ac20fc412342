"""The sources that MLflow's client names when it registers a model."""

from __future__ import annotations

import re
from pathlib import Path

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.models.mlflow_plugin.addresses import SCHEME, Place, place_of, place_on_a_server
from trimtab.models.registry import Registry

_MODEL_ID = re.compile(r"models:/+(m-[0-9a-f]{32})/*")
_VERSION = re.compile(r"models:/+(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w-]+))/*")
_RUN = re.compile(r"runs:/+(?P<run>[0-9a-f]{32})/(?P<path>.+)", re.DOTALL)


def place_of_source(registry: Registry, project: Path, source: str) -> Place | None:
    """Where in this workspace the files of a source are, or None for one that lies elsewhere. Raises
    NotFoundError for a version that is not there."""
    if match := _MODEL_ID.fullmatch(source):
        return Place("logged-models", match[1])
    if match := _RUN.fullmatch(source):
        return Place("runs", match["run"], match["path"].strip("/"))
    if match := _VERSION.fullmatch(source):
        return Place("trees", _version_digest(registry, match))
    if source.startswith(f"{SCHEME}:"):
        there, place = place_of(source)
        return place if there.resolve() == project.resolve() else None
    return place_on_a_server(source)


def logged_model_in(source: str) -> str | None:
    """The id of the logged model that a source names, or None."""
    if match := _MODEL_ID.fullmatch(source):
        return match[1]
    place = place_on_a_server(source)
    if source.startswith(f"{SCHEME}:"):
        try:
            place = place_of(source)[1]
        except InvalidInputError:
            return None
    return place.owner if place is not None and place.kind == "logged-models" else None


def _version_digest(registry: Registry, match: re.Match[str]) -> str:
    name = match["name"]
    if match["version"] is not None:
        return registry.get_version(name, int(match["version"])).digest
    number = registry.model(name).aliases.get(match["alias"])
    if number is None:
        raise NotFoundError(f"The model '{name}' has no alias '{match['alias']}'.")
    return registry.get_version(name, number).digest
