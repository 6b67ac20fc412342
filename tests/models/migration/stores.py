"""A small MLflow store with something of everything, and all that a stock client can tell of a store."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)

BIGGEST = 1.7976931348623157e308
"""What MLflow's SQL stores keep of an infinity."""

LONG = 3_000
"""Points of the longest history."""


def fill(client: MlflowClient, folder: Path) -> None:
    """Put something of everything into a store; `folder` is for files on their way."""
    prices = client.create_experiment("prices", tags={"team": "blue", "note": "größer 🚲"})
    gone = client.create_experiment("gone")
    parent = _rich_run(client, prices, folder)
    for status in ("FAILED", "KILLED"):
        child = client.create_run(
            prices,
            start_time=1_700_000_100_000,
            run_name=f"child {status}",
            tags={"mlflow.parentRunId": parent},
        )
        client.log_metric(child.info.run_id, "loss", 0.5, timestamp=1_700_000_100_500, step=0)
        client.set_terminated(child.info.run_id, status, 1_700_000_101_000)
    running = client.create_run("0", start_time=1_700_000_200_000, run_name="stray")
    client.set_tag(running.info.run_id, "stray", "yes")
    deleted = client.create_run(prices, start_time=1_700_000_300_000, run_name="deleted")
    client.log_metric(deleted.info.run_id, "loss", 9.0, timestamp=1, step=-3)
    client.log_text(deleted.info.run_id, "still here", "note.txt")
    client.set_terminated(deleted.info.run_id, "FINISHED", 1_700_000_301_000)
    client.delete_run(deleted.info.run_id)
    lost = client.create_run(gone, start_time=1_700_000_400_000, run_name="in a deleted experiment")
    client.log_param(lost.info.run_id, "depth", 3)
    client.delete_experiment(gone)
    _models(client, prices, parent, folder)


def _rich_run(client: MlflowClient, experiment: str, folder: Path) -> str:
    run = client.create_run(experiment, start_time=1_700_000_000_000, run_name="rich")
    id: str = run.info.run_id
    client.log_batch(
        id,
        metrics=[Metric("long", math.sin(step), 1_700_000_000_000 + step, step) for step in range(900)],
        params=[
            Param("depth", "6"),
            Param("text", "a 'quoted' text\nof two lines"),
            Param("long", "x" * 5_000),
        ],
        tags=[RunTag("empty", ""), RunTag("unicode", "größer 🚲"), RunTag("a/b.c d", "keys may")],
    )
    for start in range(900, LONG, 1000):
        steps = range(start, min(start + 1000, LONG))
        client.log_batch(
            id, [Metric("long", step / 7, 1_700_000_000_000 + step // 2, step) for step in steps]
        )
    odd = [(math.nan, 1), (math.inf, 2), (-math.inf, 3), (1e-300, -5), (0.1 + 0.2, 2**40), (math.nan, 2**40)]
    client.log_batch(id, [Metric("odd", value, 1_700_000_000_000, step) for value, step in odd])
    client.log_batch(id, [Metric("again", float(at % 3), 1_700_000_000_000 + at, 0) for at in range(5)])
    source = DatasetInput(
        Dataset(
            "rentals", "abc123", "local", '{"uri": "rentals.csv"}', '{"mlflow_colspec": []}', '{"rows": 3}'
        ),
        [InputTag("mlflow.data.context", "training"), InputTag("who", "ann")],
    )
    client.log_inputs(id, [source, DatasetInput(Dataset("second", "d2", "code", "{}"), [])])
    files = folder / "files"
    (files / "plots" / "über uns").mkdir(parents=True)
    (files / "empty.txt").write_bytes(b"")
    (files / "plots" / "curve.bin").write_bytes(bytes(range(256)) * 500)
    (files / "plots" / "über uns" / "a b+c.txt").write_text("names are any Unicode")
    client.log_artifacts(id, str(files))
    client.log_artifacts(id, str(files), "below/here")
    client.set_terminated(id, "FINISHED", 1_700_000_050_000)
    return id


def _models(client: MlflowClient, experiment: str, run: str, folder: Path) -> None:
    model = client.create_logged_model(
        experiment,
        name="regressor",
        source_run_id=run,
        tags={"stage": "trial"},
        params={"depth": "6"},
        model_type="tree",
    )
    client.log_model_params(model.model_id, {"rate": "0.1"})
    packed = folder / "packed"
    packed.mkdir()
    (packed / "MLmodel").write_text("flavors: {}\n")
    (packed / "weights.bin").write_bytes(b"\x00\x01" * 4_000)
    client.log_model_artifacts(model.model_id, str(packed))
    client.finalize_logged_model(model.model_id, "READY")
    scoring = client.create_run(experiment, start_time=1_700_000_500_000, run_name="scoring")
    id = scoring.info.run_id
    client.log_inputs(id, models=[LoggedModelInput(model.model_id)])
    client.log_outputs(run, [LoggedModelOutput(model.model_id, 7)])
    client.log_metric(
        id, "rmse", 0.25, timestamp=1_700_000_501_000, step=0, model_id=model.model_id,
        dataset_name="rentals", dataset_digest="abc123",
    )  # fmt: skip
    client.log_artifacts(id, str(packed), "model")
    client.set_terminated(id, "FINISHED", 1_700_000_502_000)
    pending = client.create_logged_model(experiment, name="unfinished")
    client.set_logged_model_tags(pending.model_id, {"why": "crashed"})

    client.create_registered_model("bikes", tags={"owner": "ann"}, description="Rentals by the hour")
    client.create_model_version("bikes", f"runs:/{id}/model", id, tags={"first": "yes"}, description="one")
    client.create_model_version("bikes", f"models:/{model.model_id}", run, model_id=model.model_id)
    client.create_model_version("bikes", f"runs:/{id}/model", id)
    client.create_model_version("bikes", f"runs:/{id}/nothing", id)
    client.delete_model_version("bikes", "3")
    client.transition_model_version_stage("bikes", "1", "Archived")
    client.transition_model_version_stage("bikes", "2", "Production")
    client.set_registered_model_alias("bikes", "champion", "2")
    client.set_registered_model_alias("bikes", "older", "1")
    client.create_registered_model("empty")


def told(client: MlflowClient, folder: Path) -> dict[str, Any]:
    """All that a stock client can tell of a store, but for ids, and for where files are."""
    experiments = client.search_experiments(ViewType.ALL)
    names = {each.experiment_id: each.name for each in experiments}
    runs = [run for each in experiments for run in _runs(client, each.experiment_id)]
    places = {run.info.run_id: f"{names[run.info.experiment_id]}: {run.info.run_name}" for run in runs}
    active = [each.experiment_id for each in experiments if each.lifecycle_stage == "active"]
    models = client.search_logged_models(active)
    places |= {model.model_id: f"model {model.name}" for model in models}
    return {
        "experiments": sorted((each.name, each.lifecycle_stage, each.tags) for each in experiments),
        "runs": {places[run.info.run_id]: _run(client, run, places, folder) for run in runs},
        "models": {model.name: _logged_model(client, model, places, folder) for model in models},
        "registered": {
            each.name: {
                "description": each.description or "",
                "tags": each.tags,
                "aliases": {alias: int(version) for alias, version in each.aliases.items()},
                "versions": {
                    int(version.version): _version(
                        client, client.get_model_version(each.name, str(version.version)), places, folder
                    )
                    for version in client.search_model_versions(f"name = '{each.name}'")
                },
            }
            for each in client.search_registered_models()
        },
    }


def _runs(client: MlflowClient, experiment: str) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs([experiment], "", ViewType.ALL, 100, page_token=token)
        yield from (client.get_run(run.info.run_id) for run in page)  # which tells of inputs too
        token = page.token
        if not token:
            return


def _run(client: MlflowClient, run: Run, places: dict[str, str], folder: Path) -> dict[str, Any]:
    info, data = run.info, run.data
    tags = dict(data.tags)
    if "mlflow.parentRunId" in tags:
        tags["mlflow.parentRunId"] = places[tags["mlflow.parentRunId"]]
    inputs: Any = run.inputs
    outputs: Any = run.outputs
    return {
        "info": (
            info.run_name,
            info.status,
            info.start_time,
            info.end_time,
            info.lifecycle_stage,
            info.user_id,
        ),
        "params": data.params,
        "tags": tags,
        "metrics": {key: history(client, info.run_id, key) for key in data.metrics},
        "datasets": sorted(
            [
                (vars(each.dataset), {tag.key: tag.value for tag in each.tags})
                for each in inputs.dataset_inputs
            ],
            key=str,
        ),
        "read": [places[each.model_id] for each in inputs.model_inputs or ()],
        "made": [(places[each.model_id], each.step) for each in (outputs.model_outputs if outputs else ())],
        "files": fetched(client, info.artifact_uri, folder),
    }


def history(client: MlflowClient, run: str, key: str) -> list[tuple[int, int, str]]:
    """The points of a metric, in an order of their own; an infinity as SQL stores keep it."""
    points = client.get_metric_history(run, key)
    return sorted({(point.step, point.timestamp, number(point.value)) for point in points})


def number(value: float) -> str:
    """A value as all stores can tell it."""
    if math.isinf(value):
        value = math.copysign(BIGGEST, value)
    return repr(value)


def _below(folder: Path) -> dict[str, bytes]:
    return {
        place.relative_to(folder).as_posix(): place.read_bytes()
        for place in sorted(folder.rglob("*"))
        if place.is_file()
    }


def fetched(client: MlflowClient, uri: str, folder: Path) -> dict[str, bytes]:
    """The files at an address that this client understands; none where there is nothing."""
    import mlflow

    place = folder / f"fetched-{len(list(folder.iterdir()))}"
    place.mkdir()
    try:
        found = mlflow.artifacts.download_artifacts(
            uri, dst_path=str(place), tracking_uri=client.tracking_uri
        )
    except (mlflow.MlflowException, OSError):
        return {}
    return _below(Path(found))


def _logged_model(client: MlflowClient, model: Any, places: dict[str, str], folder: Path) -> dict[str, Any]:
    return {
        "type": model.model_type or "",
        "status": str(model.status),
        "run": places.get(model.source_run_id or "", ""),
        "params": model.params or {},
        "tags": {
            key: value for key, value in (model.tags or {}).items() if not key.startswith("mlflow.user")
        },
        "metrics": sorted(
            (each.key, number(each.value), each.step, each.timestamp, each.dataset_name, places[each.run_id])
            for each in model.metrics or ()
        ),
        "files": fetched(client, model.artifact_location, folder),
    }


def _version(client: MlflowClient, version: Any, places: dict[str, str], folder: Path) -> dict[str, Any]:
    uri = client.get_model_version_download_uri(version.name, str(version.version))
    return {
        "description": version.description or "",
        "tags": version.tags,
        "stage": version.current_stage,
        "aliases": sorted(version.aliases),
        "run": places[version.run_id],
        "files": fetched(client, uri, folder),
    }
