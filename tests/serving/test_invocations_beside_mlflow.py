"""The same requests to MLflow's own scoring server and to the gateway."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from benchmarks.peers import peer
from tests.serving.conftest import Served
from tests.serving.running_gateway import RunningGateway, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

MLFLOW = "3.17.2"
JSON, CSV = "application/json", "text/csv"
ROW: dict[str, Any] = {"x": 1.0, "season": "winter", "holiday": False, "leak": 0.5}
REFUSED = None
MLMODEL = """
flavors:
  python_function: {loader_module: echo_model, code: code, env: {}, python_version: 3.11.0}
model_uuid: 0123456789abcdef0123456789abcdef
mlflow_version: 3.17.2
signature:
  inputs: '[{"type": "double", "name": "x", "required": true},
    {"type": "string", "name": "season", "required": true},
    {"type": "boolean", "name": "holiday", "required": true},
    {"type": "double", "name": "leak", "required": false}]'
  outputs: '[{"type": "string"}]'
"""
ECHO = """
import json

class Model:
    def predict(self, frame, params=None):
        return [json.dumps({name: plain(value) for name, value in row.items()})
                for row in frame.to_dict("records")]

def plain(value):
    return None if value is None or value != value else value.item() if hasattr(value, "item") else value

def _load_pyfunc(path):
    return Model()
"""


class Case(NamedTuple):
    """A request, the row that the gateway must take it for, and that which MLflow does, where it differs."""

    body: Any
    ours: dict[str, Any] | None
    mlflow: Any = "the same"
    kind: str = JSON


def records(**changes: Any) -> dict[str, Any]:
    return {"dataframe_records": [{**ROW, **changes}]}


def csv(*cells: str, header: str = "x,season,holiday,leak") -> str:
    return f"{header}\n{','.join(cells)}\n"


CASES = [
    Case(records(), ROW),
    Case(records(x=1, holiday=0), ROW),
    Case(records(x="1.0", leak="0.5"), ROW),
    Case(records(x=True), ROW),
    Case(records(other=3), ROW),
    Case(records(leak=None), {**ROW, "leak": None}),
    Case({"inputs": {name: ROW[name] for name in ("x", "season", "holiday")}}, {**ROW, "leak": None}),
    Case({"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())], "index": [7]}}, ROW),
    Case({"instances": [ROW]}, ROW),
    Case({"inputs": ROW}, ROW),
    Case({"inputs": [ROW]}, ROW),
    Case({"inputs": {name: [value] for name, value in ROW.items()}}, ROW),
    Case({**records(), "params": {"a": 1}}, ROW),
    Case({**records(), "params": [1]}, ROW),
    Case(json.dumps(records(leak=float("nan"))), {**ROW, "leak": None}),
    Case(csv("1", "winter", "False", "0.5"), ROW, kind=CSV),
    Case(csv("1", "winter", "false", "NA"), {**ROW, "leak": None}, kind=CSV),
    Case(csv("1", "winter", "0", ""), {**ROW, "leak": None}, kind=CSV),
    Case(csv("9", "1", "winter", "false", "0.5", header=",x,season,holiday,leak"), ROW, kind=CSV),
    # Refused by both.
    Case(records(x="warm"), REFUSED),
    Case({"dataframe_records": [{"x": 1.0, "season": "winter"}]}, REFUSED),
    Case({"dataframe_records": []}, REFUSED),
    Case({"instances": []}, REFUSED),
    Case({"inputs": {}}, REFUSED),
    Case({"inputs": {**{name: [value] for name, value in ROW.items()}, "x": [1.0, 2.0]}}, REFUSED),
    Case({**records(), "instances": []}, REFUSED),
    Case({}, REFUSED),
    Case([ROW], REFUSED),
    Case("", REFUSED),
    Case("{", REFUSED),
    Case(csv("1", "winter", "maybe", "0.5"), REFUSED, kind=CSV),
    Case(json.dumps(records()), REFUSED, kind="application/json; charset=latin-1"),
    # Told apart on purpose: see `trimtab.serving.invocations` and `trimtab.serving.coercion`.
    Case(records(holiday="false"), ROW, mlflow={**ROW, "holiday": True}),
    Case(records(holiday=2), REFUSED, mlflow={**ROW, "holiday": True}),
    Case(records(holiday=None), REFUSED, mlflow=ROW),
    Case(records(x=None), REFUSED, mlflow={**ROW, "x": None}),
    Case(records(season=7), REFUSED, mlflow={**ROW, "season": 7}),
    Case(json.dumps(records(x=float("inf"))), REFUSED, mlflow={**ROW, "x": float("inf")}),
    Case({"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values()), [1.0]]}}, REFUSED,
         mlflow=[ROW, {"x": 1.0, "season": None, "holiday": False, "leak": None}]),
    Case({"instances": [list(ROW.values())]}, ROW, mlflow=REFUSED),
    Case({"dataframe_split": {"data": [list(ROW.values())]}}, ROW, mlflow=REFUSED),
    Case({"dataframe_records": [{"x": 1.0, "season": "winter", "holiday": False, "leek": 0.5}]}, REFUSED,
         mlflow={"x": 1.0, "season": "winter", "holiday": False}),
    Case(csv("1", "winter", "false", "0.5"), ROW, mlflow=REFUSED, kind="application/csv"),
]  # fmt: skip


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of MLflow's scoring server, with a model that answers each row with the row as JSON."""
    folder = tmp_path_factory.mktemp("pyfunc")
    (folder / "code").mkdir()
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "code" / "echo_model.py").write_text(ECHO)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(peer("mlflow", MLFLOW), "-m", "uvicorn", "mlflow.pyfunc.scoring_server.app:app"),
                *("--port", "0"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "__pyfunc_model_path__": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    try:
        until(lambda: process.poll() is not None or _url(folder) is not None, seconds=300)
        url = _url(folder)
        assert url is not None, (folder / "server.log").read_text()
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def with_leak(shared: Served) -> Iterator[httpx.Client]:
    """A client of a gateway whose model has the same columns."""
    shared.single(3)
    with RunningGateway(shared.project) as running, running.until_ready().client() as client:
        yield client


def _url(folder: Path) -> str | None:
    """Where the server says that it runs, once it does."""
    found = re.search(r"running on (http://\S+)", (folder / "server.log").read_text())
    return None if found is None else found[1]


def ask(url: str, case: Case) -> httpx.Response:
    content = case.body if isinstance(case.body, str) else json.dumps(case.body)
    return httpx.post(url, content=content, headers={"content-type": case.kind}, timeout=60)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind} {json.dumps(case.body)[:80]}")
def test_a_request_means_the_same_to_both_but_where_we_differ_on_purpose(
    mlflow_server: str, with_leak: httpx.Client, case: Case
) -> None:
    theirs = ask(f"{mlflow_server}/invocations", case)
    meant = case.ours if case.mlflow == "the same" else case.mlflow
    if meant is REFUSED:
        assert theirs.status_code in {400, 415}, theirs.text
    else:
        rows = [json.loads(row) for row in theirs.json()["predictions"]]
        expected = meant if isinstance(meant, list) else [meant]
        assert [_known(row) for row in rows] == [_known(row) for row in expected]
    ours = ask(f"{with_leak.base_url}/invocations", case)
    if case.ours is REFUSED:
        assert ours.status_code in {400, 415}, ours.text
        assert ours.json().keys() == {"error_code", "message"}
        if case.mlflow == "the same":
            assert ours.status_code == theirs.status_code
    else:
        plain = with_leak.post("/v1/endpoints/rides/predict", json={"row": case.ours}).json()
        assert ours.json() == {"predictions": plain["predictions"]}


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


CLIENTS = """
import json, sys
import numpy as np, pandas as pd, requests
from mlflow.deployments import get_deploy_client
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

url, row = sys.argv[1], json.loads(sys.argv[2])
host, port = url.removeprefix("http://").split(":")
frame = pd.DataFrame([row, row])
scoring = ScoringServerClient(port=int(port), host=host)
scoring.wait_server_ready(timeout=30)
holed = frame.assign(leak=[np.nan, None])
kind = {"content-type": "text/csv"}
csv = requests.post(url + "/invocations", data=frame.to_csv(index=False), headers=kind)
answers = {
    "scoring client": scoring.invoke(frame).get_predictions().iloc[:, 0].tolist(),
    "scoring client, missing": scoring.invoke(holed).get_predictions().iloc[:, 0].tolist(),
    "databricks": get_deploy_client("databricks").predict(
        endpoint="rides", inputs={"dataframe_split": frame.to_dict(orient="split")})["predictions"],
    "deployments server": get_deploy_client(url).predict(
        endpoint="rides", inputs={"dataframe_records": frame.to_dict(orient="records")})["predictions"],
    "requests, split": requests.post(
        url + "/invocations", json={"dataframe_split": frame.to_dict(orient="split")}).json()["predictions"],
    "requests, CSV": csv.json()["predictions"],
}
print(json.dumps(answers))
"""


def test_mlflows_own_clients_drive_the_gateway_as_they_are(with_leak: httpx.Client, tmp_path: Path) -> None:
    url = str(with_leak.base_url)
    (tmp_path / "clients.py").write_text(CLIENTS)
    done = subprocess.run(
        [peer("mlflow", MLFLOW), tmp_path / "clients.py", url, json.dumps(ROW)],
        env={
            **os.environ,
            "DATABRICKS_HOST": url,
            "DATABRICKS_TOKEN": "none",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [ROW, {**ROW, "leak": None}]
    full, holed = with_leak.post("/v1/endpoints/rides/predict", json={"rows": rows}).json()["predictions"]
    for client, found in json.loads(done.stdout.splitlines()[-1]).items():
        assert found == [holed if "missing" in client else full] * 2, client
