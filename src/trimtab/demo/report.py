"""What a finished replay comes to: figures computed from the workspace, as JSON and as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.demo.chart import Mark, Series, draw
from trimtab.demo.page import page, table, tile
from trimtab.statistics.metrics import metric

FIRST_MONTH, LAST_MONTH = "2011-10", "2012-12"
"""The months that the mean error is taken over: the 10th to the 24th of the data."""

HISTORY_MONTHS = 8


class CycleRow(msgspec.Struct, frozen=True, kw_only=True):
    """One cycle in the report: when it started and ended, its trigger and the reason for it, what came of it
    and why."""

    number: int
    started: str
    ended: str
    trigger: str
    version: int | None
    reason: str
    outcome: str
    because: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of `report.json`.

    `rmsle_by_month`: for each of `frozen`, `served` and `monthly_refit` the error by month ("2011-10").
    `rmsle_mean`: their means over months 10 to 24. `seconds`: the demo's wall time; `peak_rss_mb`: the
    largest summed proportional set size of all its processes, in MB.
    """

    rmsle_by_month: dict[str, dict[str, float]]
    rmsle_mean: dict[str, float]
    promotions: int
    rejections: int
    rollbacks: int
    cycles: list[CycleRow]
    alerts: int
    predictions_acknowledged: int
    predictions_logged: int
    labels_joined: int
    labels_due: int
    journal_entries: int
    journal_verified: bool
    controller_kills: int
    controller_restarts: int
    cycle_finished_after_kill: str
    seconds: float
    peak_rss_mb: float
    replayed_from: str
    replayed_to: str

    def failures(self) -> list[str]:
        """What the demo promises and did not show, in words; empty if all is well."""
        promises = {
            f"served a mean RMSLE of {self.rmsle_mean['served']:.3f}, not 0.44 or less": self.rmsle_mean[
                "served"
            ]
            <= 0.44,
            f"promoted {self.promotions} times, not 12 or fewer": self.promotions <= 12,
            "no candidate was rejected by a gate": self.rejections >= 1,
            "no challenger was rolled back": self.rollbacks >= 1,
            "the prediction log lacks acknowledged predictions": self.predictions_logged
            == self.predictions_acknowledged,
            "some predictions are not joined to their label": self.labels_joined == self.labels_due,
            "the journal does not verify": self.journal_verified,
            "the controller was not killed, or did not come back": self.controller_kills
            == 1
            <= self.controller_restarts,
        }
        return [words for words, kept in promises.items() if not kept]


def rmsle_by_month(
    at: pl.Series, labels: NDArray[np.float64], predictions: NDArray[np.float64]
) -> dict[str, float]:
    """The root mean squared log error of each month of event time, oldest first."""
    rmsle = metric("rmsle")
    months = at.dt.strftime("%Y-%m").to_numpy()
    return {
        str(month): float(rmsle.value(labels[months == month], predictions[months == month]))
        for month in np.unique(months)
    }


def mean_error(by_month: Mapping[str, float]) -> float:
    """The mean over months 10 to 24."""
    return float(np.mean([value for month, value in by_month.items() if FIRST_MONTH <= month <= LAST_MONTH]))


def write_report(report: Report, marks: Sequence[Mark], folder: Path) -> None:
    """Write `report.json` and `report.html` into a folder."""
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    (folder / "report.html").write_text(render(report, marks))


def render(report: Report, marks: Sequence[Mark]) -> str:
    """The page: what was gained, the picture, the months, the cycles."""
    errors = report.rmsle_by_month
    lines = [
        Series("frozen version 1", "frozen", errors["frozen"]),
        Series("what was served", "served", errors["served"]),
        Series("refitted monthly", "refit", errors["monthly_refit"]),
    ]
    mean = report.rmsle_mean
    tiles = [
        tile(f"{mean['served']:.3f}", "mean RMSLE served, months 10 to 24"),
        tile(f"{mean['frozen']:.3f}", "the same, version 1 left alone"),
        tile(f"{mean['monthly_refit']:.3f}", "the same, refitted every month"),
        tile(f"{report.promotions}", f"promotions, out of {len(report.cycles)} cycles"),
        tile(f"{report.rejections} and {report.rollbacks}", "rejected by a gate; rolled back live"),
        tile(f"{report.predictions_logged:,}", f"predictions logged of {report.predictions_acknowledged:,} acknowledged"),
        tile(f"{report.labels_joined:,}", f"joined to their label of {report.labels_due:,} due"),
        tile(f"{report.journal_entries:,}", f"journal entries, {'verified' if report.journal_verified else 'BROKEN'}"),
    ]  # fmt: skip
    months = [
        (month, *(f"{errors[name][month]:.3f}" for name in ("frozen", "served", "monthly_refit")))
        for month in errors["served"]
    ]
    cycles = [
        (
            str(row.number),
            row.started[:10],
            row.ended[:10],
            row.trigger,
            "-" if row.version is None else str(row.version),
            row.outcome.replace("_", " "),
            f"{row.reason}. In the end: {row.because}.",
        )
        for row in report.cycles
    ]
    return page(
        title="Bike rentals: sixteen months under a loop",
        lead=(
            f"Hourly rentals of Washington D.C. from {report.replayed_from[:10]} to {report.replayed_to[:10]}, "
            "replayed through the gateway hour by hour, each label told an hour later. "
            "Ridership grew by half; nobody touched the model."
        ),
        body=[
            f'<div class="tiles">{"".join(tiles)}</div>',
            draw(lines, marks, unit="RMSLE (lower is better)"),
            "<h2>Month by month</h2>",
            table(["month", "frozen", "served", "refitted monthly"], months, numbers=(1, 2, 3)),
            "<h2>Every cycle</h2>",
            table(
                ["cycle", "started", "ended", "trigger", "version", "outcome", "why"],
                cycles,
                numbers=(0, 4),
            ),
        ],
        footer=(
            "Data: Fanaee-T and Gama (2013), Bike Sharing, UCI Machine Learning Repository, CC BY 4.0. "
            f"The demo took {report.seconds:.0f} s and at most {report.peak_rss_mb:.0f} MB. "
            "Every figure is computed from the workspace beside this page; `trimtab up` opens it again, "
            "`trimtab why bikes` prints the evidence behind each decision."
        ),
    )
