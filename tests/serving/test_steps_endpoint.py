"""A gateway and a model packed with its steps: raw rows come in, and are what is logged."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import lightgbm
import msgspec
import numpy as np
import polars as pl
import psutil
import pytest
from tests.models.rental_steps import none_on_holidays, prepare
from tests.serving.apart_models import serve
from tests.serving.running_gateway import RunningGateway, until

from trimtab.config import load_settings
from trimtab.digest import digest_bytes
from trimtab.errors import RefusedError
from trimtab.models import gates
from trimtab.models.confined.confinement import NOTHING
from trimtab.models.gate_evaluation import evaluate_gates
from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.models.serving_notes import how_served
from trimtab.models.specification import SPECIFICATION_FILE, Specification
from trimtab.server.standalone import check_folder
from trimtab.serving import loaded_endpoints
from trimtab.serving.batch_job import Ask, predict_table
from trimtab.serving.batch_model import model_at
from trimtab.serving.loaded_endpoints import EMPTY, ModelShelf
from trimtab.serving.routes import Arm, Route
from trimtab.serving.shipping import ship_all
from trimtab.workspace import Workspace

STEP = functools.partial(prepare, mean=59.0)
PREDICT = "/v1/endpoints/rentals/predict"


def raw_rows(count: int, seed: int = 1) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "at": [datetime(2011, 1, 1, tzinfo=UTC) + timedelta(hours=row) for row in range(count)],
            "weather": random.choice(["clear", "mist", "rain"], count),
            "temperature": random.normal(15.0, 8.0, count),
            "holiday": random.random(count) < 0.1,
            "place": random.choice(["harbour", "station", "market"], count),
        }
    ).with_columns(cnt=pl.col("temperature") * 5 + pl.col("at").dt.hour())


def daily(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(day=pl.col("at").dt.weekday(), warm=pl.col("temperature") > 15)


def carried(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows as a client writes them."""
    return rows.drop("cnt").with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dicts()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    raw = raw_rows(400)
    rows = STEP(raw)
    home = tmp_path_factory.mktemp("models")
    parameters = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    labels = raw["cnt"].to_numpy()

    taken = inputs(rows)
    booster = lightgbm.train(parameters, lightgbm.Dataset(taken.matrix(rows), labels), 20)
    model = Model.lightgbm(booster, taken, target="cnt")
    model.with_steps(raw, before=STEP, after=none_on_holidays).save(home / "rentals")

    # A step that is expressions alone, which the gateway applies itself.
    days = inputs(daily(raw), ["day", "warm"])
    booster = lightgbm.train(parameters, lightgbm.Dataset(days.matrix(daily(raw)), labels), 20)
    Model.lightgbm(booster, days, target="cnt").with_steps(raw, before=daily).save(home / "daily")

    plain = inputs(raw, ["weather", "temperature"])
    booster = lightgbm.train(parameters, lightgbm.Dataset(plain.matrix(raw), labels), 20)
    Model.lightgbm(booster, plain, target="cnt").save(home / "plain")
    return {name: home / name for name in ("rentals", "daily", "plain")}


@pytest.fixture(scope="module")
def packed(folders: dict[str, Path]) -> Model:
    return Model.load(folders["rentals"])


def children_of(worker: psutil.Process) -> list[psutil.Process]:
    return [each for each in worker.children() if "trimtab.models.confined.child" in each.cmdline()]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> Path:
    home = tmp_path_factory.mktemp("steps")
    with Workspace.create(home / "project") as workspace:
        digest = serve(workspace, "rentals", folders["rentals"])
        serve(workspace, "forbidden", folders["rentals"])
        digest_daily = serve(workspace, "daily", folders["daily"])
        assert how_served(workspace, digest_daily) == (
            "by LightGBM with tests.serving.test_steps_endpoint.daily before it"
        )
        assert how_served(workspace, digest) == (
            "in a process of its own, if allowed, by LightGBM with tests.models.rental_steps.prepare before "
            "it and tests.models.rental_steps.none_on_holidays after it; a step stands behind it"
        )
    (home / "project" / "trimtab.toml").write_text(
        'confined_models = ["rentals"]\nconfined_timeout_ms = 60000\n'
    )
    return home / "project"


@pytest.fixture(scope="module")
def gateway(project: Path) -> Iterator[RunningGateway]:
    with RunningGateway(project) as running:
        running.until_ready()
        with running.client() as client:
            row = carried(raw_rows(1))[0]
            until(lambda: client.post(PREDICT, json={"row": row}).status_code == 200)
        yield running


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[httpx.Client]:
    with gateway.client() as client:
        yield client


def test_raw_rows_are_answered_with_what_training_computes_by_every_protocol(
    client: httpx.Client, packed: Model
) -> None:
    new = raw_rows(50, seed=7)
    expected = packed.predict(new).tolist()
    rows = carried(new)
    assert client.post(PREDICT, json={"rows": rows}).json()["predictions"] == expected
    told = client.post("/endpoints/rentals/invocations", json={"dataframe_records": rows})
    assert told.json()["predictions"] == expected
    assert (
        client.post("/v1/models/rentals:predict", json={"instances": rows}).json()["predictions"] == expected
    )
    types = {"temperature": "FP64", "holiday": "BOOL"}
    columns = pl.DataFrame(rows).to_dict(as_series=False)
    tensors = [
        {"name": name, "shape": [50], "datatype": types.get(name, "BYTES"), "data": values}
        for name, values in columns.items()
    ]
    made = client.post("/v2/models/rentals/infer", json={"inputs": tensors}).json()
    assert made["outputs"][0]["data"] == expected
    assert "temperature" in client.get("/v1/endpoints/rentals/docs").text


def test_a_row_that_a_step_fails_on_fails_alone_and_without_a_traceback(
    client: httpx.Client, gateway: RunningGateway, packed: Model
) -> None:
    new = raw_rows(30, seed=8)
    rows = carried(new)
    rows[3]["temperature"] = -400.0
    rows[4]["temperature"] = 5000.0
    rows[5]["at"] = "noon"
    expected = packed.predict(new).tolist()
    told: dict[int, httpx.Response] = {}

    def ask(number: int) -> None:
        with gateway.client() as own:
            told[number] = own.post(PREDICT, json={"row": rows[number]})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told[3].status_code == 500
    assert "step 'prepare' (before the model) raised ValueError: colder than cold" in told[3].text
    assert told[4].status_code == told[5].status_code == 422
    assert "No place is that hot" in told[4].text
    assert "which is no time of type Datetime" in told[5].text
    assert not any("Traceback" in each.text for each in told.values())
    for number in set(range(30)) - {3, 4, 5}:
        assert told[number].json()["predictions"] == [expected[number]]


def test_the_log_has_the_raw_columns(client: httpx.Client, project: Path) -> None:
    row = {**carried(raw_rows(1))[0], "temperature": 3.25, "place": "a place never seen"}
    made = client.post(PREDICT, json={"row": row}).json()
    with Workspace.open(project) as workspace:
        ship_all(workspace)
        logged = workspace.tables.read("predictions/rentals").filter(pl.col("id").is_in(made["ids"]))
    assert logged.height == 1
    assert {name: logged["feature_at" if name == "at" else name][0] for name in row} == row


def test_expressions_alone_are_applied_by_the_gateway_itself(
    gateway: RunningGateway, client: httpx.Client, folders: dict[str, Path]
) -> None:
    new = raw_rows(20, seed=11)
    rows = carried(new)
    expected = Model.load(folders["daily"]).predict(new).tolist()
    until(lambda: client.get("/v1/endpoints/daily").status_code == 200)
    told = client.post("/v1/endpoints/daily/predict", json={"rows": rows})
    assert told.json()["predictions"] == expected
    assert [
        client.post("/v1/endpoints/daily/predict", json={"row": row}).json()["predictions"] for row in rows
    ] == [[answer] for answer in expected]
    wrong = client.post("/v1/endpoints/daily/predict", json={"row": {**rows[0], "at": "soon"}})
    assert wrong.status_code == 422
    (worker,) = gateway.children("worker")
    assert len(children_of(worker)) == 1  # that of the other model


def test_a_malformed_package_fails_alone_and_is_remembered(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = ModelShelf(tmp_path / "cache")
    sound, odd = "b3:" + "0" * 64, "b3:" + "1" * 64
    shutil.copytree(folders["daily"], shelf.folder(sound))
    fetched: list[str] = []

    def fetch(digest: str, folder: Path) -> None:
        """Steps with a type that there is not, and digests that all hold."""
        fetched.append(digest)
        shutil.copytree(folders["daily"], folder)
        steps = (folder / "steps.json").read_bytes().replace(b'"Boolean"', b'"Frob"')
        (folder / "steps.json").write_bytes(steps)
        specification = msgspec.json.decode((folder / SPECIFICATION_FILE).read_bytes(), type=Specification)
        sealed = msgspec.structs.replace(specification, file_digest=digest_bytes(steps))
        (folder / SPECIFICATION_FILE).write_bytes(sealed.to_json())

    routes = {
        name: Route(model=name, arms=(Arm(1, digest, "primary", 100.0),), salt="s")
        for name, digest in (("odd", odd), ("daily", sound))
    }
    for _ in range(2):
        table = shelf.table(routes, {}, EMPTY, fetch)
        assert set(table.endpoints) == {"daily"}
        assert "cannot be opened: KeyError" in table.failures["odd"]
    assert fetched == [odd]
    monkeypatch.setattr(loaded_endpoints, "RETRY_SECONDS", 0.0)
    for _ in range(3):
        shelf.table(routes, {}, EMPTY, fetch)
    assert fetched == [odd] * 4
    assert {each.name for each in (tmp_path / "cache").iterdir()} == {
        shelf.folder(sound).name,
        f".damaged-{shelf.folder(odd).name}",
    }


def test_what_goes_wrong_while_a_model_is_fetched_fails_that_model_alone(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    shelf = ModelShelf(tmp_path / "cache")

    def fetch(digest: str, folder: Path) -> None:
        if digest.endswith("1"):
            raise OSError("the disk is full")
        if digest.endswith("2"):
            raise ValueError("nobody thought of this")
        shutil.copytree(folders["daily"], folder)

    routes = {
        f"to_{end}": Route(model="m", arms=(Arm(1, f"b3:{end * 64}", "primary", 100.0),), salt="s")
        for end in "210"
    }
    table = shelf.table(routes, {}, EMPTY, fetch)
    assert set(table.endpoints) == {"to_0"}
    assert "the disk is full" in table.failures["to_1"]
    assert "nobody thought of this" in table.failures["to_2"]


def test_another_name_for_the_same_model_is_refused_with_the_setting(client: httpx.Client) -> None:
    told = client.post("/v1/endpoints/forbidden/predict", json={"row": carried(raw_rows(1))[0]})
    assert told.status_code == 503
    assert "confined_models" in told.text


def test_the_gateway_itself_imports_nothing_of_the_steps(gateway: RunningGateway) -> None:
    (worker,) = gateway.children("worker")
    (child,) = children_of(worker)
    assert any("polars" in file.path for file in child.memory_maps())
    assert "rental_steps is imported" not in gateway.output()


def test_gates_ask_it_as_they_ask_any_other(folders: dict[str, Path]) -> None:
    declared = (
        gates.Metric("rmse", max=40.0),
        gates.Latency(p99_ms=10_000.0),
        gates.Signature(),
    )
    held_out = raw_rows(300, seed=9)
    judged = evaluate_gates(
        folders["rentals"], folders["rentals"], declared, held_out, target="cnt", time="at"
    )
    assert {result.gate: result.passed for result in judged} == dict.fromkeys(
        ("metric rmse", "latency", "signature"), True
    ), judged
    (against_plain,) = evaluate_gates(
        folders["rentals"], folders["plain"], (gates.Signature(),), held_out, target="cnt", time="at"
    )
    assert "requires the column 'at'" in against_plain.reason
    assert "'weather'" not in against_plain.reason


def test_whole_tables_are_answered_with_the_same_numbers(
    project: Path, folders: dict[str, Path], packed: Model, tmp_path: Path
) -> None:
    new = raw_rows(1000, seed=10)
    new.write_parquet(tmp_path / "new.parquet")
    new.with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv(tmp_path / "new.csv")
    with pytest.raises(RefusedError, match="steps"):
        model_at(None, str(folders["rentals"]))
    with pytest.raises(RefusedError, match="steps"):
        check_folder(folders["rentals"], None, NOTHING)
    with Workspace.open(project, load_settings(project)) as workspace:
        chosen = model_at(workspace, str(folders["rentals"]))
        for name in ("new.parquet", "new.csv"):
            asked = Ask(input=str(tmp_path / name), output=f"{tmp_path / name}.out.parquet", rows=300)
            assert predict_table(workspace, chosen, asked).answered == 1000
            made = pl.read_parquet(asked.output)["prediction"].to_numpy()
            assert np.array_equal(made, packed.predict(new))
        new[:20].with_columns(pl.lit(-500.0).alias("temperature")).write_parquet(tmp_path / "cold.parquet")
        with pytest.raises(Exception, match="colder than cold"):
            predict_table(
                workspace, chosen, Ask(input=str(tmp_path / "cold.parquet"), output=str(tmp_path / "c.csv"))
            )
