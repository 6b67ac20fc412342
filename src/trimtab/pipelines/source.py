"""Datasets as a pipeline names them: references, read only when a step needs the rows."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from trimtab.errors import InvalidInputError

if TYPE_CHECKING:
    # In a pipeline's body a reference stands where the step's rows will be, whatever their type.
    _Rows = Any
else:
    _Rows = object


class Bounds(Protocol):
    """A span of event time that is known once the run's own time is, and a share of the rows in it."""

    @property
    def part(self) -> tuple[float, float] | None:
        """The share, as `trimtab.data.window.Part`; None for all rows."""
        ...

    def bounds(self, as_of: datetime) -> tuple[datetime | None, datetime | None]:
        """Start (included) and end (not included); None where it is open."""
        ...


class DatasetRef(_Rows):  # type: ignore[misc]  # a subclass of Any, for the reason above
    """A dataset that a pipeline reads, with the window of it that it wants.

    Without a window it is the whole dataset up to the run's time.
    """

    def __init__(self, name: str, contract: object = None, window: Bounds | None = None) -> None:
        self.name = name
        self.contract = contract
        self.span = window

    def window(self, window: Bounds) -> DatasetRef:
        """The same dataset, limited to a window as asked for at the run's time."""
        return DatasetRef(self.name, self.contract, window)

    def bounds(self, as_of: datetime) -> tuple[datetime | None, datetime | None]:
        """The span of event time that a run at `as_of` reads."""
        return (None, None) if self.span is None else self.span.bounds(as_of)

    def part(self, held_out: float = 0.0) -> tuple[float, float] | None:
        """The share of the rows that a run reads which must not see the first share `held_out` of them."""
        low, high = (self.span.part if self.span is not None else None) or (0.0, 1.0)
        low = max(low, held_out)
        if low >= high:
            raise InvalidInputError(
                f"All that the pipeline reads of the dataset '{self.name}' is held out.",
                hint="Train on more of it: window=tt.everything().",
            )
        return None if (low, high) == (0.0, 1.0) else (low, high)

    def __repr__(self) -> str:
        return f"<dataset {self.name}{'' if self.span is None else f' {self.span!r}'}>"


def dataset(name: str, contract: object = None) -> DatasetRef:
    """The dataset `name`, as an input of a pipeline's steps.

    With `contract`, rows that the step is given are checked against it, unless it is the very contract
    that the dataset already enforces.
    """
    return DatasetRef(name, contract)


class DataRows(msgspec.Struct, frozen=True, tag="rows"):
    """Which rows a reference stands for in one run: a version of the dataset, a span of event time, and a
    share of these rows."""

    dataset: str
    version: int
    digest: str
    start: datetime | None = None
    end: datetime | None = None
    part: tuple[float, float] | None = None
    contract: str | None = None
    """The contract to check against, as "module:name"; None if the dataset's own is enough."""
