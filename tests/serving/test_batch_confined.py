"""Whole tables through a model that only its own code can load: each worker has a process of it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tests.serving.apart_models import save_doubling

from trimtab.config import load_settings
from trimtab.errors import InvalidInputError, RefusedError
from trimtab.serving.batch_job import Ask, predict_table
from trimtab.serving.batch_model import model_at
from trimtab.workspace import Workspace

pytest.importorskip("pandas", reason="the extra pyfunc is not installed")


def test_it_answers_where_the_project_allows_it_and_is_refused_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "doubling"
    save_doubling(model)
    table = pl.DataFrame({"x": [float(number) for number in range(100)], "word": ["a", "bb"] * 50})
    table.write_csv(tmp_path / "table.csv")
    with pytest.raises(RefusedError):
        model_at(None, str(model))
    Workspace.create(tmp_path / "project").close()
    monkeypatch.setenv("TRIMTAB_CONFINED_MODELS", '["doubling"]')
    settings = load_settings(tmp_path / "project")
    with Workspace.open(tmp_path / "project", settings) as workspace:
        chosen = model_at(workspace, str(model))
        asked = Ask(input=str(tmp_path / "table.csv"), output=str(tmp_path / "out.csv"), rows=7, workers=2)
        report = predict_table(workspace, chosen, asked)
        assert report.answered == 100
        made = pl.read_csv(tmp_path / "out.csv")
        assert made["prediction"].to_list() == [2 * x + len(word) for x, word in table.iter_rows()]
        with (tmp_path / "table.csv").open("a") as file:
            file.write("1.0,\n")
        with pytest.raises(InvalidInputError, match=r"row 100: The column 'word' is missing"):
            predict_table(workspace, chosen, Ask(input=asked.input, output=str(tmp_path / "more.csv")))
