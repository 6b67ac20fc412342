from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.loop.scene import declared, fit, training

import trimtab as tt
from trimtab.errors import InvalidInputError, NotFoundError
from trimtab.loop.declaration import Declaration, Loop
from trimtab.loop.rollout import Canary
from trimtab.pipelines.project import import_project_object


def closeness(labels: np.ndarray[Any, Any], predictions: np.ndarray[Any, Any]) -> float:
    return float(np.abs(labels - predictions).mean())


def test_a_declaration_is_json_without_user_code_and_survives_it() -> None:
    declaration = declared().declaration
    text = msgspec.json.encode(declaration)
    assert msgspec.json.decode(text, type=Declaration) == declaration
    assert declaration.pipeline == "tests.loop.scene:training"
    assert declaration.parameters == ("rate",)


def test_what_can_be_derived_need_not_be_said() -> None:
    declaration = Loop("bikes", train=training, gates=[tt.gates.BeatsChampion("rmse")]).declaration
    assert (declaration.model, declaration.endpoint) == ("bikes", "bikes")
    assert (declaration.dataset, declaration.datasets) == ("rentals", ("rentals",))
    assert (declaration.metric, declaration.bias) == ("rmse", "bias")
    assert declaration.rollout == Canary()
    assert declaration.mode == "approve"


def test_equal_declarations_have_equal_digests() -> None:
    assert declared().declaration.digest == declared().declaration.digest
    assert declared().declaration.digest != declared(label_delay="1h").declaration.digest
    stored = msgspec.json.decode(msgspec.json.encode(declared().declaration), type=Declaration)
    assert stored.digest == declared().declaration.digest


def test_a_function_can_be_the_metric() -> None:
    assert declared(metric=closeness).declaration.metric == f"{__name__}:closeness"


def test_a_pipeline_that_reads_several_datasets_must_say_which_is_judged() -> None:
    @tt.pipeline
    def both() -> tt.Model:
        fit(tt.dataset("weather"), rate=0.1)
        return fit(tt.dataset("rentals"), rate=0.1)

    with pytest.raises(InvalidInputError, match="reads 2 datasets: rentals, weather"):
        declared(train=both)
    assert declared(train=both, dataset="rentals").declaration.datasets == ("rentals", "weather")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"gates": []}, "has no gate"),
        ({"gates": [tt.gates.Signature()]}, "by which metric"),
        ({"mode": "autopilot"}, "not known"),
        ({"watch": "now and then"}, "not a schedule"),
        ({"label_delay": "later"}, "not a duration"),
        ({"model": "no/slash"}, "cannot be the name of a model"),
        ({"endpoint": ""}, None),
        ({"monitors": []}, "listens to a bias monitor"),
        ({"triggers": [tt.Every("day"), tt.Every("week")]}, "two triggers of one kind"),
        ({"monitors": [tt.Bias(max_abs=1), tt.Bias(max_abs=2, days=1)]}, "two monitors of one name"),
        ({"train": fit}, "not a pipeline"),
        ({"params": {"ratio": 3}}, "no parameter 'ratio'"),
    ],
)
def test_a_loop_that_makes_no_sense_is_refused(arguments: dict[str, Any], words: str | None) -> None:
    if words is None:
        assert declared(**arguments).declaration.endpoint == "bikes"
        return
    with pytest.raises(InvalidInputError, match=words):
        declared(**arguments)


def test_an_unknown_metric_is_named_with_the_nearest() -> None:
    with pytest.raises(NotFoundError, match=r"'rmsel'.*Did you mean 'rms"):
        declared(metric="rmsel")


def test_a_loop_in_a_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.function, "__module__", "__main__")
    with pytest.raises(InvalidInputError, match="in a script"):
        declared()


def test_a_projects_loop_is_found_in_its_folder() -> None:
    found = import_project_object(Path(__file__).parent / "project", "loop:loop")
    assert isinstance(found, Loop)
    assert found.declaration.pipeline == "loop:training"
    assert found.declaration.metric == "loop:log_error"
