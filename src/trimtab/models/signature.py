"""What a model takes and gives: declared once, used in training, packaging, serving and gates."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Literal

import msgspec

from trimtab.errors import InvalidInputError

Kind = Literal["number", "category", "boolean", "text"]
Transform = Literal["identity", "exp", "expm1", "sigmoid"]


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input column.

    `nullable`: a value, or the whole column, may be missing. `categories`: the known values of a category
    column, texts or whole numbers; a value's code is its position, and a value that is not among them
    counts as missing, or is refused if the column is `closed`. Only models in a process of their own, and
    those with steps, take free "text".
    """

    name: str
    kind: Kind
    nullable: bool = False
    categories: tuple[str | int, ...] = ()
    closed: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidInputError("An input column needs a name.")
        if (self.kind == "category") != bool(self.categories):
            raise InvalidInputError(
                f"The column '{self.name}' of kind {self.kind} has {len(self.categories)} categories.",
                hint="A category column has at least one, the others have none.",
            )
        if len(set(self.categories)) != len(self.categories):
            raise InvalidInputError(f"The column '{self.name}' lists a category twice.")
        if len({type(category) for category in self.categories}) > 1:
            raise InvalidInputError(
                f"The categories of '{self.name}' are partly texts and partly numbers.",
                hint="Use one type.",
            )


class Signature(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """The input columns of a model, in the order in which its matrix has them.

    `missing` is the number that stands for a missing value in that matrix; None means NaN.
    """

    columns: tuple[Column, ...]
    missing: float | None = None

    def __post_init__(self) -> None:
        if not self.columns:
            raise InvalidInputError("A model needs at least one input column.")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise InvalidInputError(f"The input column '{twice[0]}' is listed twice.")

    @functools.cached_property
    def names(self) -> list[str]:
        """The columns' names, in order."""
        return [column.name for column in self.columns]

    @functools.cached_property
    def other_than_number(self) -> Column | None:
        """The first column that is no number."""
        return next((column for column in self.columns if column.kind != "number"), None)

    @property
    def categorical(self) -> list[str]:
        """The names of the category columns, in order."""
        return [column.name for column in self.columns if column.kind == "category"]

    def get(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return next((column for column in self.columns if column.name == name), None)

    def refusals_of(self, other: Signature) -> Iterator[str]:
        """Why a request that `other` accepts might be refused here: one sentence for each reason."""
        for mine in self.columns:
            theirs = other.get(mine.name)
            if theirs is None:
                if not mine.nullable:
                    yield f"it requires the column '{mine.name}', which requests do not have"
            elif mine.kind != theirs.kind and _given_as(mine) != _given_as(theirs):
                yield f"the column '{mine.name}' is a {mine.kind} and not a {theirs.kind}"
            elif _value_type(mine) is not _value_type(theirs):
                yield f"the categories of '{mine.name}' changed between texts and numbers"
            elif theirs.nullable and not mine.nullable:
                yield f"the column '{mine.name}' may no longer be missing"
            elif mine.closed and not (theirs.closed and set(theirs.categories) <= set(mine.categories)):
                yield f"the column '{mine.name}' refuses values that it does not know"


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is done to the model's raw answer: first `transform`, then clipping to [minimum, maximum]."""

    transform: Transform = "identity"
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise InvalidInputError(f"Answers cannot be clipped to [{self.minimum}, {self.maximum}].")


def _given_as(column: Column) -> str:
    """What a request gives for it: a text may be one of known ones for this model, and any for that."""
    return "text" if _value_type(column) is str else column.kind


def _value_type(column: Column) -> type | None:
    if column.kind == "text":
        return str
    return type(column.categories[0]) if column.categories else None
