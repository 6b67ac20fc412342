"""Ordinary use of MLflow from its first page to its last, told step by step.

A process of its own runs this with whatever client is installed there, against one server: `python
ordinary_use.py URL ANSWERS REQUESTS`. Into ANSWERS goes a line of JSON for each step, without what differs
between two servers anyway (ids, times, places), into REQUESTS one for each request that the client made.
It needs mlflow-skinny alone; with pandas, scikit-learn, Pillow and Matplotlib it does more.
"""

# ruff: noqa: B023  (tell() calls at once what it is given)

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

URL, ANSWERS, REQUESTS = sys.argv[1:4]

os.environ |= {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1",  # what a model needs is not asked here
    "MPLBACKEND": "Agg",
}
warnings.simplefilter("ignore")

import mlflow  # noqa: E402  (reads the environment when it is loaded)
import requests  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

LEFT_OUT = frozenset(
    {
        "artifact_location", "artifact_uri", "creation_time", "creation_timestamp", "deployment_job_id",
        "deployment_job_state", "effective_trace_archival_retention", "end_time", "last_update_time",
        "last_updated_timestamp", "model_uri", "run_link", "source", "start_time", "status_message",
        "storage_location", "timestamp", "trace_location", "user_id", "workspace",
    }
)  # fmt: skip
"""Times, and where the server keeps things."""

START = 1_700_000_000_000

_names: dict[str, str] = {}
_answers = Path(ANSWERS).open("w", encoding="utf-8")  # noqa: SIM115  (until the process ends)
_requests = Path(REQUESTS).open("w", encoding="utf-8")  # noqa: SIM115  (until the process ends)
_lock = threading.Lock()
_request = requests.Session.request


def _noted(session: requests.Session, method: str, url: str, *args: Any, **named: Any) -> requests.Response:
    response = _request(session, method, url, *args, **named)
    path = url.removeprefix(URL).partition("?")[0]
    asked = {"method": method, "path": path, "status": response.status_code}
    if response.status_code >= 400:
        asked["answer"] = response.text[:2000]
    with _lock:
        _requests.write(json.dumps(asked) + "\n")
    return response


requests.Session.request = _noted  # type: ignore[method-assign, assignment]  # the client's own way out


def has(package: str) -> bool:
    """Whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def plain(value: Any) -> Any:
    """A value as JSON, without what two servers differ in."""
    if isinstance(value, str):
        text = value.replace(URL, "SERVER")
        return re.sub(
            r"(?:\bm-)?\b[0-9a-f]{32}(?![0-9a-f])",
            lambda found: _names.setdefault(found[0], f"id-{len(_names)}"),
            text,
        )
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    if hasattr(value, "item"):  # a number of numpy
        return plain(value.item())
    if isinstance(value, dict):
        return {
            str(plain(key)): plain(each) for key, each in sorted(value.items()) if str(key) not in LEFT_OUT
        }
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list) or (isinstance(value, Iterable) and not hasattr(value, "__dict__")):
        told = [plain(each) for each in value]
        return {"page": told, "more": bool(value.token)} if hasattr(value, "token") else told
    properties = {name for name in dir(type(value)) if isinstance(getattr(type(value), name), property)}
    names = properties or {name.lstrip("_") for name in vars(value)}
    fields = {name: getattr(value, name) for name in names if not name.startswith("_")}
    if "latest_versions" in fields:  # in whatever order the database had them
        fields["latest_versions"] = sorted(fields["latest_versions"], key=lambda each: each.version)
    return {type(value).__name__: plain(fields)}


def tell(what: str, do: Callable[[], Any], show: Callable[[Any], Any] = plain) -> Any:
    """Do one step and note its answer, or its refusal."""
    try:
        found = do()
        answer = show(found)
    except MlflowException as error:
        found, answer = None, {"refused": error.error_code, "status": error.get_http_status_code()}
    except Exception as error:  # noqa: BLE001  (what is raised is the answer, and compared)
        found, answer = None, {"raised": type(error).__name__}
    _answers.write(json.dumps([what, answer], ensure_ascii=True) + "\n")
    _answers.flush()
    return found


def nothing(_: Any) -> Any:
    """What is shown of an answer that says nothing to compare."""
    return None


def experiments(client: MlflowClient) -> None:
    """Make, find, rename, tag, delete and restore."""
    made = tell("create", lambda: client.create_experiment("boats", tags={"team": "blue"}), nothing)
    tell("get", lambda: client.get_experiment(made))
    tell("again", lambda: client.create_experiment("boats"))
    tell("set", lambda: mlflow.set_experiment("船 ⛵"))
    tell("set again", lambda: mlflow.set_experiment("船 ⛵").name)
    tell("set by id", lambda: mlflow.set_experiment(experiment_id=made).name)
    tell("tags", lambda: mlflow.set_experiment_tags({"owner": "ann", "note": "ü" * 100}))
    tell("rename", lambda: client.rename_experiment(made, "ships"))
    tell("by name", lambda: client.get_experiment_by_name("ships"))
    tell("by old name", lambda: client.get_experiment_by_name("boats"))
    tell("search", lambda: names(mlflow.search_experiments(filter_string="tags.owner = 'ann'")))
    tell("delete", lambda: client.delete_experiment(made))
    tell("deleted", lambda: client.get_experiment(made).lifecycle_stage)
    tell("set deleted", lambda: mlflow.set_experiment("ships"))
    tell("start in deleted", lambda: client.create_run(made))
    tell("views", lambda: names(client.search_experiments(view_type=ViewType.DELETED_ONLY)))
    tell("restore", lambda: client.restore_experiment(made))
    tell("restored", lambda: client.get_experiment(made))
    tell("missing", lambda: client.get_experiment("987654"))
    tell("no id", lambda: client.get_experiment("nonsense"))
    for number in range(5):
        client.create_experiment(f"page-{number}")
    page = tell(
        "page",
        lambda: client.search_experiments(
            max_results=2, filter_string="name LIKE 'page%'", order_by=["name"]
        ),
        lambda found: [names(found), bool(found.token)],
    )
    tell(
        "next page",
        lambda: names(
            client.search_experiments(
                max_results=2, filter_string="name LIKE 'page%'", order_by=["name"], page_token=page.token
            )
        ),
    )


def runs(client: MlflowClient) -> None:
    """Nested runs with everything that can be written on one."""
    mlflow.set_experiment("runs")
    with mlflow.start_run(run_name="outer", description="says why", tags={"k": "v"}) as outer:
        tell("params", lambda: mlflow.log_params({"depth": 3, "rate": 0.1, "名": "値", "none": None}))
        tell("param again", lambda: mlflow.log_param("depth", 3))
        tell("param changed", lambda: mlflow.log_param("depth", 4))
        tell("params changed", lambda: mlflow.log_params({"new": 1, "rate": 0.2}))
        tell("long param", lambda: mlflow.log_param("long", "x" * 6001))
        tell("long key", lambda: mlflow.log_param("x" * 251, 1))
        tell("bad key", lambda: mlflow.log_param("a\nb", 1))
        tell("path key", lambda: mlflow.log_metric("../up", 1))
        tell("metrics", lambda: mlflow.log_metrics({"loss": 0.5, "val/loss": 0.6}, step=1, timestamp=START))
        for step, value in enumerate([1.0, math.nan, math.inf, -math.inf, 1e308, 5e-324, -0.0]):
            if not math.isinf(value):
                tell(f"metric {value}", lambda: mlflow.log_metric("odd", value, step=step, timestamp=START))
        tell("no number", lambda: mlflow.log_metric("loss", "x"))  # type: ignore[arg-type]
        tell("tag", lambda: mlflow.set_tags({"team": "blue", "emoji": "🚢", "empty": ""}))
        tell("long tag", lambda: mlflow.set_tag("long", "x" * 9000))
        tell("tag gone", lambda: mlflow.delete_tag("team"))
        tell("tag gone twice", lambda: mlflow.delete_tag("team"))
        with mlflow.start_run(run_name="inner", nested=True) as inner:
            mlflow.log_metric("loss", 0.25, step=2, timestamp=START)
            with mlflow.start_run(nested=True, run_name="innermost"):
                mlflow.log_param("deep", True)
        tell("parent", lambda: mlflow.get_parent_run(inner.info.run_id))
        tell("no parent", lambda: mlflow.get_parent_run(outer.info.run_id))
    run_id = outer.info.run_id
    tell("outer", lambda: client.get_run(run_id))
    tell("inner", lambda: mlflow.get_run(inner.info.run_id))
    tell("history", lambda: client.get_metric_history(run_id, "odd"))
    tell("no history", lambda: client.get_metric_history(run_id, "never"))
    with mlflow.start_run(run_id=run_id):
        tell("taken up", lambda: mlflow.get_run(run_id).info.status)
        mlflow.log_metric("loss", 0.1, step=3, timestamp=START)
    tell("status", lambda: client.set_terminated(run_id, "KILLED", START + 5))
    tell("killed", lambda: client.get_run(run_id))
    tell("update", lambda: client.update_run(run_id, status="FINISHED", name="renamed"))
    tell("bad status", lambda: client.update_run(run_id, status="WELL"))
    tell("renamed", lambda: client.get_run(run_id).data.tags["mlflow.runName"])
    tell("delete", lambda: mlflow.delete_run(run_id))
    tell("write to deleted", lambda: client.log_metric(run_id, "loss", 1))
    tell("deleted", lambda: client.get_run(run_id).info.lifecycle_stage)
    tell("restore", lambda: client.restore_run(run_id))
    tell("restored", lambda: client.get_run(run_id))
    tell("missing", lambda: client.get_run("0" * 32))
    tell("bad id", lambda: client.get_run("x y"))
    try:
        with mlflow.start_run(run_name="raises") as failed:
            raise ZeroDivisionError
    except ZeroDivisionError:
        tell("raised", lambda: mlflow.get_run(failed.info.run_id).info.status)
    started = tell("ids", lambda: client.create_run("0", start_time=START, run_name="by id"), nothing)
    tell("started", lambda: client.get_run(started.info.run_id).info.start_time == START)


def batches(client: MlflowClient) -> None:
    """Many values at once, also in the background."""
    experiment = mlflow.set_experiment("batches").experiment_id
    run_id = client.create_run(experiment, run_name="batch").info.run_id
    points = [Metric("m", step / 7, START + step, step) for step in range(1500)]
    for start in (0, 500, 1000):
        tell("batch", lambda: client.log_batch(run_id, points[start : start + 500]))
    tell("again", lambda: client.log_batch(run_id, points[:500], [Param("p", "1")], [RunTag("t", "1")]))
    tell("changed", lambda: client.log_batch(run_id, params=[Param("p", "2"), Param("q", "1")]))
    tell("twice", lambda: client.log_batch(run_id, params=[Param("r", "1"), Param("r", "2")]))
    tell("too many", lambda: client.log_batch(run_id, tags=[RunTag(f"t{n}", "") for n in range(101)]))
    tell("bad key", lambda: client.log_batch(run_id, metrics=[Metric("a|b", 1, START, 0)]))
    tell("nothing", lambda: client.log_batch(run_id))
    tell("history", lambda: [p.value for p in client.get_metric_history(run_id, "m")])
    tell("run", lambda: client.get_run(run_id))
    for path, query in (
        ("/ajax-api/2.0/mlflow/metrics/get-history-bulk", {"run_id": run_id, "metric_key": "m"}),
        ("/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval", {"run_ids": run_id, "metric_key": "m"}),
    ):
        tell(path, lambda: bulk(path, query))
    with mlflow.start_run(run_name="background") as run:
        waiting = [
            mlflow.log_metrics({"a": step, "b": -step}, step=step, timestamp=START, synchronous=False)
            for step in range(50)
        ]
        waiting.append(mlflow.log_params({f"p{number}": number for number in range(150)}, synchronous=False))
        waiting.append(mlflow.set_tags({"later": "yes"}, synchronous=False))
        for each in waiting:
            assert each is not None
            each.wait()
        mlflow.flush_async_logging()
    tell("background", lambda: mlflow.get_run(run.info.run_id))
    tell("all steps", lambda: [p.value for p in client.get_metric_history(run.info.run_id, "b")])


def bulk(path: str, query: dict[str, str]) -> Any:
    """Points as the user interface asks for them."""
    points = requests.get(URL + path, params={**query, "max_results": "20"}, timeout=30).json()["metrics"]
    return [plain({**point, "timestamp": 0}) for point in points]


def artifacts(client: MlflowClient) -> None:
    """Texts, tables, pictures, files and folders, there and back."""
    mlflow.set_experiment("artifacts")
    with mlflow.start_run(run_name="files") as run, tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run_id = run.info.run_id
        root = f"runs:/{run_id}"
        tell("text", lambda: mlflow.log_text("größer ⛵", "notes/größe.txt"))
        tell("dict", lambda: mlflow.log_dict({"a": [1, 2]}, "config.json"))
        tell("yaml", lambda: mlflow.log_dict({"a": [1, 2]}, "sub dir/config.yaml"))
        (folder / "tree" / "deep").mkdir(parents=True)
        (folder / "tree" / "deep" / "b.bin").write_bytes(bytes(range(256)) * 100)
        (folder / "tree" / "a # b.txt").write_text("a")
        (folder / "empty").write_bytes(b"")
        tell("tree", lambda: mlflow.log_artifacts(str(folder / "tree"), "tree"))
        tell("empty", lambda: mlflow.log_artifact(str(folder / "empty")))
        tell("again", lambda: mlflow.log_artifact(str(folder / "empty")))
        tell("up", lambda: mlflow.log_text("x", "../outside.txt"))
        if has("PIL") and has("numpy"):
            import numpy as np

            picture = np.zeros((8, 8, 3), dtype=np.uint8)
            tell("image", lambda: mlflow.log_image(picture, "picture.png"))
            tell("step image", lambda: mlflow.log_image(picture, key="dogs", step=1, timestamp=START))
        if has("matplotlib"):
            import matplotlib.pyplot as plt  # type: ignore[import-not-found]  # in the clients' own environments

            figure, axes = plt.subplots()
            axes.plot([0, 1])
            tell("figure", lambda: mlflow.log_figure(figure, "plots/figure.png"))
        if has("pandas"):
            tell("table", lambda: mlflow.log_table({"x": [1, 2], "y": ["a", "é"]}, "table.json"))
            tell("more", lambda: mlflow.log_table({"x": [3], "y": ["c"]}, "table.json"))
            tell("read", lambda: mlflow.load_table("table.json", [run_id]).to_dict("list"))
        tell("list", lambda: sizes(client.list_artifacts(run_id)))
        tell("list below", lambda: sizes(client.list_artifacts(run_id, "tree")))
        tell("list a file", lambda: sizes(client.list_artifacts(run_id, "config.json")))
        tell("list nothing", lambda: sizes(client.list_artifacts(run_id, "nowhere")))
        tell("read text", lambda: mlflow.artifacts.load_text(f"{root}/notes/größe.txt"))
        tell("read dict", lambda: mlflow.artifacts.load_dict(f"{root}/config.json"))
        tell("fetch", lambda: tree_of(client.download_artifacts(run_id, "tree", str(folder))))
        tell("fetch empty", lambda: Path(client.download_artifacts(run_id, "empty")).read_bytes())
        tell("fetch missing", lambda: client.download_artifacts(run_id, "nowhere.txt"))
        artifact_uri = run.info.artifact_uri
        tell("delete", lambda: delete_artifact(artifact_uri, "config.json"))
        tell("after", lambda: [each.path for each in client.list_artifacts(run_id)])
    tell("run", lambda: client.get_run(run_id))


def delete_artifact(uri: str, path: str) -> None:
    """Delete as `mlflow artifacts` has it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(uri).delete_artifacts(path)


def sizes(found: Any) -> Any:
    """What a listing of files says; an empty file has no size with MLflow's server."""
    return [[each.path, each.is_dir, each.file_size or None] for each in found]


def tree_of(path: str) -> Any:
    """The files below a folder."""
    root = Path(path)
    return sorted((str(each.relative_to(root)), each.stat().st_size) for each in root.rglob("*"))


def datasets(client: MlflowClient) -> None:
    """What went into a run."""
    experiment = mlflow.set_experiment("datasets").experiment_id
    rows = Dataset("rows", "abc", "http", '{"url": "http://x"}', schema="{}", profile='{"rows": 3}')
    with mlflow.start_run(run_name="reads") as run:
        run_id = run.info.run_id
        tags = [InputTag("mlflow.data.context", "training")]
        tell("log", lambda: client.log_inputs(run_id, [DatasetInput(rows, tags)]))
        tell("again", lambda: client.log_inputs(run_id, [DatasetInput(rows, tags)]))
        if has("pandas"):
            import pandas as pd

            frame = pd.DataFrame({"x": [1.0, 2.0], "y": ["a", "b"]})
            dataset = mlflow.data.from_pandas(  # type: ignore[attr-defined]  # made when it is loaded
                frame, source="http://x/y.csv", name="frame", targets="y"
            )
            tell("frame", lambda: mlflow.log_input(dataset, context="evaluation", tags={"a": "b"}))
    tell("run", lambda: client.get_run(run_id))
    for condition in (
        "datasets.name = 'rows'", "dataset.digest LIKE 'ab%'", "datasets.context = 'evaluation'",
        "datasets.name = 'rows' AND datasets.context = 'nothing'", "datasets.color = 'x'",
    ):  # fmt: skip
        tell(condition, lambda: names(client.search_runs([experiment], condition)))


def searches(client: MlflowClient) -> None:
    """Filters, orders, pages and data frames."""
    experiment = mlflow.set_experiment("searches").experiment_id
    for number in range(12):
        run = client.create_run(experiment, start_time=START + number, run_name=f"run {number}")
        run_id = run.info.run_id
        client.log_param(run_id, "depth", number % 3)
        client.log_metric(run_id, "loss", number / 10, START)
        client.log_metric(run_id, "val/loss", (number * 5) % 12 / 4, START)
        if number % 4:
            client.set_tag(run_id, "team", ["red", "blue", "Blue"][number % 3])
        if number > 8:
            client.set_terminated(run_id, "FINISHED", START + 100 + number)
        if number == 7:
            client.delete_run(run_id)
    for condition in (
        "metrics.loss < 0.5 and params.depth = '1'",
        "metrics.`val/loss` >= 1 AND tags.team ILIKE 'BLUE' AND attributes.status != 'FINISHED'",
        "params.depth IN ('1', '2')",
        "tags.team IS NULL",
        "attributes.run_name LIKE 'run 1%' and start_time > 1700000000001",
        "tags.`mlflow.runName` = 'run 3'",
        "metrics.loss < 0.5 or metrics.loss > 0.7",
        "metrics.loss = 'x'",
        "loss < 3",
    ):
        tell(condition, lambda: names(mlflow.search_runs(filter_string=condition, output_format="list")))
    for order in (["metrics.loss DESC"], ["params.depth", "metrics.`val/loss` DESC"], ["tags.team"], ["x.y"]):
        tell(str(order), lambda: names(client.search_runs([experiment], order_by=order)))
    for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL):
        tell(f"view {view}", lambda: names(client.search_runs([experiment], run_view_type=view)))
    token: str | None = None
    for number in range(4):
        page = tell(
            f"page {number}",
            lambda: client.search_runs([experiment], max_results=4, page_token=token),
            lambda found: [names(found), bool(found.token)],
        )
        token = page.token
    tell("bad page", lambda: client.search_runs([experiment], page_token="nonsense"))
    tell("too large a page", lambda: client.search_runs([experiment], max_results=100_000))
    if has("pandas"):
        frame = tell(
            "frame",
            lambda: mlflow.search_runs(search_all_experiments=True, filter_string="attributes.run_id != 'x'"),
            lambda found: sorted(found.columns),
        )
        tell("cells", lambda: frame["metrics.val/loss"].dropna().tolist()[:20])


def models(client: MlflowClient) -> None:
    """A model of one's own: logged, registered, loaded by its alias."""
    experiment = mlflow.set_experiment("models").experiment_id
    with mlflow.start_run(run_name="trains") as run:
        if has("pandas"):
            model = tell(
                "log",
                lambda: mlflow.pyfunc.log_model(
                    name="doubler", python_model=doubled, input_example=[[1.0]], pip_requirements=[]
                ),
                lambda found: sorted(found.flavors),
            )
            model_id = model.model_id
            tell("register", lambda: mlflow.register_model(f"models:/{model_id}", "doubler"))
            tell("register the run's", lambda: mlflow.register_model(model.model_uri, "doubler"))
            tell("alias", lambda: client.set_registered_model_alias("doubler", "champion", "1"))
            tell("load", lambda: mlflow.pyfunc.load_model("models:/doubler@champion").predict([[4.0]]))
            tell("load by number", lambda: mlflow.pyfunc.load_model("models:/doubler/2").predict([[1.0]]))
            tell("load latest", lambda: mlflow.pyfunc.load_model("models:/doubler/latest").predict([[1.0]]))
            tell("load logged", lambda: mlflow.pyfunc.load_model(f"models:/{model_id}").predict([[2.0]]))
            tell("info", lambda: mlflow.models.get_model_info("models:/doubler@champion").flavors.keys())
        other = tell(
            "external",
            lambda: mlflow.create_external_model(
                name="elsewhere", params={"depth": "3"}, tags={"a": "b"}, model_type="agent"
            ),
        )
        mlflow.log_metric("auc", 0.75, step=1, timestamp=START, model_id=other.model_id)
    tell("run", lambda: model_tags_left_out(client.get_run(run.info.run_id)))
    tell("get", lambda: mlflow.get_logged_model(other.model_id))
    tell("tags", lambda: mlflow.set_logged_model_tags(other.model_id, {"c": "d"}))
    tell("tag gone", lambda: mlflow.delete_logged_model_tag(other.model_id, "a"))
    tell("last", mlflow.last_logged_model, lambda found: found.name)
    for condition in ("name = 'elsewhere'", "params.depth = '3'", "metrics.auc > 0.6", "tags.c LIKE 'd%'"):
        tell(
            condition,
            lambda: [
                each.name for each in client.search_logged_models([experiment], filter_string=condition)
            ],
        )
    if has("pandas"):
        tell("frame", lambda: sorted(mlflow.search_logged_models([experiment]).columns))
    tell("delete", lambda: client.delete_logged_model(other.model_id))
    tell("deleted", lambda: client.get_logged_model(other.model_id))
    tell("missing", lambda: client.get_logged_model("m-" + "0" * 32))


def doubled(model_input: list[list[float]]) -> list[float]:
    """The model that is logged."""
    return [2 * row[0] for row in model_input]


def model_tags_left_out(run: Any) -> Any:
    """A run without the tag that repeats the whole description of what was logged."""
    return plain(run)["Run"] | {"data": {"metrics": run.data.metrics, "params": run.data.params}}


def registry(client: MlflowClient) -> None:
    """Models, versions, aliases, tags and stages."""
    tell("create", lambda: client.create_registered_model("fleet", {"team": "blue"}, "floats"))
    tell("again", lambda: client.create_registered_model("fleet"))
    run_id = client.create_run("0", run_name="registers").info.run_id
    for number in range(3):
        tell("version", lambda: client.create_model_version("fleet", f"s3://bucket/{number}", run_id))
    tell("describe", lambda: client.update_model_version("fleet", "1", "the first"))
    tell("tag", lambda: client.set_model_version_tag("fleet", "1", "k", "v"))
    tell("alias", lambda: client.set_registered_model_alias("fleet", "best", "2"))
    tell("by alias", lambda: client.get_model_version_by_alias("fleet", "best"))
    tell("no alias", lambda: client.get_model_version_by_alias("fleet", "worst"))
    tell("stage", lambda: client.transition_model_version_stage("fleet", "1", "Production"))
    tell("archive", lambda: client.transition_model_version_stage("fleet", "2", "Production", True))
    tell("bad stage", lambda: client.transition_model_version_stage("fleet", "2", "Nowhere"))
    tell("latest", lambda: client.get_latest_versions("fleet"))
    tell("model", lambda: client.get_registered_model("fleet"))
    for what in ("name = 'fleet'", f"run_id = '{run_id}'"):
        order = ["version_number ASC"]
        tell("versions", lambda: client.search_model_versions(what, max_results=2, order_by=order))
    tell("models", lambda: client.search_registered_models("name LIKE 'fl%'"))
    tell("alias gone", lambda: client.delete_registered_model_alias("fleet", "best"))
    tell("version gone", lambda: client.delete_model_version("fleet", "3"))
    tell("no version", lambda: client.get_model_version("fleet", "3"))
    tell("rename", lambda: client.rename_registered_model("fleet", "navy"))
    tell("delete", lambda: client.delete_registered_model("navy"))
    tell("no model", lambda: client.get_registered_model("navy"))


def autologging(client: MlflowClient) -> None:
    """Cross-validation that logs itself."""
    if not has("sklearn"):
        return
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    mlflow.set_experiment("autologging")
    mlflow.sklearn.autolog(max_tuning_runs=2, log_input_examples=True, silent=True)
    features, target = load_iris(return_X_y=True, as_frame=True)
    with mlflow.start_run(run_name="search") as run:
        search = GridSearchCV(LogisticRegression(max_iter=200), {"C": [0.1, 1.0, 10.0]}, cv=2)
        search.fit(features, target)
        tell("score", lambda: round(search.score(features, target), 6))
    mlflow.sklearn.autolog(disable=True, silent=True)
    tell("run", lambda: without_time(client.get_run(run.info.run_id)))
    condition = f"tags.mlflow.parentRunId = '{run.info.run_id}'"
    children = mlflow.search_runs(
        filter_string=condition, order_by=["metrics.mean_test_score DESC"], output_format="list"
    )
    tell("children", lambda: [without_time(each) for each in children])
    tell("files", lambda: sorted(each.path for each in client.list_artifacts(run.info.run_id)))
    found = client.search_logged_models([run.info.experiment_id])
    tell("models", lambda: [[sorted(each.params.items()), each.status] for each in found])
    tell(
        "load",
        lambda: mlflow.sklearn.load_model(f"models:/{found[0].model_id}").predict(features[:5]).tolist(),
    )


def without_time(run: Any) -> Any:
    """A run without how long its parts took."""
    metrics = {key: value for key, value in run.data.metrics.items() if "_time" not in key}
    own = run.data.tags.get("mlflow.parentRunId") is None  # the name of a child is drawn by lot
    left_out = ("log-model",) if own else ("log-model", "mlflow.runName")
    tags = {key: value for key, value in run.data.tags.items() if not any(each in key for each in left_out)}
    return plain({"params": run.data.params, "metrics": metrics, "tags": tags, "inputs": run.inputs})


def names(found: Any) -> list[str]:
    """The names of what was found."""
    return [each.info.run_name if hasattr(each, "info") else each.name for each in found]


def main() -> None:
    """Everything, one chapter after the other."""
    mlflow.set_tracking_uri(URL)
    mlflow.set_registry_uri(URL)
    client = MlflowClient()
    for chapter in (
        experiments, runs, batches, artifacts, datasets, searches, models, registry, autologging
    ):  # fmt: skip
        tell(f"# {chapter.__name__}", lambda: None)
        chapter(client)


if __name__ == "__main__":
    main()
