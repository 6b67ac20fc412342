"""What gates judge by: held-out rows, and what the candidate and the champion answer to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, MissingExtraError, TrimtabError, unknown
from trimtab.models.candidate_loading import Packaged, load_candidate
from trimtab.models.candidates import Candidate, Numbers
from trimtab.models.runtimes.predictor import Predictor

FEW_BLOCKS = 50
"""Into how many runs of rows a table without event time is cut."""


class NoEvidenceError(Exception):
    """Why a gate cannot be judged; its text becomes the reason for which it does not pass."""


@dataclass(frozen=True)
class HeldOut:
    """Rows with their labels.

    `labelled` marks the rows that have a finite label. `labels`, and `blocks`, which number the days of
    event time, belong to those. `not_inputs` are the columns of target and time.
    """

    rows: pl.DataFrame
    labelled: NDArray[np.bool_]
    labels: Numbers
    blocks: NDArray[np.int64]
    not_inputs: tuple[str, ...]

    @classmethod
    def of(cls, rows: pl.DataFrame, target: str, time: str | None) -> HeldOut:
        """Raises InvalidInputError for a target or time column that is not there or not of its type."""
        for name in (target, *((time,) if time else ())):
            if name not in rows.columns:
                raise InvalidInputError(
                    f"The held-out rows have no column '{name}'.",
                    hint=unknown("column", name, rows.columns).hint,
                )
        if not (rows[target].dtype.is_numeric() or rows[target].dtype == pl.Boolean):
            raise InvalidInputError(f"The target '{target}' is of type {rows[target].dtype}, not a number.")
        labels = rows[target].cast(pl.Float64).to_numpy()
        labelled = np.isfinite(labels)
        own = (target, *((time,) if time else ()))
        return cls(rows, labelled, labels[labelled], _blocks(rows.filter(labelled), time), own)

    @property
    def numbers(self) -> dict[str, float | str | None]:
        """How much there is to judge by."""
        return {
            "rows": self.labels.size,
            "rows_without_label": self.rows.height - self.labels.size,
            "blocks": int(np.unique(self.blocks).size),
        }


class Judged:
    """A model that gates ask: loaded and asked when first needed, and never more than once.

    A model that cannot be loaded or asked raises NoEvidenceError whenever something is wanted of it.
    """

    def __init__(self, role: str, model: Predictor | Path, held_out: HeldOut) -> None:
        self._role = role
        self._model = model
        self._held_out = held_out

    @cached_property
    def _loaded(self) -> Candidate | NoEvidenceError:
        if isinstance(self._model, Predictor):
            return Packaged(self._model)
        try:
            return load_candidate(self._model, not_inputs=self._held_out.not_inputs)
        except MissingExtraError:
            raise  # says nothing of the model: whoever judges must install what is missing
        except TrimtabError as error:
            return NoEvidenceError(f"the {self._role} cannot be loaded: {error}")

    @property
    def loaded(self) -> Candidate:
        """The loaded model."""
        if isinstance(self._loaded, NoEvidenceError):
            raise self._loaded
        return self._loaded

    @cached_property
    def _answered(self) -> Numbers | NoEvidenceError:
        try:
            loaded = self.loaded
        except NoEvidenceError as error:
            return error
        try:
            made = loaded.answers(self._held_out.rows)
        except TrimtabError as error:
            return NoEvidenceError(f"the {self._role} cannot answer the held-out rows: {error}")
        odd = int(np.count_nonzero(~np.isfinite(made)))
        if odd:
            return NoEvidenceError(
                f"{odd} of the {self._role}'s {made.size} answers to the held-out rows are not finite"
            )
        return made

    @property
    def all_answers(self) -> Numbers:
        """The answers to all held-out rows: all finite, at least one."""
        if not self._held_out.rows.height:
            raise NoEvidenceError("there are no held-out rows")
        if isinstance(self._answered, NoEvidenceError):
            raise self._answered
        return self._answered

    @property
    def answers(self) -> Numbers:
        """The answers to the labelled rows: all finite, at least one."""
        if not self._held_out.labels.size:
            raise NoEvidenceError("there are no held-out rows with a label")
        return self.all_answers[self._held_out.labelled]

    def close(self) -> None:
        """Free what was loaded here."""
        loaded = self.__dict__.get("_loaded")
        if isinstance(self._model, Path) and loaded is not None and not isinstance(loaded, NoEvidenceError):
            loaded.close()


@dataclass(frozen=True)
class Evidence:
    """All that a gate may look at."""

    held_out: HeldOut
    candidate: Judged
    champion: Judged | None

    def delete_one_day(self, statistic: Callable[[NDArray[np.bool_]], float]) -> Numbers:
        """The jackknife's pseudo-values of a statistic of the labelled rows, one for each block.

        With theta of all G blocks and theta_i without block i they are G theta - (G - 1) theta_i; their mean
        and spread are those of the statistic (Efron and Tibshirani 1993, chapter 11). `statistic` takes the
        mask of the rows to look at, and must be smooth in them, as means, losses and AUC are.
        """
        blocks = np.unique(self.held_out.blocks)
        if blocks.size < 2:
            raise NoEvidenceError(
                f"the held-out rows span {blocks.size} day(s), too few to bound what chance does"
            )
        whole = statistic(np.ones(self.held_out.blocks.shape, dtype=np.bool_))
        without = np.array([statistic(self.held_out.blocks != block) for block in blocks])
        return np.asarray(blocks.size * whole - (blocks.size - 1) * without, dtype=np.float64)


def _blocks(rows: pl.DataFrame, time: str | None) -> NDArray[np.int64]:
    if time is None:
        size = max(1, -(-rows.height // FEW_BLOCKS))
        return np.arange(rows.height) // size
    dtype = rows[time].dtype
    if dtype not in (pl.Date, pl.Datetime):
        raise InvalidInputError(f"The time column '{time}' is of type {dtype}, not a date or a time.")
    if rows[time].null_count():
        raise InvalidInputError(f"The time column '{time}' has rows without a time.")
    return rows[time].cast(pl.Date).cast(pl.Int64).to_numpy()
