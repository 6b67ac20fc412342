"""Random use of the model registry, of both servers alike."""

from __future__ import annotations

import warnings
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, multiple, rule
from mlflow import MlflowClient
from tests.server.mlflow.pair import Pair
from tests.server.mlflow.peers import grammar

warnings.filterwarnings("ignore", "``mlflow.*deprecated", FutureWarning)  # stages are

KEYS = st.sampled_from(["team", "a/b", "a b", "ü"])
BAD_KEYS = st.sampled_from(["", "a|b", "../x", "x" * 251])
WORDS = ["blue", "Blue", "1", "2", "ü", "[x]", ""]
ALIASES = st.sampled_from(["best", "Best", "a-b", "v1", "latest", "", "a b", "x" * 256])
STAGES = st.sampled_from(["None", "Staging", "staging", "Production", "Archived", "Nowhere"])

_NAMES = ["name", "attribute.name"]
MODEL_FILTERS = grammar.joined(
    st.one_of(
        grammar.textual([*_NAMES, "tags.team", "tags.`a/b`"], WORDS),
        grammar.wrong(["name", "tags.team", "nothing"], WORDS),
    )
)
VERSION_FILTERS = grammar.joined(
    st.one_of(
        grammar.textual([*_NAMES, "tags.team", "tag.`a/b`", "source_path"], [*WORDS, "s3://b/1"]),
        grammar.numeric(["version_number"], grammar.WHOLE),
        grammar.among(["run_id"], ["a", "b"]),
        grammar.wrong(["name", "run_id", "version_number", "tags.team", "nothing"], WORDS),
    )
)


class RegistryMachine(RuleBasedStateMachine):
    """Each rule is one call of the client, made on both sides; the pair compares the answers.

    No name is used again and the newest version of a model is not deleted: there Trimtab keeps to what it
    told once, and MLflow gives a name or a number twice.
    """

    models = Bundle("models")

    def __init__(self, ours: MlflowClient, theirs: MlflowClient, number: int) -> None:
        super().__init__()
        self.pair = Pair(ours, theirs)
        self.prefix = f"model {number}-"
        self.made = 0
        self.versions: dict[str, int] = {}

    def fresh(self, name: str) -> str:
        """A name that no model had."""
        self.made += 1
        return f"{self.prefix}{self.made} {name}"

    @rule(
        target=models,
        name=st.sampled_from(["tree", "Tree", "ü", "bad/name", "bad:name"]),
        tags=st.none() | st.dictionaries(KEYS, st.sampled_from(WORDS), max_size=2),
        description=st.sampled_from([None, "", "says what"]),
    )
    def create(self, name: str, tags: dict[str, str] | None, description: str | None) -> Any:
        own = self.fresh(name)
        made = self.pair("create_registered_model", own, tags, description)
        self.versions[own] = 0
        return own if hasattr(made.ours, "name") else multiple()

    @rule(model=models)
    def create_again(self, model: str) -> None:
        if self.versions.get(model) is not None:
            self.pair("create_registered_model", model)

    @rule(target=models, model=models, name=st.sampled_from(["new", "", "bad/name"]))
    def rename(self, model: str, name: str) -> Any:
        own = self.fresh(name) if name else name
        answer = self.pair("rename_registered_model", model, own)
        if isinstance(answer.ours, Exception):
            return multiple()
        self.versions[own] = self.versions.pop(model)
        return own

    @rule(model=models, luck=st.integers(0, 5))
    def delete(self, model: str, luck: int) -> None:
        if luck == 0:
            self.pair("delete_registered_model", model)
            self.versions.pop(model, None)

    @rule(model=models)
    def get(self, model: str) -> None:
        self.pair("get_registered_model", model)

    @rule(model=models, description=st.sampled_from(["", "says more"]))
    def describe(self, model: str, description: str) -> None:
        self.pair("update_registered_model", model, description)

    @rule(model=models, key=KEYS | BAD_KEYS, value=st.sampled_from(WORDS))
    def set_tag(self, model: str, key: str, value: str) -> None:
        self.pair("set_registered_model_tag", model, key, value)

    @rule(model=models, key=KEYS)
    def delete_tag(self, model: str, key: str) -> None:
        self.pair("delete_registered_model_tag", model, key)

    @rule(
        model=models,
        source=st.sampled_from(["s3://b/1", "s3://b/2", "gs://c/ü"]),
        tags=st.none() | st.dictionaries(KEYS, st.sampled_from(WORDS), max_size=2),
        description=st.sampled_from([None, "says what"]),
    )
    def create_version(
        self, model: str, source: str, tags: dict[str, str] | None, description: str | None
    ) -> None:
        def create(client: MlflowClient, _: int) -> Any:
            return client.create_model_version(
                model, source, tags=tags, description=description, await_creation_for=0
            )

        self.pair.run(create, f"create_model_version {model}")
        if model in self.versions:
            self.versions[model] += 1

    @rule(model=models, version=st.integers(0, 3), key=KEYS | BAD_KEYS, value=st.sampled_from(WORDS))
    def set_version_tag(self, model: str, version: int, key: str, value: str) -> None:
        self.pair("set_model_version_tag", model, str(version), key, value)

    @rule(model=models, version=st.integers(0, 3), key=KEYS)
    def delete_version_tag(self, model: str, version: int, key: str) -> None:
        self.pair("delete_model_version_tag", model, str(version), key)

    @rule(model=models, version=st.integers(0, 3))
    def get_version(self, model: str, version: int) -> None:
        self.pair("get_model_version", model, str(version))
        self.pair("get_model_version_download_uri", model, str(version))

    @rule(model=models, version=st.integers(0, 3))
    def describe_version(self, model: str, version: int) -> None:
        self.pair("update_model_version", model, str(version), "says more")

    @rule(model=models, version=st.integers(1, 3))
    def delete_version(self, model: str, version: int) -> None:
        if version < self.versions.get(model, 0):
            self.pair("delete_model_version", model, str(version))

    @rule(model=models, alias=st.sampled_from(["best", "Best", "a-b"]), version=st.integers(0, 3))
    def set_alias(self, model: str, alias: str, version: int) -> None:
        self.pair("set_registered_model_alias", model, alias, str(version))

    @rule(model=models, alias=ALIASES)
    def set_any_alias(self, model: str, alias: str) -> None:
        if newest := self.versions.get(model):  # of two mistakes each server may name either
            self.pair("set_registered_model_alias", model, alias, str(newest))

    @rule(model=models, alias=ALIASES, gone=st.booleans())
    def get_by_alias(self, model: str, alias: str, gone: bool) -> None:
        if gone:
            self.pair("delete_registered_model_alias", model, alias)
        self.pair("get_model_version_by_alias", model, alias)

    @rule(model=models, version=st.integers(0, 3), stage=STAGES, archive=st.booleans())
    def transition(self, model: str, version: int, stage: str, archive: bool) -> None:
        self.pair("transition_model_version_stage", model, str(version), stage, archive)

    @rule(model=models, stages=st.none() | st.lists(STAGES, max_size=2))
    def latest(self, model: str, stages: list[str] | None) -> None:
        def found(client: MlflowClient, _: int) -> list[Any]:
            return sorted(client.get_latest_versions(model, stages), key=lambda each: int(each.version))

        self.pair.run(found, f"get_latest_versions {model} {stages}", reads=True)

    @rule(filter=MODEL_FILTERS, descending=st.booleans())
    def search_models(self, filter: str, descending: bool) -> None:
        def names(client: MlflowClient, _: int) -> list[str]:
            order = ["name DESC" if descending else "name"]
            found = client.search_registered_models(filter, max_results=1000, order_by=order)
            return [each.name for each in found if each.name.startswith(self.prefix)]

        self.pair.run(names, f"search_registered_models {filter!r}", reads=True)

    @rule(
        filter=VERSION_FILTERS,
        order=st.sampled_from([["name", "version_number DESC"], ["version_number", "name DESC"]]),
    )
    def search_versions(self, filter: str, order: list[str]) -> None:
        def names(client: MlflowClient, _: int) -> list[list[str]]:
            found = client.search_model_versions(filter, max_results=10_000, order_by=order)
            return [[each.name, str(each.version)] for each in found if each.name.startswith(self.prefix)]

        self.pair.run(names, f"search_model_versions {filter!r}", reads=True)
