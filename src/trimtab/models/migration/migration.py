"""An import from MLflow, from the address to the report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from trimtab.config import without_secrets
from trimtab.errors import InvalidInputError, NotFoundError, unknown
from trimtab.models.migration.artifact_places import scheme_of
from trimtab.models.migration.entities import SourceExperiment
from trimtab.models.migration.folder_source import META, FolderSource
from trimtab.models.migration.registry_copy import RegistryCopy
from trimtab.models.migration.report import Counts, ImportReport, Tell
from trimtab.models.migration.run_copy import RunCopy
from trimtab.models.migration.server_source import ServerSource
from trimtab.models.migration.source import Source
from trimtab.models.migration.sqlite_source import SqliteSource
from trimtab.models.migration.verification import Verification
from trimtab.workspace import Workspace

_SQLITE = b"SQLite format 3\0"
_DATABASE = "mlflow.db"


def import_mlflow(
    workspace: Workspace,
    address: str,
    *,
    experiments: Sequence[str] = (),
    artifacts: str | None = None,
    verify: bool = False,
    dry_run: bool = False,
    tell: Tell = lambda _, __: None,
) -> ImportReport:
    """Copy what an MLflow store holds, or the experiments of these names, into a workspace.

    `address` is a server's (http://), or the path of a SQLite file or of an `mlruns` folder; `artifacts` the
    place behind `mlflow-artifacts:/`, for a store whose server does not run. What is here already stays as it
    is, so an import that was cut off goes on when it is called again. `verify` compares source and copy
    afterwards; a dry run writes nothing.

    Raises InvalidInputError and NotFoundError for an address that is none, UnavailableError where the source
    does not answer, ConflictError where an experiment of a name was deleted here.
    """
    began = time.monotonic()
    source = open_source(address, artifacts)
    try:
        report = ImportReport(source=source.address, dry_run=dry_run, left_out=source.left_out())
        chosen = _chosen(source.experiments(), experiments)
        with workspace.database.exclusive("import"):
            _copy(workspace, source, report, chosen, tell, some=bool(experiments))
        report.problems += [f"It cannot be read: {each}" for each in source.damaged]
        copied = time.monotonic()
        if verify:
            only = _made_in(source, chosen) if experiments else None
            report.differences = Verification(workspace, source, report, tell, only).compare(chosen)
        report.seconds, report.verified_seconds = copied - began, time.monotonic() - copied
    finally:
        source.close()
    return report


def open_source(address: str, artifacts: str | None = None) -> Source:
    """The MLflow store at an address; see `import_mlflow`."""
    match scheme_of(address):
        case "http" | "https":
            return ServerSource(address, artifacts)
        case "sqlite":
            return _stored(_sqlite_path(address), artifacts)
        case "file":
            return _stored(Path(unquote(urlsplit(address).path)), artifacts)
        case "":
            return _stored(Path(address).expanduser(), artifacts)
    raise InvalidInputError(
        f"'{without_secrets(address)}' cannot be read: it is no server, SQLite file or folder.",
        hint="Over another database start a server (mlflow server --backend-store-uri ...) to import from.",
    )


def _stored(path: Path, artifacts: str | None) -> Source:
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_SQLITE)) != _SQLITE:
                raise InvalidInputError(
                    f"{path} is no SQLite database.", hint="Name MLflow's, often mlflow.db."
                )
        return SqliteSource(path, artifacts)
    if not path.is_dir():
        raise NotFoundError(
            f"There is nothing at {path}.", hint="Give a server's address, a SQLite file or a folder mlruns."
        )
    found = [place for place in _stores(path) if place.exists()]
    if len(found) > 1:
        names = " and ".join(str(place) for place in found)
        raise InvalidInputError(f"{path} holds two stores: {names}.", hint="Name one of them.")
    if not found:
        raise InvalidInputError(
            f"{path} is no folder of MLflow's: no experiment is in it.",
            hint="Name the folder mlruns, or the SQLite file (often mlflow.db).",
        )
    return FolderSource(path, artifacts) if found[0] == path else _stored(found[0], artifacts)


def _stores(folder: Path) -> Iterator[Path]:
    if _has_experiments(folder):
        yield folder
        return
    if (folder / _DATABASE).is_file():
        yield folder / _DATABASE
    if _has_experiments(folder / "mlruns"):
        yield folder / "mlruns"


def _has_experiments(folder: Path) -> bool:
    return folder.is_dir() and any(
        (place / META).is_file() and place.name.isdecimal()
        for parent in (folder, folder / ".trash")
        if parent.is_dir()
        for place in parent.iterdir()
    )


def _sqlite_path(address: str) -> Path:
    # As SQLAlchemy has it: three slashes and a relative path, four and an absolute one.
    return Path(unquote(address.partition(":")[2].removeprefix("///").partition("?")[0]) or ".")


def _chosen(found: Sequence[SourceExperiment], names: Sequence[str]) -> list[SourceExperiment]:
    known = {each.name for each in found}
    for name in names:
        if name not in known:
            raise unknown("experiment", name, known)
    return [each for each in found if not names or each.name in names]


def _copy(
    workspace: Workspace,
    source: Source,
    report: ImportReport,
    chosen: Sequence[SourceExperiment],
    tell: Tell,
    *,
    some: bool,
) -> None:
    copy = RunCopy(workspace, source, report, tell)
    for given in chosen:
        tell(given.name, report.copied)
        made = copy.experiment(given)
        copy.runs(given, made)
        copy.logged_models(given, made)
    only = _made_in(source, chosen) if some else None
    RegistryCopy(workspace, source, report, tell, only).models()
    if not report.dry_run and report.copied != Counts():
        details = {"copied": report.copied, "experiments": report.experiments}
        workspace.write(lambda tx: tx.journal("mlflow.imported", "source", source.address, details=details))


def _made_in(source: Source, chosen: Sequence[SourceExperiment]) -> set[str]:
    """The ids of all runs and logged models of these experiments."""
    found = set()
    for given in chosen:
        found |= {run.id for page in source.runs(given.id) for run in page}
        found |= {model.id for model in source.logged_models(given.id)}
    return found
