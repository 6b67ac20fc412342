"""What a contract says, as data: it travels with its dataset, and a server can judge rows by it without the
class that it came from."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from trimtab.clock import as_utc
from trimtab.errors import InvalidInputError

ColumnType = Literal["float", "int", "str", "bool", "datetime", "date"]
"""The types that columns of a table dataset may have. Integers and floats have 64 bits; times are kept in
microseconds and UTC."""

Unexpected = Literal["refuse", "drop", "keep"]
"""What to do with columns that the contract does not know."""

RESERVED = "_trimtab_"
"""Names of columns that begin so are ours."""

_ORDERED = ("float", "int", "datetime", "date")


class ColumnSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A column and the rules for its values.

    Null, and in a float column NaN too, is a missing value: refused unless `nullable`, and otherwise free of
    all other rules. Infinities are refused while `finite`. `regex` must match the whole value; it is written
    as in Rust's regex crate, which has no look-around. `unique` holds within one append. Bounds of dates are
    written as times.
    """

    name: str
    type: ColumnType
    nullable: bool = False
    required: bool = True
    ge: int | float | datetime | None = None
    gt: int | float | datetime | None = None
    le: int | float | datetime | None = None
    lt: int | float | datetime | None = None
    isin: tuple[str | int | float | bool, ...] | None = None
    regex: str | None = None
    unique: bool = False
    finite: bool = True
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(RESERVED) or "\0" in self.name:
            raise InvalidInputError(
                f"A column cannot be called '{self.name}'.", hint=f"Names beginning {RESERVED} are reserved."
            )
        for rule in ("ge", "gt", "le", "lt"):
            self._check_bound(rule, getattr(self, rule))
        if self.regex is not None:
            if self.type != "str":
                raise self._misfit("regex", "is for str columns")
            try:
                re.compile(self.regex)
            except re.error as error:
                raise self._misfit("regex", f"'{self.regex}' is not a pattern ({error})") from None
        if self.isin is not None:
            self._check_isin(self.isin)

    def _check_bound(self, rule: str, bound: object) -> None:
        if bound is None:
            return
        if self.type not in _ORDERED:
            raise self._misfit(rule, f"is for {', '.join(_ORDERED)} columns")
        if isinstance(bound, bool) or isinstance(bound, datetime) != (self.type in ("datetime", "date")):
            raise self._misfit(rule, f"= {bound!r} is not of that type")
        if isinstance(bound, float) and math.isnan(bound):
            raise self._misfit(rule, "cannot be NaN")
        if isinstance(bound, datetime):
            as_utc(bound)

    def _check_isin(self, values: tuple[str | int | float | bool, ...]) -> None:
        kinds: dict[str, tuple[type, ...]] = {
            "str": (str,),
            "int": (int,),
            "float": (int, float),
            "bool": (bool,),
        }
        if self.type not in kinds:
            raise self._misfit("isin", f"is for {', '.join(kinds)} columns")
        if not values:
            raise self._misfit("isin", "needs at least one value")
        for value in values:
            if not isinstance(value, kinds[self.type]) or (isinstance(value, bool) and self.type != "bool"):
                raise self._misfit("isin", f"has {value!r}, which is not of that type")

    def _misfit(self, rule: str, why: str) -> InvalidInputError:
        return InvalidInputError(f"Column '{self.name}' ({self.type}): {rule} {why}.")


class ContractSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A whole contract. `checks` names the functions that only its class can run: a server judges by the
    columns alone."""

    name: str
    columns: tuple[ColumnSpec, ...]
    unexpected: Unexpected = "refuse"
    checks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if not names:
            raise InvalidInputError(
                f"The contract '{self.name}' has no columns.", hint="Annotate some, as in `distance: float`."
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidInputError(f"The contract '{self.name}' has column '{twice[0]}' twice.")
        alike: dict[str, str] = {}
        for name in names:
            if (other := alike.setdefault(name.lower(), name)) != name:
                raise InvalidInputError(
                    f"The columns '{other}' and '{name}' differ in nothing but upper and lower case.",
                    hint="Rename one: tables do not tell them apart.",
                )

    def column(self, name: str) -> ColumnSpec | None:
        """The column of that name, if the contract knows it."""
        return next((column for column in self.columns if column.name == name), None)

    @staticmethod
    def of_schema(
        name: str, schema: Mapping[str, ColumnType], *, required: Collection[str] = ()
    ) -> ContractSpec:
        """The contract of rows that were given none: the columns and types that they began with, and values
        in those that are `required`."""
        return ContractSpec(
            name,
            tuple(
                ColumnSpec(column, kind, nullable=column not in required, finite=False)
                for column, kind in schema.items()
            ),
        )
