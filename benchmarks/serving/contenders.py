"""The servers that are compared: how each is started, and how it is asked."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from benchmarks.peers import peer, version_in
from benchmarks.serving.subject import (
    Question,
    Subject,
    binary,
    instances,
    last_answer,
    open_inference,
    plain,
)
from benchmarks.tracking.servers import Server, environment, free_port, running

BESIDE = Path(__file__).with_name("beside")
OURS = "trimtab"
LIMIT = "bare ONNX"
LIMIT_TREES = "bare trees"
NOTHING = "no model"
PEERS = ("MLServer", "MLflow")
HEAVY_PEERS = ("BentoML", "Ray Serve")
TOLERANCE = 1e-4
"""Single precision here, double there."""

Command = Callable[[int, int], list[str]]


class Contender(msgspec.Struct, frozen=True):
    """A server. `command` makes what starts it from a port and a number of workers; `row` is its request for
    one row, `others` its further ways to ask, by name: "batch", "binary", "plain" and "plain batch"."""

    name: str
    title: str
    version: str
    command: Command
    row: Question
    others: Mapping[str, Question] = {}
    extra: Mapping[str, str] = {}
    answer: Mapping[int, float] | None = None

    @contextlib.contextmanager
    def running(self, workers: int, folder: Path) -> Iterator[Server]:
        """The server, from its first right answer on."""
        port = free_port()
        extra = {**self.extra, "BENCH_WORKERS": str(workers)}
        log = folder / f"{self.name.replace(' ', '-')}.log"
        with running(
            self.name, self.command(port, workers), port, log, extra, answers=lambda at: self.right(at)
        ) as server:
            for question in self.others.values():
                if not self.right(port, question):
                    raise RuntimeError(f"{self.name} does not answer {question.path}")
            yield server

    def right(self, port: int, question: Question | None = None) -> bool:
        """Whether a question is answered with 200; raises RuntimeError for a wrong answer."""
        question = question or self.row
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", question.path, question.body, question.headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        if response.status != 200:
            return False
        if self.answer is not None:
            wanted, said = self.answer[question.rows], last_answer(question, body)
            if abs(wanted - said) > TOLERANCE:
                raise RuntimeError(f"{self.name} answers {said} at {question.path} where {wanted} is right")
        return True


def expected(subject: Subject, model: str) -> dict[int, float]:
    """The last answer to a request of so many rows."""
    first, last = subject.expected[model]
    return {1: first, len(subject.matrix): last}


def ours(subject: Subject, model: str) -> Contender:
    """The whole gateway: routes, checks, prediction log, shipper with profiles, counts."""
    from importlib.metadata import version

    row, batch = subject.matrix[:1], subject.matrix

    def command(port: int, workers: int) -> list[str]:
        # A new copy each time, so that no start has to ship what the last one logged.
        fresh = subject.folder / f"fresh-{model}"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(subject.project(model), fresh)
        return [
            *(sys.executable, "-m", "trimtab.serving.gateway", str(fresh)),
            *("127.0.0.1", str(port), str(workers)),
        ]

    return Contender(
        OURS if model == "onnx" else f"{OURS} trees",
        "Trimtab gateway",
        version("trimtab"),
        command,
        open_inference(row),
        {
            "plain": plain(row),
            "batch": open_inference(batch),
            "binary": binary(batch),
            "plain batch": plain(batch),
        },
        answer=expected(subject, model),
    )


def bare(subject: Subject, model: str, http: str = "granian") -> Contender:
    """An HTTP server with the model and nothing else, or ("none") with nothing. `http`: "granian", or "own",
    the gateway's."""
    from importlib.metadata import version

    row, batch = subject.matrix[:1], subject.matrix
    name = {"onnx": LIMIT, "trees": LIMIT_TREES, "none": NOTHING}[model]
    name = name if http == "granian" else f"{name} on our HTTP"
    behind = "none" if model == "none" else str(subject.model_file(model))
    others: dict[str, Question] = {}
    if model != "none":
        others = {
            "batch": open_inference(batch),
            "binary": msgspec.structs.replace(binary(batch), path="/binary"),
        }
    return Contender(
        name,
        ("bare Granian" if http == "granian" else "our bare HTTP")
        + {"onnx": " + ONNX Runtime", "trees": " + LightGBM's C library", "none": ", no model"}[model],
        version("granian"),
        lambda port, workers: [
            *(sys.executable, str(BESIDE.with_name("bare.py"))),
            *(str(port), str(workers), http, model, behind),
        ],
        open_inference(row),
        others,
        answer=None if model == "none" else expected(subject, model),
    )


def mlserver(subject: Subject) -> Contender:
    """MLServer with its own scikit-learn runtime, in its fastest setting for one process: the model in the
    process that answers. For two it has a pool of workers behind that process."""
    python = peer("mlserver", "1.7.1", beside=("mlserver-sklearn==1.7.1", "uvloop<0.22"))
    folder = made(python, "mlserver", subject)
    row, batch = subject.matrix[:1], subject.matrix

    def command(port: int, workers: int) -> list[str]:
        settings = {
            "host": "127.0.0.1",
            "http_port": port,
            "grpc_port": free_port(),
            "metrics_port": free_port(),
            "parallel_workers": 0 if workers == 1 else workers,
            "debug": False,
            "metrics_dir": str(folder / "metrics"),
        }
        (folder / "metrics").mkdir(exist_ok=True)
        (folder / "settings.json").write_bytes(msgspec.json.encode(settings))
        return [str(python.with_name("mlserver")), "start", str(folder)]

    return Contender(
        "MLServer",
        "MLServer",
        version_in(python, "mlserver"),
        command,
        open_inference(row, output="predict_proba"),
        {"batch": open_inference(batch, output="predict_proba")},
        path_of(python),
        answer=expected(subject, "onnx"),
    )


def mlflow(subject: Subject) -> Contender:
    """`mlflow models serve`."""
    python = peer("mlflow", "3.17.2")
    folder = made(python, "mlflow", subject)
    return Contender(
        "MLflow",
        "mlflow models serve",
        version_in(python, "mlflow"),
        lambda port, workers: [
            *(str(python), "-m", "mlflow", "models", "serve", "-m", str(folder / "model")),
            *("-h", "127.0.0.1", "-p", str(port), "--workers", str(workers), "--env-manager", "local"),
        ],
        instances(subject.matrix[:1]),
        {"batch": instances(subject.matrix)},
        path_of(python),
        answer=expected(subject, "onnx"),
    )


def bentoml(subject: Subject) -> Contender:
    """BentoML with its new service class."""
    python = peer("bentoml", "1.4.39", beside=("scikit-learn",))
    folder = made(python, "pickle", subject)
    return Contender(
        "BentoML",
        "BentoML",
        version_in(python, "bentoml"),
        lambda port, _: [
            *(str(python.with_name("bentoml")), "serve", "bento_service:Bench"),
            *("--working-dir", str(BESIDE), "--host", "127.0.0.1", "--port", str(port)),
        ],
        instances(subject.matrix[:1], "/predict"),
        {"batch": instances(subject.matrix, "/predict")},
        {
            **path_of(python),
            "BENCH_MODEL": str(folder / "model.pickle"),
            "BENTOML_HOME": str(folder / "home"),
            "BENTOML_DO_NOT_TRACK": "True",
        },
        answer=expected(subject, "onnx"),
    )


def ray(subject: Subject) -> Contender:
    """Ray Serve on a cluster of its own in this machine."""
    python = peer("ray", "2.60.0", beside=("ray[serve]==2.60.0", "scikit-learn"))
    folder = made(python, "pickle", subject)
    return Contender(
        "Ray Serve",
        "Ray Serve",
        version_in(python, "ray"),
        lambda port, workers: [
            *(str(python), str(BESIDE / "ray_service.py")),
            *(str(port), str(workers), str(folder / "model.pickle")),
        ],
        instances(subject.matrix[:1], "/predict"),
        {"batch": instances(subject.matrix, "/predict")},
        {**path_of(python), "RAY_USAGE_STATS_ENABLED": "0"},
        answer=expected(subject, "onnx"),
    )


MAKERS: dict[str, Callable[[Subject], Contender]] = {
    "MLServer": mlserver,
    "MLflow": mlflow,
    "BentoML": bentoml,
    "Ray Serve": ray,
}


def made(python: Path, kind: str, subject: Subject) -> Path:
    """The folder of the model that a peer fitted and wrote for itself."""
    folder = subject.folder / f"{kind}-{python.parent.parent.name}"
    folder.mkdir()
    done = subprocess.run(
        [python, BESIDE / "make_model.py", kind, subject.data, folder],
        env={**environment(), **path_of(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{python} could not make its model: {done.stderr[-2000:]}")
    return folder


def path_of(python: Path) -> dict[str, str]:
    """Peers start programs of their own environment by name."""
    return {"PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
