"""The sources that MLflow's clients name when they register a model, and where in this workspace they are."""

from __future__ import annotations

import re
from pathlib import Path

from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.models.addresses import SCHEME, Place, place_of, place_on_a_server
from trimtab.models.registry import Registry
from trimtab.models.versions import ModelVersion

_MODEL_ID = re.compile(r"models:/+(m-[0-9a-f]{32})/*")
_VERSION = re.compile(r"models:/+(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w-]+))/*")
_RUN = re.compile(r"runs:/+(?P<run>[0-9a-f]{32})(?:/(?P<path>.*))?", re.DOTALL)
_LONGEST_NUMBER = 9


def place_of_source(registry: Registry, project: Path, source: str) -> Place | None:
    """Where in this workspace the files of a source are, or None for one that lies elsewhere.

    Whether a run or a logged model is there is not asked. Raises NotFoundError for a version that is not
    there.
    """
    if match := _MODEL_ID.fullmatch(source):
        return Place("logged-models", match[1])
    if match := _RUN.fullmatch(source):
        return Place("runs", match["run"], (match["path"] or "").strip("/"))
    if (version := version_in(registry, source)) is not None:
        return Place("trees", version.digest)
    if source.startswith(f"{SCHEME}:"):
        try:
            there, place = place_of(source)
        except InvalidInputError:  # whatever it is, it is no place of ours
            return None
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


def version_in(registry: Registry, source: str) -> ModelVersion | None:
    """The version that a source names; None for another source. Raises NotFoundError if it is not there."""
    match = _VERSION.fullmatch(source)
    return None if match is None or _MODEL_ID.fullmatch(source) else _version(registry, match)


def _version(registry: Registry, match: re.Match[str]) -> ModelVersion:
    name, number = match["name"], match["version"]
    if number is None:
        return registry.alias(name, match["alias"])
    if len(number) > _LONGEST_NUMBER:
        raise NotFoundError(f"The model '{name}' has no version {number:.30}.")
    return registry.get_version(name, int(number))
