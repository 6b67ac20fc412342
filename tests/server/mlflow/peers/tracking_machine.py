"""Random use of experiments and runs, of both servers alike."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from tests.server.mlflow.pair import Both, Pair
from tests.server.mlflow.peers import grammar

START = 1_700_000_000_000

KEYS = st.sampled_from(["loss", "val/loss", "a b", "ü", "Loss", "loss."])
WORDS = ["blue", "Blue", "BLUE", "1", "2", "10", "ü", "a*", "[x]", ""]
BAD_KEYS = st.sampled_from(["", "a|b", "../x", "a//b", "/a", ".", "x" * 251, "a\nb"])
NUMBERS = st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, 2.5, 1e300, math.nan]) | st.floats(
    allow_infinity=False, width=32
)
TIMES = st.integers(START, START + 3)
STEPS = st.sampled_from([0, 0, 1, 2, -1, 2**62])
VIEWS = st.sampled_from([ViewType.ACTIVE_ONLY, ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL])

_METRICS = ["metrics.loss", "metric.loss", "metrics.`val/loss`", 'metrics."a b"', "metrics.`ü`", "metrics.no"]
_TEXTS = [
    "params.loss", "param.`val/loss`", "tags.loss", "tag.`a b`", "tags.`ü`", "params.no",
    "tags.mlflow.runName",
]  # fmt: skip
_ATTRIBUTES = ["attributes.run_name", "run_name", "attribute.status", "status", "user_id", "`run name`"]
_TIMES = ["start_time", "attributes.start_time", "end_time", "attribute.end_time"]
_DATASETS = ["datasets.name", "dataset.digest", "datasets.context"]
_WORDS = [*WORDS, "run-1", "FINISHED", "RUNNING", "rows", "training"]

RUN_FILTERS = grammar.joined(
    st.one_of(
        grammar.numeric(_METRICS, grammar.NUMBERS),
        grammar.numeric(_TIMES, grammar.WHOLE),
        grammar.textual([*_TEXTS, *_ATTRIBUTES, *_DATASETS], _WORDS),
        grammar.present(_TEXTS),
        grammar.among(["run_id", *_DATASETS], _WORDS),
        grammar.wrong([*_METRICS, *_TEXTS, *_ATTRIBUTES, *_TIMES, *_DATASETS, "no.thing", "nothing"], _WORDS),
    )
)
RUN_ORDERS = grammar.orders(
    ["metrics.loss", "metrics.`val/loss`", "params.loss", "tags.loss", "start_time", "attributes.run_name",
     "end_time", "status", "metrics.no", "params.`ü`", "nothing", "no.thing"]
)  # fmt: skip
EXPERIMENT_FILTERS = grammar.joined(
    st.one_of(
        grammar.textual(["name", "attribute.name", "`name`", "tags.loss", "tag.`val/loss`"], WORDS),
        grammar.present(["tags.loss", "tags.no"]),
        grammar.numeric(["creation_time", "last_update_time"], grammar.WHOLE),
        grammar.wrong(["name", "tags.loss", "params.x", "experiment_id"], WORDS),
    )
)


class TrackingMachine(RuleBasedStateMachine):
    """Each rule is one call of the client, made on both sides; the pair compares the answers."""

    experiments = Bundle("experiments")
    runs = Bundle("runs")

    def __init__(self, ours: MlflowClient, theirs: MlflowClient, number: int) -> None:
        super().__init__()
        self.pair = Pair(ours, theirs)
        self.prefix = f"{number}-"
        self.started = START

    @initialize(target=experiments)
    def first(self) -> Both:
        """There is somewhere to put runs."""
        return self.pair("create_experiment", f"{self.prefix}first")

    @rule(
        target=experiments,
        name=st.sampled_from(WORDS),
        tags=st.dictionaries(KEYS, st.sampled_from(WORDS), max_size=2),
    )
    def create_experiment(self, name: str, tags: dict[str, str]) -> Any:
        made = self.pair("create_experiment", self.prefix + name, tags=tags)
        return made if isinstance(made.ours, str) else multiple()

    @rule(experiment=experiments, name=st.sampled_from(WORDS))
    def rename_experiment(self, experiment: Both, name: str) -> None:
        self.pair("rename_experiment", experiment, self.prefix + name)

    @rule(
        experiment=experiments,
        method=st.sampled_from(["delete_experiment", "restore_experiment", "get_experiment"]),
    )
    def life_of_experiment(self, experiment: Both, method: str) -> None:
        self.pair(method, experiment)

    @rule(experiment=experiments, key=KEYS | BAD_KEYS, value=st.sampled_from(WORDS))
    def tag_experiment(self, experiment: Both, key: str, value: str) -> None:
        self.pair("set_experiment_tag", experiment, key, value)

    @rule(experiment=experiments, key=KEYS)
    def untag_experiment(self, experiment: Both, key: str) -> None:
        self.pair("delete_experiment_tag", experiment, key)

    @rule(name=st.sampled_from(WORDS))
    def find_experiment(self, name: str) -> None:
        self.pair("get_experiment_by_name", self.prefix + name)

    @rule(filter=EXPERIMENT_FILTERS, view=VIEWS, descending=st.booleans())
    def search_experiments(self, filter: str, view: int, descending: bool) -> None:
        def names(client: MlflowClient, _: int) -> list[str]:
            order = ["name DESC" if descending else "name"]
            found = client.search_experiments(view_type=view, filter_string=filter, order_by=order)
            return [each.name for each in found if each.name.startswith(self.prefix)]

        self.pair.run(names, f"search_experiments {filter!r} {view}", reads=True)

    @rule(
        target=runs,
        experiment=experiments,
        name=st.none() | st.sampled_from(["run-1", "run-2", "ü"]),
        tags=st.dictionaries(
            KEYS | st.just("mlflow.runName"),
            st.sampled_from([word for word in WORDS if word] + ["run-1"]),
            max_size=2,
        ),
    )
    def create_run(self, experiment: Both, name: str | None, tags: dict[str, str]) -> Any:
        self.started += 1
        if name is None and "mlflow.runName" not in tags:
            name = f"run at {self.started}"  # without one, each server draws its own
        made = self.pair("create_run", experiment, self.started, tags, name)
        return made.info.run_id if hasattr(made.ours, "info") else multiple()

    @rule(run=runs, key=KEYS | BAD_KEYS, value=NUMBERS, time=TIMES, step=STEPS)
    def log_metric(self, run: Both, key: str, value: float, time: int, step: int) -> None:
        self.pair("log_metric", run, key, value, time, step)

    @rule(run=runs, key=KEYS | BAD_KEYS, value=st.sampled_from(WORDS))
    def log_param(self, run: Both, key: str, value: str) -> None:
        self.pair("log_param", run, key, value)

    @rule(run=runs, key=KEYS | BAD_KEYS | st.just("mlflow.runName"), value=st.sampled_from(WORDS))
    def set_tag(self, run: Both, key: str, value: str) -> None:
        if key != "mlflow.runName" or value:  # an empty name is MLflow's own trouble
            self.pair("set_tag", run, key, value)

    @rule(run=runs, key=KEYS | BAD_KEYS)
    def delete_tag(self, run: Both, key: str) -> None:
        self.pair("delete_tag", run, key)

    @rule(
        run=runs,
        metrics=st.lists(st.builds(Metric, KEYS, NUMBERS, TIMES, STEPS), max_size=5),
        params=st.lists(st.builds(Param, KEYS, st.sampled_from(WORDS)), max_size=2),
        tags=st.lists(
            st.builds(RunTag, KEYS, st.sampled_from(WORDS)), max_size=2, unique_by=lambda tag: tag.key
        ),
    )
    def log_batch(self, run: Both, metrics: list[Metric], params: list[Param], tags: list[RunTag]) -> None:
        self.pair("log_batch", run, metrics, params, tags)

    @rule(
        run=runs,
        status=st.sampled_from([None, "RUNNING", "FAILED", "SCHEDULED"]),
        name=st.none() | st.just("re"),
    )
    def update_run(self, run: Both, status: str | None, name: str | None) -> None:
        self.pair("update_run", run, status, name)

    @rule(run=runs, status=st.sampled_from(["FINISHED", "KILLED"]), time=TIMES)
    def set_terminated(self, run: Both, status: str, time: int) -> None:
        self.pair("set_terminated", run, status, time)

    @rule(run=runs, method=st.sampled_from(["delete_run", "restore_run", "get_run", "get_run"]))
    def life_of_run(self, run: Both, method: str) -> None:
        self.pair(method, run)

    @rule(run=runs, key=KEYS)
    def get_history(self, run: Both, key: str) -> None:
        self.pair("get_metric_history", run, key)

    @rule(
        run=runs,
        name=st.sampled_from(["rows", "eval"]),
        digest=st.sampled_from(["1", "2"]),
        context=st.booleans(),
    )
    def log_inputs(self, run: Both, name: str, digest: str, context: bool) -> None:
        tags = [InputTag("mlflow.data.context", "training")] if context else []
        self.pair("log_inputs", run, [DatasetInput(Dataset(name, digest, "http", "{}"), tags)])

    @rule(
        experiment=experiments,
        filter=RUN_FILTERS,
        order=RUN_ORDERS,
        view=VIEWS,
        size=st.sampled_from([1, 2, 3, 100]),
    )
    def search_runs(self, experiment: Both, filter: str, order: list[str], view: int, size: int) -> None:
        def ids(client: MlflowClient, side: int) -> list[list[str]]:
            chosen = (experiment.ours, experiment.theirs)[side]
            pages: list[list[str]] = []
            token: str | None = None
            while not pages or (token and len(pages) < 20):
                page = client.search_runs([chosen], filter, view, size, order, token)
                pages.append([run.info.run_id for run in page])
                token = page.token
            return pages

        self.pair.run(ids, f"search_runs {filter!r} {order} {view}", reads=True)
