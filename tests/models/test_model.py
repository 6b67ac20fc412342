from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.models.rentals import COLUMNS, booster, rentals, trained

from trimtab.errors import ConflictError, InvalidInputError
from trimtab.models.inputs import inputs
from trimtab.models.model import Model
from trimtab.pipelines.codecs import check_trusted, codec_name, file_codec


def test_a_model_answers_as_the_booster_does_after_the_declared_transformation(rows: pl.DataFrame) -> None:
    declared = inputs(rows, COLUMNS)
    made = booster(rows, declared)
    model = Model.lightgbm(made, declared, target="cnt", output="expm1", clip=(None, 120.0))
    expected = np.minimum(np.expm1(made.predict(declared.matrix(rows))), 120.0)
    np.testing.assert_array_equal(model.predict(rows), expected)
    assert (expected == 120.0).any()


def test_a_model_of_probabilities_needs_no_transformation(rows: pl.DataFrame) -> None:
    import lightgbm

    declared = inputs(rows, COLUMNS)
    data = lightgbm.Dataset(declared.matrix(rows), rows["cnt"].to_numpy() > 100)
    made = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 20)
    answers = Model.lightgbm(made, declared, target="busy").predict(rows)
    np.testing.assert_array_equal(answers, made.predict(declared.matrix(rows)))
    assert ((answers > 0) & (answers < 1)).all()


def test_early_stopping_keeps_the_best_iteration(rows: pl.DataFrame) -> None:
    declared = inputs(rows, COLUMNS)
    made = booster(rows, declared, trees=30)
    made.best_iteration = 3
    np.testing.assert_array_equal(
        Model.lightgbm(made, declared, target="cnt").predict(rows),
        made.predict(declared.matrix(rows), num_iteration=3),
    )


def test_a_saved_model_answers_the_same(model: Model, folder: Path, rows: pl.DataFrame) -> None:
    np.testing.assert_array_equal(Model.load(folder).predict(rows), model.predict(rows))


def test_the_same_model_makes_the_same_folder_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    trained(rentals()).save(tmp_path / "again")
    Model.load(folder).save(tmp_path / "resaved")
    for other in ("again", "resaved"):
        written = {path.name: path.read_bytes() for path in (tmp_path / other).iterdir()}
        assert written == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_is_not_written_over_another(model: Model, folder: Path) -> None:
    with pytest.raises(ConflictError, match="already exists"):
        model.save(folder)


def test_a_booster_trained_on_other_columns_is_refused(rows: pl.DataFrame) -> None:
    made = booster(rows, inputs(rows, COLUMNS))
    with pytest.raises(InvalidInputError, match="was trained on the columns"):
        Model.lightgbm(made, inputs(rows, COLUMNS[::-1]), target="cnt")
    with pytest.raises(InvalidInputError, match="takes 4 columns and its inputs declare 2"):
        Model.lightgbm(made.model_to_string(), inputs(rows, COLUMNS[:2]), target="cnt")


def test_a_booster_of_several_classes_is_refused_at_packaging(rows: pl.DataFrame) -> None:
    import lightgbm

    declared = inputs(rows, COLUMNS)
    data = lightgbm.Dataset(declared.matrix(rows), rows["hour"].to_numpy() % 3)
    made = lightgbm.train(
        {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}, data, 2
    )
    with pytest.raises(InvalidInputError, match="3 numbers for each row"):
        Model.lightgbm(made, declared, target="third")


def test_a_target_among_the_inputs_is_refused(rows: pl.DataFrame) -> None:
    declared = inputs(rows, COLUMNS)
    with pytest.raises(InvalidInputError, match="'hour' is among the model's inputs"):
        Model.lightgbm(booster(rows, declared), declared, target="hour")


def test_what_is_no_booster_is_refused(rows: pl.DataFrame) -> None:
    with pytest.raises(InvalidInputError, match=r"is no lightgbm.Booster"):
        Model.lightgbm(42, inputs(rows, COLUMNS), target="cnt")  # type: ignore[arg-type]


def test_columns_that_are_no_inputs_are_ignored_in_a_frame(model: Model, rows: pl.DataFrame) -> None:
    np.testing.assert_array_equal(model.predict(rows), model.predict(rows.select(COLUMNS)))


def test_a_model_can_be_a_part_of_a_pickled_value(model: Model, rows: pl.DataFrame) -> None:
    copied = pickle.loads(pickle.dumps({"model": model}))["model"]
    np.testing.assert_array_equal(copied.predict(rows), model.predict(rows))


def test_the_codec_gives_back_the_same_model(model: Model, tmp_path: Path, rows: pl.DataFrame) -> None:
    assert codec_name(model) == "trimtab.models.codec:ModelCodec"
    check_trusted(codec_name(model))
    codec = file_codec(codec_name(model))
    codec.encode(model, tmp_path / "value")
    decoded = codec.decode(tmp_path / "value")
    assert isinstance(decoded, Model)
    np.testing.assert_array_equal(decoded.predict(rows), model.predict(rows))
