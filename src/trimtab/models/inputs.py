"""The inputs of a model, taken from the rows that it is trained on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, unknown
from trimtab.models.encoding import Encoder, Values
from trimtab.models.signature import Column, Kind, Signature

EXAMPLE_ROWS = 5


class Inputs:
    """What a model takes: its signature and a few example rows. Made by `inputs`."""

    def __init__(self, signature: Signature, example: Mapping[str, Sequence[object]]) -> None:
        self.signature = signature
        self.example = dict(example)
        self._encoder = Encoder(signature)

    @property
    def names(self) -> list[str]:
        """The columns' names, in order: what LightGBM calls `feature_name`."""
        return self.signature.names

    @property
    def categorical(self) -> list[str]:
        """The category columns' names: what LightGBM calls `categorical_feature`."""
        return self.signature.categorical

    def matrix(self, rows: pl.DataFrame) -> NDArray[np.float64]:
        """The numbers to train on, shape (rows, columns), encoded exactly as at request time.

        Other columns of `rows` are ignored. Raises InvalidInputError for a column that is missing or holds
        what the signature does not allow.
        """
        columns = frame_columns(rows, self.signature)
        count = self._encoder.rows(columns) if columns else 0
        return self._encoder.matrix(columns, count)


def inputs(
    rows: pl.DataFrame,
    columns: Sequence[str] | None = None,
    *,
    exclude: Collection[str] = (),
    categories: Mapping[str, Sequence[str | int]] | Collection[str] = (),
    nullable: bool | Collection[str] = (),
    missing: float | None = None,
) -> Inputs:
    """Declare a model's inputs from training rows.

    `columns` in the model's order; all but `exclude` if not given. Texts, Categorical and Enum columns
    become categories (an Enum's in its own order, the others sorted), numbers stay numbers. `categories`
    names further columns of whole numbers to be treated so, or gives the values themselves. A column may
    be missing at request time if it has nulls or NaN in `rows`, or is named in `nullable` (True: all may).
    `missing` stands for a missing or unknown value in the matrix: NaN if not given.

    Dates and nested columns are refused: derive numbers or texts from them first.
    """
    chosen = [name for name in (rows.columns if columns is None else columns) if name not in exclude]
    given = dict(categories) if isinstance(categories, Mapping) else dict.fromkeys(categories)
    named = [*chosen, *given, *(() if isinstance(nullable, bool) else nullable)]
    for name in named:
        if name not in rows.columns:
            raise InvalidInputError(
                f"The rows have no column '{name}'.", hint=unknown("column", name, rows.columns).hint
            )
    made = tuple(
        _column(
            rows[name],
            as_category=name in given,
            categories=given.get(name),
            nullable=nullable if isinstance(nullable, bool) else name in nullable,
        )
        for name in chosen
    )
    signature = Signature(made, missing)
    return Inputs(signature, _example(rows, signature))


def frame_columns(rows: pl.DataFrame, signature: Signature) -> dict[str, Values]:
    """Those columns of a frame that a signature knows, as lists and arrays."""
    return {name: _values(rows[name]) for name in signature.names if name in rows.columns}


def _values(series: pl.Series) -> Values:
    if series.dtype.is_numeric() and not series.dtype.is_decimal():
        return series.to_numpy()
    if series.dtype.is_decimal():
        return series.cast(pl.Float64).to_numpy()
    if series.dtype == pl.Date:
        return series.dt.strftime("%Y-%m-%d").to_list()
    if isinstance(series.dtype, pl.Datetime):  # a request carries times as such texts
        if series.dtype.time_zone is None:
            return series.dt.strftime("%Y-%m-%dT%H:%M:%S%.f").to_list()
        return series.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.f+00:00").to_list()
    return series.to_list()


def _column(
    series: pl.Series, *, as_category: bool, categories: Sequence[str | int] | None, nullable: bool
) -> Column:
    kind = "category" if as_category else _kind(series)
    holes = series.null_count() > 0 or (series.dtype.is_float() and bool(series.is_nan().any()))
    values: tuple[str | int, ...] = ()
    if kind == "category":
        values = tuple(_distinct(series) if categories is None else categories)
        if not values:
            raise InvalidInputError(
                f"The column '{series.name}' has no value to make categories of.",
                hint="Leave the column out, or give its categories.",
            )
    return Column(series.name, kind, nullable or holes, values)


def _kind(series: pl.Series) -> Kind:
    if series.dtype == pl.Boolean:
        return "boolean"
    if series.dtype.is_numeric():
        return "number"
    if series.dtype in (pl.String, pl.Categorical, pl.Enum):
        return "category"
    raise InvalidInputError(
        f"The column '{series.name}' is of type {series.dtype}, which is no model input.",
        hint="Derive numbers from it (dt.hour(), dt.weekday(), ...), or leave it out with exclude=[...].",
    )


def _distinct(series: pl.Series) -> list[str | int]:
    if isinstance(series.dtype, pl.Enum):
        return list(series.dtype.categories)
    if series.dtype.is_integer():
        return sorted(series.drop_nulls().unique().to_list())
    if series.dtype in (pl.String, pl.Categorical):
        return sorted(series.cast(pl.String).drop_nulls().unique().to_list())
    raise InvalidInputError(
        f"The column '{series.name}' of type {series.dtype} cannot be a category.",
        hint="Categories are texts or whole numbers.",
    )


def _example(rows: pl.DataFrame, signature: Signature) -> dict[str, list[object]]:
    """A few rows spread evenly over `rows`."""
    if not rows.height:
        raise InvalidInputError("There are no rows to take the inputs from.")
    picked = np.unique(np.linspace(0, rows.height - 1, EXAMPLE_ROWS).astype(np.int64))
    frame = rows.select(signature.names)[picked, :]
    return {name: list(_plain(frame[name])) for name in signature.names}


def _plain(series: pl.Series) -> list[object]:
    values = series.cast(pl.Float64) if series.dtype.is_decimal() else series
    if values.dtype.is_float():
        values = values.fill_nan(None)
    return list(values.to_list())
