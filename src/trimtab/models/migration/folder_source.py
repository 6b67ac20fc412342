"""An `mlruns` folder: MLflow's file store, read as files, since new MLflow versions refuse to open it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from trimtab.errors import InvalidInputError
from trimtab.models.migration.artifact_places import ArtifactPlaces, local_folder
from trimtab.models.migration.entities import (
    PROMPT_TAG,
    Owner,
    SourceExperiment,
    SourceLoggedModel,
    SourcePoints,
    SourceRegisteredModel,
    SourceRun,
    SourceVersion,
)
from trimtab.models.migration.source import Found
from trimtab.tracking.inputs import ModelUse, RunDataset
from trimtab.tracking.logged_models import ModelMetric, Status

META = "meta.yaml"
MODELS = "models"
TRASH = ".trash"
RUNS_AT_ONCE = 200

_RESERVED = {"tags", "datasets", "traces", MODELS}
_RUN_STATUSES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_MODEL_STATUSES: dict[object, Status] = {
    1: "PENDING", 2: "READY", 3: "FAILED", "PENDING": "PENDING", "READY": "READY", "FAILED": "FAILED",
}  # fmt: skip
_CORRECT = "Correct it and import again."
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class FolderSource:
    """See `trimtab.models.migration.source.Source`."""

    def __init__(self, folder: Path, proxied: str | None = None) -> None:
        self.address = str(folder.absolute())
        self.damaged: list[str] = []
        self._folder = folder
        self._places = ArtifactPlaces(folder.absolute().parent, proxied)
        self._experiments = {
            str(meta["experiment_id"]): (place, meta)
            for parent in (folder, folder / TRASH)
            for place in _folders(parent)
            if place.name != MODELS
            if (meta := _meta(place)) and "experiment_id" in meta
        }

    def experiments(self) -> list[SourceExperiment]:
        """See `Source.experiments`."""
        return [
            SourceExperiment(
                id=id,
                name=str(meta["name"]),
                lifecycle=_lifecycle(meta),
                created_at=_time(meta.get("creation_time")),
                updated_at=_time(meta.get("last_update_time") or meta.get("creation_time")),
                tags=_texts(place / "tags"),
            )
            for id, (place, meta) in sorted(self._experiments.items(), key=lambda item: int(item[0]))
        ]

    def runs(self, experiment: str) -> Iterator[list[SourceRun]]:
        """See `Source.runs`: the earliest started first."""
        folder = self._experiments[experiment][0]
        started = []
        for place in _folders(folder):
            try:
                if place.name not in _RESERVED and (meta := _meta(place)):
                    started.append((_time(meta.get("start_time")), place.name))
            except InvalidInputError as error:
                self.damaged.append(error.message)
        started.sort()
        for start in range(0, len(started), RUNS_AT_ONCE):
            yield list(self._readable(folder, [name for _, name in started[start : start + RUNS_AT_ONCE]]))

    def points(self, run: SourceRun) -> Iterator[SourcePoints]:
        """See `Source.points`."""
        folder = self._experiments[run.experiment][0] / run.id / "metrics"
        for key, file in _files(folder):
            steps, times, values = [], [], []
            with _damage_told(file):
                for line in _text(file).splitlines():
                    time, value, *rest = line.split()
                    times.append(int(time))
                    values.append(float(value))
                    steps.append(int(rest[0]) if rest else 0)
            if steps:
                yield SourcePoints(key, steps, times, values)

    def logged_models(self, experiment: str) -> Iterator[SourceLoggedModel]:
        """See `Source.logged_models`."""
        for place in _folders(self._experiments[experiment][0] / MODELS):
            try:
                with _damage_told(place / META):
                    meta = _meta(place)
                    found = None if meta is None else _logged_model(experiment, place, meta)
            except InvalidInputError as error:
                self.damaged.append(error.message)
                continue
            if found is not None:
                yield found

    def registered_models(self) -> Iterator[SourceRegisteredModel]:
        """See `Source.registered_models`."""
        for place, meta in self._registered():
            tags = _texts(place / "tags")
            if tags.get(PROMPT_TAG, "").lower() == "true":
                continue
            versions = sorted(self._versions(place), key=lambda each: each.version)
            yield SourceRegisteredModel(
                name=str(meta["name"]),
                description=meta.get("description") or "",
                created_at=_time(meta.get("creation_timestamp")),
                updated_at=_time(meta.get("last_updated_timestamp")),
                tags=tags,
                aliases={alias: int(version) for alias, version in _texts(place / "aliases").items()},
                versions=tuple(versions),
                next_version=max((each.version for each in versions), default=0) + 1,
            )

    def root_of(self, kind: Owner, id: str) -> str | None:
        """See `Source.root_of`."""
        for folder, _ in self._experiments.values():
            place = folder / id if kind == "runs" else folder / MODELS / id
            if (place / META).exists():
                meta = _meta(place) or {}
                return str(meta.get("artifact_uri") or meta.get("artifact_location") or place / "artifacts")
        return None

    def files_of_run(self, run: SourceRun) -> Found:
        """See `Source.files_of_run`."""
        return self._files_in(self._experiments[run.experiment][0] / run.id, run.artifacts)

    def files_of_model(self, model: SourceLoggedModel) -> Found:
        """See `Source.files_of_model`."""
        return self._files_in(self._experiments[model.experiment][0] / MODELS / model.id, model.artifacts)

    def files_at(self, address: str) -> Found:
        """See `Source.files_at`."""
        return self._places.files_at(address) if address else iter(())

    def left_out(self) -> dict[str, int]:
        """See `Source.left_out`."""
        traces = sum(len(list(_folders(folder / "traces"))) for folder, _ in self._experiments.values())
        prompts = [1 for place, _ in self._registered() if _texts(place / "tags").get(PROMPT_TAG) == "true"]
        found = {"traces": traces, "prompts": len(prompts)}
        return {kind: count for kind, count in found.items() if count}

    def close(self) -> None:
        """See `Source.close`."""

    def _readable(self, folder: Path, names: list[str]) -> Iterator[SourceRun]:
        for name in names:
            try:
                with _damage_told(folder / name / META):
                    run = self._run(folder, name)
                yield run
            except InvalidInputError as error:
                self.damaged.append(error.message)

    def _run(self, folder: Path, id: str) -> SourceRun:
        place = folder / id
        meta = _meta(place) or {}
        tags = _texts(place / "tags")
        status = meta.get("status", 1)
        return SourceRun(
            id=str(meta.get("run_id") or meta.get("run_uuid") or id),
            experiment=str(meta["experiment_id"]),
            name=meta.get("run_name") or meta.get("name") or tags.get("mlflow.runName", ""),
            status=_RUN_STATUSES.get(status, str(status)),
            lifecycle=_lifecycle(meta),
            user=str(meta.get("user_id") or ""),
            started_at=_time(meta.get("start_time")),
            ended_at=None if meta.get("end_time") is None else _time(meta["end_time"]),
            deleted_at=None if meta.get("deleted_time") is None else _time(meta["deleted_time"]),
            artifacts=meta.get("artifact_uri") or "",
            params=_texts(place / "params"),
            tags=tags,
            datasets=tuple(_datasets(folder, place)),
            models=tuple(_models(place)),
        )

    def _files_in(self, owner: Path, address: str) -> Found:
        """The files of a run or a model. Those beside its record come first: the folder may have been moved
        since its addresses were written."""
        inside = owner / "artifacts"
        local = local_folder(address, self._folder.absolute().parent)
        if inside.is_dir() and (any(inside.iterdir()) or (local is not None and not local.is_dir())):
            return self._places.files_at(str(inside.absolute()))
        return self.files_at(address)

    def _registered(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        for place in _folders(self._folder / MODELS):
            if (meta := _meta(place)) and "name" in meta:
                yield place, meta

    def _versions(self, model: Path) -> Iterator[SourceVersion]:
        for place in _folders(model):
            meta = _meta(place)
            if not place.name.startswith("version-") or not meta:
                continue
            if meta.get("current_stage") == "Deleted_Internal":
                continue
            yield SourceVersion(
                version=int(meta["version"]),
                created_at=_time(meta.get("creation_timestamp")),
                description=meta.get("description") or "",
                user=str(meta.get("user_id") or ""),
                stage=meta.get("current_stage") or "None",
                source=meta.get("source") or "",
                content=meta.get("storage_location") or meta.get("source") or "",
                run=meta.get("run_id") or None,
                tags=_texts(place / "tags"),
            )


@contextlib.contextmanager
def _damage_told(file: Path) -> Iterator[None]:
    """Fields that are missing, or are something else than they should be, in words."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{file} is damaged: {error!r:.200}.", hint=_CORRECT) from None


def _logged_model(experiment: str, place: Path, meta: Mapping[str, Any]) -> SourceLoggedModel:
    return SourceLoggedModel(
        id=meta["model_id"],
        experiment=experiment,
        name=str(meta["name"]),
        type=meta.get("model_type") or "",
        status=_MODEL_STATUSES.get(meta.get("status"), "PENDING"),
        lifecycle=_lifecycle(meta),
        run=meta.get("source_run_id") or None,
        created_at=_time(meta.get("creation_timestamp")),
        updated_at=_time(meta.get("last_updated_timestamp")),
        artifacts=meta.get("artifact_location") or "",
        params=_texts(place / "params"),
        tags=_texts(place / "tags"),
        metrics=tuple(_model_metrics(meta["model_id"], place / "metrics")),
    )


def _datasets(experiment: Path, run: Path) -> Iterator[RunDataset]:
    for place in _folders(run / "inputs"):
        used = _meta(place)
        if not used or used.get("source_type") != "DATASET":
            continue
        meta = _meta(experiment / "datasets" / str(used["source_id"]))
        if meta:
            yield RunDataset(
                name=str(meta["name"]),
                digest=str(meta["digest"]),
                source_type=meta["source_type"],
                source=meta["source"],
                schema=meta.get("schema"),
                profile=meta.get("profile"),
                tags={str(key): str(value) for key, value in (used.get("tags") or {}).items()},
            )


def _models(run: Path) -> Iterator[ModelUse]:
    for place in _folders(run / "inputs"):
        used = _meta(place)
        if used and used.get("source_type") == "MODEL":
            yield ModelUse(str(used["source_id"]), "in")
    for place in _folders(run / "outputs"):
        made = _meta(place)
        if made:
            yield ModelUse(str(made["source_id"]), "out", int(made.get("step") or 0))


def _model_metrics(model: str, folder: Path) -> Iterator[ModelMetric]:
    for key, file in _files(folder):
        for line in file.read_text().splitlines():
            time, value, step, run, *dataset = line.split()
            yield ModelMetric(
                model=model,
                run=run,
                key=key,
                value=float(value),
                step=int(step),
                at=int(time) * 1000,
                dataset=" ".join(dataset[:-1]),
                dataset_digest=dataset[-1] if dataset else "",
            )


def _folders(parent: Path) -> Iterator[Path]:
    if parent.is_dir():
        yield from sorted(place for place in parent.iterdir() if place.is_dir() and place.name != TRASH)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """All files below a folder, by what their path is called: the key of what they hold."""
    if folder.is_dir():
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                yield file.relative_to(folder).as_posix(), file


def _texts(folder: Path) -> dict[str, str]:
    return {key: _text(file) for key, file in _files(folder)}


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{file} is not text in UTF-8.", hint=_CORRECT) from None


def _meta(folder: Path) -> dict[str, Any] | None:
    """What the record in a folder says, or None if there is none."""
    file = folder / META
    if not file.is_file():
        return None
    try:
        found = yaml.load(_text(file), Loader=_LOADER)  # noqa: S506  (both loaders are the safe one)
    except yaml.YAMLError as error:
        raise InvalidInputError(f"{file} is damaged: {error}.", hint=_CORRECT) from None
    if not isinstance(found, dict):
        raise InvalidInputError(f"{file} is damaged: it is empty.", hint=_CORRECT)
    return found


def _time(value: object) -> int:
    return int(value) if isinstance(value, int | float | str) and value != "" else 0


def _lifecycle(meta: Mapping[str, Any]) -> Literal["active", "deleted"]:
    return "deleted" if meta.get("lifecycle_stage") == "deleted" else "active"
