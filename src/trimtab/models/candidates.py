"""The port of what gates ask: a loaded model, of whatever kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, Protocol

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Kind = Literal["number", "text", "boolean", "time", "other"]


class Input(msgspec.Struct, frozen=True):
    """One input column, as far as all kinds of models can tell."""

    kind: Kind
    required: bool = True


class Candidate(Protocol):
    """A loaded model. Its methods raise TrimtabError for rows that it cannot answer."""

    @property
    def target(self) -> str:
        """What it predicts; "" if it does not say."""
        ...

    @property
    def inputs(self) -> Mapping[str, Input] | None:
        """Its input columns; None if it does not say."""
        ...

    def answers(self, rows: pl.DataFrame) -> Numbers:
        """One number for each row; columns that are no inputs are ignored."""
        ...

    def singles(self, rows: pl.DataFrame) -> list[Callable[[], object]]:
        """For each row a call that answers it alone, as it arrives in a request."""
        ...

    def refusals_of(self, champion: Candidate) -> Iterator[str]:
        """Why a request that `champion` accepts might be refused here: one sentence for each reason."""
        ...

    def close(self) -> None:
        """Free its memory."""
        ...


def refusals(mine: Mapping[str, Input] | None, theirs: Mapping[str, Input] | None) -> Iterator[str]:
    """Why a request with the columns of `theirs` might be refused by a model that takes those of `mine`."""
    for whose, columns in (("it", mine), ("the champion", theirs)):
        if columns is None:
            yield f"{whose} does not say which columns it takes (log it with a signature)"
            return
    assert mine is not None
    assert theirs is not None
    for name, column in mine.items():
        other = theirs.get(name)
        if other is None:
            if column.required:
                yield f"it requires the column '{name}', which requests do not have"
        elif column.kind != other.kind:
            yield f"the column '{name}' is a {column.kind} and not a {other.kind}"
        elif column.required and not other.required:
            yield f"the column '{name}' may no longer be missing"
