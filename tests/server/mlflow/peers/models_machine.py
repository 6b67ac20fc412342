"""Random use of logged models, of both servers alike."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule
from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput
from tests.server.mlflow.pair import Both, Pair
from tests.server.mlflow.peers import grammar

START = 1_700_000_000_000
KEYS = st.sampled_from(["depth", "val/loss", "a b", "ü"])
ODD_KEYS = st.sampled_from(["a|b", "../x", "a//b", "."])
WORDS = ["blue", "Blue", "1", "2", "ü", "[x]", ""]
NAMES = st.sampled_from(["tree", "Tree", "net", "ü", "a b", "bad/name", "bad:name"])

_TEXTS = ["params.depth", "params.`val/loss`", "tags.depth", "tags.`a b`", "params.no"]
_NAMES = ["name", "attributes.name", "model_type"]
_METRICS = ["metrics.loss", "metrics.`val/loss`", "metrics.no"]
_TIMES = ["creation_timestamp", "last_updated_timestamp", "attributes.creation_timestamp"]
_WORDS = [*WORDS, "tree", "net", "agent", "READY", "PENDING"]

FILTERS = grammar.joined(
    st.one_of(
        grammar.textual([*_TEXTS, *_NAMES], _WORDS),
        grammar.numeric(_METRICS, grammar.NUMBERS),
        grammar.numeric(_TIMES, grammar.WHOLE),
    )
)
ORDERS = st.lists(
    st.fixed_dictionaries(
        {
            "field_name": st.sampled_from(["metrics.loss", "metrics.`val/loss`", "nothing", "params.depth"]),
            "ascending": st.booleans(),
        }
    ),
    max_size=1,
).map(lambda found: [*found, {"field_name": "name"}])


class ModelsMachine(RuleBasedStateMachine):
    """Each rule is one call of the client, made on both sides; the pair compares the answers.

    A metric of a model is logged once at most for each run and dataset: of several values Trimtab tells the
    latest, MLflow all.
    """

    models = Bundle("models")
    runs = Bundle("runs")

    def __init__(self, ours: MlflowClient, theirs: MlflowClient, number: int) -> None:
        super().__init__()
        self.pair = Pair(ours, theirs)
        self.number = number
        self.made = 0
        self.noted: set[tuple[str, str, str]] = set()

    @initialize(target=runs)
    def first(self) -> Both:
        """There is somewhere to put models, and a run."""
        self.experiment = self.pair("create_experiment", f"models {self.number}")
        return self.pair("create_run", self.experiment, START, {}, "first").info.run_id

    @rule(target=runs)
    def create_run(self) -> Both:
        self.made += 1
        return self.pair("create_run", self.experiment, START + self.made, {}, "more").info.run_id

    @rule(
        target=models,
        name=NAMES,
        run=runs | st.none(),
        params=st.dictionaries(KEYS, st.sampled_from(WORDS), max_size=2),
        tags=st.dictionaries(KEYS, st.sampled_from(WORDS), max_size=2),
        type=st.sampled_from([None, "agent"]),
    )
    def create(
        self, name: str, run: Both | None, params: dict[str, str], tags: dict[str, str], type: str | None
    ) -> Any:
        self.made += 1
        named = {"name": f"{name} {self.made}", "params": params, "tags": tags, "model_type": type}
        made = self.pair("create_logged_model", self.experiment, source_run_id=run, **named)
        return made.model_id if hasattr(made.ours, "model_id") else multiple()

    @rule(model=models, status=st.sampled_from(["READY", "READY", "FAILED", "PENDING"]))
    def finalize(self, model: Both, status: str) -> None:
        self.pair("finalize_logged_model", model, status)

    @rule(model=models, tags=st.dictionaries(KEYS | ODD_KEYS, st.sampled_from(WORDS), max_size=2))
    def set_tags(self, model: Both, tags: dict[str, str]) -> None:
        self.pair("set_logged_model_tags", model, tags)

    @rule(model=models, key=KEYS)
    def delete_tag(self, model: Both, key: str) -> None:
        self.pair("delete_logged_model_tag", model, key)

    @rule(model=models, key=KEYS | ODD_KEYS, value=st.sampled_from(WORDS))
    def log_params(self, model: Both, key: str, value: str) -> None:
        self.made += 1  # a param that stands is passed over by Trimtab and fails in MLflow's database
        self.pair("log_model_params", model, {f"{key}{self.made}": value})

    @rule(
        model=models,
        run=runs,
        key=st.sampled_from(["loss", "val/loss"]),
        value=st.sampled_from([0.0, 0.5, 1.0, -1.0]),
    )
    def measure(self, model: Both, run: Both, key: str, value: float) -> None:
        if (model.ours, run.ours, key) not in self.noted:
            self.noted.add((model.ours, run.ours, key))
            self.pair("log_metric", run, key, value, START, 1, model_id=model)

    @rule(run=runs, model=models, made=st.booleans())
    def use(self, run: Both, model: Both, made: bool) -> None:
        sides = (model.ours, model.theirs)
        if (run.ours, model.ours, str(made)) in self.noted:
            return  # once more is once for Trimtab, and fails in MLflow's database
        self.noted.add((run.ours, model.ours, str(made)))
        if made:
            self.pair("log_outputs", run, Both(*([LoggedModelOutput(each, 3)] for each in sides)))
        else:
            self.pair("log_inputs", run, models=Both(*([LoggedModelInput(each)] for each in sides)))

    @rule(run=runs)
    def get_run(self, run: Both) -> None:
        self.pair("get_run", run)

    @rule(model=models)
    def get(self, model: Both) -> None:
        self.pair("get_logged_model", model)

    @rule(model=models, luck=st.integers(0, 4))
    def delete(self, model: Both, luck: int) -> None:
        if luck == 0:
            self.pair("delete_logged_model", model)

    @rule(filter=FILTERS, order=ORDERS, size=st.sampled_from([1, 2, 100]))
    def search(self, filter: str, order: list[dict[str, Any]], size: int) -> None:
        def ids(client: MlflowClient, side: int) -> list[list[str]]:
            chosen = (self.experiment.ours, self.experiment.theirs)[side]
            pages: list[list[str]] = []
            token: str | None = None
            while not pages or (token and len(pages) < 10):
                page = client.search_logged_models(
                    [chosen], filter_string=filter, max_results=size, order_by=order, page_token=token
                )
                pages.append([model.model_id for model in page])
                token = page.token
            return pages

        self.pair.run(ids, f"search_logged_models {filter!r} {order}", reads=True)
