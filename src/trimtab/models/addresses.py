"""Where artifacts are, as MLflow's clients pass it around: addresses with the scheme `trimtab:`, and those of
Trimtab's own MLflow server.

    trimtab:///srv/bikes                                      a workspace, by its project folder
    trimtab:                                                  that of the current folder
    trimtab:///srv/bikes/.trimtab/runs/RUN_ID/artifacts/a/b       artifacts of a run
    trimtab:///srv/bikes/.trimtab/logged-models/MODEL_ID/artifacts
    trimtab:///srv/bikes/.trimtab/trees/DIGEST                the content of a model version
    mlflow-artifacts:/EXPERIMENT/RUN_ID/artifacts/a/b             the same on a server
    mlflow-artifacts:/EXPERIMENT/models/MODEL_ID/artifacts
    mlflow-artifacts:/trees/HEXADECIMAL

The project's part is percent-encoded. What follows a run or a model is a path as it is: MLflow appends paths
without encoding them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

import msgspec

from trimtab.config import STATE_FOLDER
from trimtab.digest import PREFIX
from trimtab.errors import InvalidInputError

SCHEME = "trimtab"

Kind = Literal["runs", "logged-models", "trees", "experiments"]

_PLACE = re.compile(
    rf"(?P<project>.*?)/{re.escape(STATE_FOLDER)}/"
    r"(?:(?P<kind>runs|logged-models)/(?P<owner>[\w-]+)/artifacts|(?P<tree>trees)/(?P<digest>b3:[0-9a-f]{64}))"
    r"(?:/(?P<path>.*))?",
    re.DOTALL,
)
_ON_A_SERVER = re.compile(
    r"mlflow-artifacts:/+"
    r"(?:\d+/(?P<kind>models/)?(?P<owner>[\w-]+)/artifacts|trees/(?P<tree>[0-9a-f]{64}))(?:/(?P<path>.*))?",
    re.DOTALL,
)


class Place(msgspec.Struct, frozen=True):
    """Where artifacts are: `owner` is a run's id, a logged model's, or a tree's digest; `path` below it, ""
    for all."""

    kind: Kind
    owner: str
    path: str = ""


def project_of(uri: str) -> Path:
    """The project folder of a workspace's address; raises InvalidInputError."""
    return _folder(_without_scheme(uri), uri)


def address_of(project: Path) -> str:
    """The address of a workspace."""
    return f"{SCHEME}://{quote(str(project.absolute()))}"


def artifacts_address(project: Path, kind: Kind, owner: str) -> str:
    """The address of what a run, a logged model, a tree or an experiment holds."""
    end = "/artifacts" if kind in {"runs", "logged-models"} else ""
    return f"{address_of(project)}/{STATE_FOLDER}/{kind}/{owner}{end}"


def place_of(uri: str) -> tuple[Path, Place]:
    """The project folder and the place that an artifacts' address names; raises InvalidInputError."""
    match = _PLACE.fullmatch(_without_scheme(uri))
    if match is None:
        raise InvalidInputError(
            f"'{uri:.300}' is no address of artifacts.",
            hint="Use that of a run, a logged model or a model version.",
        )
    kind: Kind = "trees" if match["tree"] else "runs" if match["kind"] == "runs" else "logged-models"
    owner = match["digest"] or match["owner"]
    return _folder(match["project"], uri), Place(kind, owner, (match["path"] or "").strip("/"))


def place_on_a_server(uri: str) -> Place | None:
    """The place that an address of Trimtab's own MLflow server names, or None for another address."""
    match = _ON_A_SERVER.fullmatch(uri)
    if match is None:
        return None
    path = (match["path"] or "").strip("/")
    if match["tree"]:
        return Place("trees", PREFIX + match["tree"], path)
    return Place("logged-models" if match["kind"] else "runs", match["owner"], path)


def tree_on_a_server(digest: str) -> str:
    """The address of a tree on Trimtab's own MLflow server."""
    return f"mlflow-artifacts:/trees/{digest.removeprefix(PREFIX)}"


def _without_scheme(uri: str) -> str:
    scheme, colon, rest = uri.partition(":")
    if scheme != SCHEME or not colon:
        raise InvalidInputError(f"'{uri:.300}' is no address of a Trimtab workspace.", hint=_HINT)
    return rest.removeprefix("//")


def _folder(text: str, uri: str) -> Path:
    folder = Path(unquote(text.rstrip("/")) or ("/" if text else "."))
    if text and not folder.is_absolute():
        raise InvalidInputError(f"'{uri:.300}' names no absolute folder.", hint=_HINT)
    return folder.absolute()


_HINT = "Use trimtab:///absolute/path/of/project, or trimtab: for the current folder."
