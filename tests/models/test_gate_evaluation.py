from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from tests.models.rentals import COLUMNS, rentals, trained

from trimtab.data.datasets import Datasets
from trimtab.models import gates
from trimtab.models.gate_evaluation import GatesRequest, evaluate_gates, gates_job
from trimtab.models.model import Model
from trimtab.models.reports import GateReport, GateResult
from trimtab.models.runtimes.predictor import Predictor
from trimtab.models.signature import Output
from trimtab.statistics.intervals import paired_block_bound
from trimtab.statistics.metrics import metric
from trimtab.workspace import Workspace

HELD_OUT = rentals(480, seed=2)


class Answers:
    """A runtime whose answers are given beforehand, by the row's temperature."""

    def __init__(self, by_temperature: Mapping[float, float]) -> None:
        self._answers = by_temperature

    def row(self, values: Sequence[float]) -> float:
        return self._answers[values[COLUMNS.index("temperature")]]

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([self.row(list(row)) for row in rows])


def answering(model: Model, answers: NDArray[np.float64], rows: pl.DataFrame = HELD_OUT) -> Predictor:
    """A predictor with the model's signature that gives these answers."""
    specification = msgspec.structs.replace(model.specification, output=Output())
    return Predictor(specification, Answers(dict(zip(rows["temperature"], answers.tolist(), strict=True))))


def one(
    gate: gates.AnyGate,
    candidate: Predictor | Path,
    champion: Predictor | Path | None = None,
    rows: pl.DataFrame = HELD_OUT,
    time: str | None = "at",
) -> GateResult:
    (result,) = evaluate_gates(candidate, champion, [gate], rows, target="cnt", time=time)
    assert result.gate == gate.name
    assert result.reason
    return result


@pytest.fixture(scope="module")
def labels() -> NDArray[np.float64]:
    return HELD_OUT["cnt"].cast(pl.Float64).to_numpy()


@pytest.fixture(scope="module")
def noise() -> NDArray[np.float64]:
    return np.random.default_rng(5).normal(0, 1, HELD_OUT.height)


@pytest.fixture
def perfect(model: Model, labels: NDArray[np.float64]) -> Predictor:
    return answering(model, labels)


def test_a_metric_gate_judges_the_metric_of_the_held_out_rows(model: Model, folder: Path) -> None:
    expected = metric("rmsle").value(HELD_OUT["cnt"].to_numpy(), model.predict(HELD_OUT))
    passed = one(gates.Metric("rmsle", max=expected + 1e-9), folder)
    failed = one(gates.Metric("rmsle", max=expected - 1e-9), folder)
    assert (passed.passed, failed.passed) == (True, False)
    assert passed.numbers["value"] == expected
    assert passed.numbers["rows"] == 480
    assert one(gates.Metric("rmsle", min=expected - 1e-9, max=1), folder).passed
    assert not one(gates.Metric("rmsle", min=expected + 1e-9), folder).passed


class TestBeatsChampion:
    def test_a_clearly_better_candidate_passes_and_a_worse_one_does_not(
        self, model: Model, labels: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> None:
        good, bad = answering(model, labels + noise), answering(model, labels + 5 * noise)
        gate = gates.BeatsChampion("rmse")
        assert one(gate, good, bad).passed
        assert not one(gate, bad, good).passed

    def test_an_equal_candidate_is_not_superior_but_non_inferior(self, folder: Path) -> None:
        assert not one(gates.BeatsChampion("rmse"), folder, folder).passed
        assert one(gates.BeatsChampion("rmse", margin=0.001), folder, folder).passed

    def test_a_difference_that_may_be_chance_does_not_pass(
        self, model: Model, labels: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> None:
        other = np.random.default_rng(6).permutation(noise)
        first, second = answering(model, labels + noise), answering(model, labels + other)
        results = [one(gates.BeatsChampion("mae"), *pair) for pair in ((first, second), (second, first))]
        assert any(float(result.numbers["worse_by"] or 0) < 0 for result in results)
        assert not any(result.passed for result in results)

    def test_a_margin_below_zero_asks_for_more_than_better(
        self, model: Model, labels: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> None:
        good, bad = answering(model, labels + noise), answering(model, labels + 5 * noise)
        assert one(gates.BeatsChampion("rmse", margin=-2.0), good, bad).passed
        assert not one(gates.BeatsChampion("rmse", margin=-5.0), good, bad).passed

    def test_the_bound_of_a_mean_is_the_block_bound_of_its_rows(
        self, model: Model, labels: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> None:
        other = np.random.default_rng(6).normal(0, 1.2, noise.size)
        result = one(
            gates.BeatsChampion("mae"), answering(model, labels + noise), answering(model, labels + other)
        )
        days = HELD_OUT["at"].dt.date().to_numpy()
        expected = paired_block_bound(np.abs(noise) - np.abs(other), days)
        assert result.numbers["worse_by"] == pytest.approx(expected.mean)
        assert result.numbers["worse_by_at_most"] == pytest.approx(expected.upper)
        assert result.numbers["blocks"] == 20

    def test_of_a_metric_where_higher_is_better_more_is_better(
        self, model: Model, labels: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> None:
        good, bad = answering(model, labels + noise), answering(model, labels + 50 * noise)
        assert one(gates.BeatsChampion("r2"), good, bad).passed
        assert not one(gates.BeatsChampion("r2"), bad, good).passed

    def test_an_area_under_a_curve_is_bounded_too(
        self, model: Model, labels: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> None:
        rows = HELD_OUT.with_columns(cnt=pl.col("cnt") > 100)
        busy = np.where(labels > 100, 1.0, 0.0)
        good, bad = answering(model, busy + noise / 2), answering(model, busy + noise * 3)
        assert one(gates.BeatsChampion("auc"), good, bad, rows).passed
        assert not one(gates.BeatsChampion("auc"), bad, good, rows).passed

    def test_without_event_time_rows_count_in_runs(
        self, model: Model, labels: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> None:
        good, bad = answering(model, labels + noise), answering(model, labels + 5 * noise)
        result = one(gates.BeatsChampion("rmse"), good, bad, time=None)
        assert result.passed
        assert result.numbers["blocks"] == 48

    def test_one_day_says_nothing_about_chance(self, folder: Path) -> None:
        result = one(gates.BeatsChampion("rmse", margin=9), folder, folder, HELD_OUT.head(24))
        assert not result.passed
        assert "1 day" in result.reason

    def test_the_first_version_passes_and_the_numbers_say_why(self, folder: Path) -> None:
        result = one(gates.BeatsChampion("rmse"), folder)
        assert result.passed
        assert result.numbers == {"champion": "none"}

    def test_a_champion_that_cannot_be_asked_lets_nobody_pass(self, folder: Path, tmp_path: Path) -> None:
        for gate in (gates.BeatsChampion("rmse", margin=9), gates.AnswerRatio(), gates.Signature()):
            result = one(gate, folder, tmp_path)
            assert not result.passed
            assert "the champion cannot be loaded" in result.reason


class TestLatency:
    def test_it_is_measured_on_single_rows(self, folder: Path) -> None:
        assert one(gates.Latency(p99_ms=10_000), folder).passed
        result = one(gates.Latency(p99_ms=1e-6), folder)
        assert not result.passed
        assert 0 < float(result.numbers["median_ms"] or 0) <= float(result.numbers["p99_ms"] or 0)


class TestSignature:
    def test_the_same_columns_pass(self, folder: Path) -> None:
        assert one(gates.Signature(), folder).passed
        assert one(gates.Signature(), folder, folder).passed

    def test_a_column_that_requests_lack_does_not_pass(self, folder: Path, tmp_path: Path) -> None:
        rows = rentals().with_columns(wind=pl.lit(1.0))
        trained(rows, trees=2, columns=[*COLUMNS, "wind"]).save(tmp_path / "wider")
        result = one(gates.Signature(), tmp_path / "wider", folder, rows)
        assert not result.passed
        assert "requires the column 'wind'" in result.reason

    def test_another_target_does_not_pass(self, model: Model, labels: NDArray[np.float64]) -> None:
        other = answering(model, labels)
        other.specification = msgspec.structs.replace(other.specification, target="casual")
        assert "predicts 'casual'" in one(gates.Signature(), other, answering(model, labels)).reason


class TestSliceMinimum:
    def test_one_bad_slice_is_found_behind_a_good_mean(
        self, model: Model, labels: NDArray[np.float64]
    ) -> None:
        answers = labels + np.where(HELD_OUT["weather"] == "rain", 30.0, 0.0)
        gate = gates.SliceMinimum("rmse", "weather", max=20.0)
        result = one(gate, answering(model, answers))
        assert not result.passed
        assert "30 where weather is rain" in result.reason
        assert result.numbers["weather=clear"] == 0
        assert one(gates.Metric("rmse", max=20.0), answering(model, answers)).passed
        assert one(gate, answering(model, labels)).passed

    def test_slices_that_are_too_small_are_counted_and_not_judged(self, perfect: Predictor) -> None:
        result = one(gates.SliceMinimum("rmse", "holiday", max=1.0, min_rows=100), perfect)
        assert result.passed
        assert (result.numbers["slices"], result.numbers["slices_too_small"]) == (1, 1)

    def test_no_slice_large_enough_does_not_pass(self, perfect: Predictor) -> None:
        assert not one(gates.SliceMinimum("rmse", "weather", max=1.0, min_rows=1000), perfect).passed

    def test_an_unknown_column_does_not_pass(self, perfect: Predictor) -> None:
        assert "no column 'wether'" in one(gates.SliceMinimum("rmse", "wether", max=1.0), perfect).reason


class TestAbsoluteChecks:
    def test_wrong_units_fail_even_where_the_champion_errs_the_other_way(
        self, model: Model, labels: NDArray[np.float64]
    ) -> None:
        champion, candidate = answering(model, labels / 10), answering(model, labels * 2)
        assert one(gates.BeatsChampion("rmsle"), candidate, champion).passed
        assert not one(gates.Bias(max_abs=0.3), candidate, champion).passed
        assert not one(gates.AnswerRatio(0.2, 5.0), candidate, champion).passed

    def test_the_bias_is_the_mean_log_error(self, model: Model, labels: NDArray[np.float64]) -> None:
        high = answering(model, np.expm1(np.log1p(labels) + 0.25))
        result = one(gates.Bias(max_abs=0.26), high)
        assert result.passed
        assert result.numbers["bias"] == pytest.approx(0.25)
        assert not one(gates.Bias(max_abs=0.24), high).passed

    def test_the_bias_can_be_in_the_labels_own_units(self, model: Model, labels: NDArray[np.float64]) -> None:
        low = answering(model, labels - 3)
        assert one(gates.Bias(max_abs=4, log=False), low).numbers["bias"] == pytest.approx(-3)
        assert not one(gates.Bias(max_abs=2, log=False), low).passed

    def test_the_answer_ratio_needs_no_labels(self, model: Model, labels: NDArray[np.float64]) -> None:
        rows = HELD_OUT.with_columns(cnt=pl.lit(None, pl.Int64))
        champion = answering(model, labels)
        assert one(gates.AnswerRatio(0.5, 2.0), answering(model, 1.5 * labels), champion, rows).passed
        result = one(gates.AnswerRatio(0.5, 2.0), answering(model, 2.5 * labels), champion, rows)
        assert not result.passed
        assert result.numbers["ratio"] == pytest.approx(2.5)


EVERY: list[gates.AnyGate] = [
    gates.Metric("rmse", min=-1e9),
    gates.BeatsChampion("rmse", margin=1e9),
    gates.SliceMinimum("rmse", "weather", max=1e9),
    gates.Bias(1e9),
    gates.AnswerRatio(1e-9, 1e9),
]


class TestNothingPassesByAccident:
    @pytest.mark.parametrize("gate", [*EVERY, gates.Latency(1e9)], ids=lambda gate: gate.name)
    def test_no_rows(self, gate: gates.AnyGate, folder: Path) -> None:
        result = one(gate, folder, folder, HELD_OUT.clear())
        assert not result.passed
        assert "no held-out rows" in result.reason

    @pytest.mark.parametrize("gate", EVERY[:-1], ids=lambda gate: gate.name)
    def test_no_labels(self, gate: gates.AnyGate, folder: Path) -> None:
        rows = HELD_OUT.with_columns(cnt=pl.lit(None, pl.Float64))
        assert "no held-out rows with a label" in one(gate, folder, folder, rows).reason

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("gate", EVERY, ids=lambda gate: gate.name)
    def test_one_answer_that_is_no_number(
        self, gate: gates.AnyGate, model: Model, labels: NDArray[np.float64], bad: float
    ) -> None:
        odd = labels.copy()
        odd[17] = bad
        good = answering(model, labels)
        result = one(gate, answering(model, odd), good)
        assert not result.passed
        assert "1 of the candidate's 480 answers" in result.reason
        if isinstance(gate, gates.BeatsChampion | gates.AnswerRatio):
            assert "1 of the champion's 480 answers" in one(gate, good, answering(model, odd)).reason

    @pytest.mark.parametrize("gate", [*EVERY, gates.Signature(), gates.Latency(1e9)], ids=lambda g: g.name)
    def test_a_candidate_that_cannot_be_loaded(
        self, gate: gates.AnyGate, folder: Path, tmp_path: Path
    ) -> None:
        broken = Path(shutil.copytree(folder, tmp_path / "broken"))
        (broken / "model.txt").write_text("tree\n")
        result = one(gate, broken, folder)
        assert not result.passed
        assert "the candidate cannot be loaded" in result.reason

    @pytest.mark.parametrize("gate", [*EVERY, gates.Latency(1e9)], ids=lambda gate: gate.name)
    def test_a_candidate_that_needs_a_column_the_rows_lack(self, gate: gates.AnyGate, folder: Path) -> None:
        result = one(gate, folder, folder, HELD_OUT.drop("temperature"))
        assert not result.passed
        assert "'temperature' is missing" in result.reason

    def test_a_metric_that_raises_or_is_no_number(self, folder: Path) -> None:
        for name, word in [("raising", "out of order"), ("undefined", "nan"), ("absent", "cannot be loaded")]:
            result = one(gates.Metric(f"{__name__}:{name}", max=1e9), folder)
            assert not result.passed
            assert word in result.reason

    def test_rows_without_a_label_are_left_out_and_counted(self, perfect: Predictor) -> None:
        rows = HELD_OUT.with_columns(cnt=pl.when(pl.col("hour") == 3).then(None).otherwise("cnt"))
        result = one(gates.Metric("rmse", max=0.0), perfect, None, rows)
        assert result.passed
        assert (result.numbers["rows"], result.numbers["rows_without_label"]) == (460, 20)


def raising(labels: object, predictions: object) -> float:
    raise RuntimeError("out of order")


def undefined(labels: object, predictions: object) -> float:
    return float("nan")


class Spy(Answers):
    """Counts how often all rows are asked."""

    asked = 0

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        Spy.asked += 1
        return super().matrix(rows)


def test_a_model_is_asked_once_for_all_gates(model: Model, labels: NDArray[np.float64]) -> None:
    specification = msgspec.structs.replace(model.specification, output=Output())
    spy = Predictor(specification, Spy(dict(zip(HELD_OUT["temperature"], labels.tolist(), strict=True))))
    evaluate_gates(spy, answering(model, labels), EVERY, HELD_OUT, target="cnt", time="at")
    assert Spy.asked == 1


class TestJob:
    @pytest.fixture
    def spec(self, workspace: Workspace, folder: Path) -> GatesRequest:
        datasets = Datasets(workspace)
        datasets.create("rentals", time="at")
        datasets.append("rentals", HELD_OUT, key="all")
        start = datetime(2011, 1, 3, tzinfo=UTC)
        return GatesRequest(
            model="bikes",
            digest=workspace.blobs.put_tree(folder),
            gates=(gates.Signature(), gates.Metric("rmsle", max=0.9), gates.BeatsChampion("rmsle")),
            dataset="rentals",
            target="cnt",
            start=start,
            end=start + timedelta(days=10),
        )

    def report(self, workspace: Workspace, spec: GatesRequest) -> GateReport:
        through_json = msgspec.json.decode(msgspec.json.encode(spec))
        answer = gates_job(workspace, through_json, None)
        return msgspec.convert(msgspec.json.decode(msgspec.json.encode(answer)), GateReport)

    def test_it_judges_stored_models_on_stored_rows(
        self, workspace: Workspace, spec: GatesRequest, model: Model
    ) -> None:
        report = self.report(workspace, spec)
        assert report.passed
        assert report.digest == spec.digest
        assert report.policy == gates.policy_of(spec.gates).digest
        assert report.created_at == workspace.clock.now()
        window = HELD_OUT.filter(pl.col("at").is_between(spec.start, spec.end, closed="left"))
        expected = metric("rmsle").value(window["cnt"].to_numpy(), model.predict(window))
        assert report.results[1].numbers["value"] == expected
        assert report.results[1].numbers["rows"] == 240
        assert report.results[2].numbers == {"champion": "none"}

    def test_it_compares_with_the_champion(self, workspace: Workspace, spec: GatesRequest) -> None:
        report = self.report(workspace, msgspec.structs.replace(spec, champion=spec.digest))
        assert not report.passed
        assert [result.gate for result in report.failed] == ["beats champion rmsle"]
        assert report.champion == spec.digest

    def test_the_rows_that_it_judged_by_are_in_the_evidence(
        self, workspace: Workspace, spec: GatesRequest
    ) -> None:
        first, again = self.report(workspace, spec), self.report(workspace, spec)
        other = self.report(workspace, msgspec.structs.replace(spec, end=datetime(2011, 1, 8, tzinfo=UTC)))
        assert first.rows == again.rows != other.rows

    def test_a_metric_may_come_from_the_project(
        self, workspace: Workspace, spec: GatesRequest, tmp_path: Path
    ) -> None:
        project = tmp_path / "snapshot"
        project.mkdir()
        code = """
            def largest_error(labels, predictions):
                return abs(labels - predictions).max()
            """
        (project / "own_metrics.py").write_text(textwrap.dedent(code))
        gate = gates.Metric("own_metrics:largest_error", max=1000.0)
        spec = msgspec.structs.replace(spec, gates=(gate,), project=workspace.blobs.put_tree(project))
        report = self.report(workspace, spec)
        assert report.passed, report.results
        assert 0 < float(report.results[0].numbers["value"] or 0) < 1000
