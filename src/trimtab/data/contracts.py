"""Contracts: the schema and the quality rules that data must meet, written as a class.

    class Trips(Contract):
        distance: float = field(ge=0)
        city: Literal["Lyon", "Paris"]
        note: str | None

Judging ordinary rules needs Polars only. pandera is loaded by `to_pandera` and for contracts that were
written in it, since it takes 0.5 s and 20 MB, or 1 s and 100 MB where pandas is installed.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import msgspec
import polars as pl

from trimtab.clock import as_utc
from trimtab.data.spec import ColumnSpec, ColumnType, ContractSpec, Unexpected
from trimtab.data.violations import ROW, RowCheck, judge, violated
from trimtab.errors import InvalidInputError

if TYPE_CHECKING:
    import pandera.polars as pa

    AnyContract = type["Contract"] | ContractSpec | pa.DataFrameSchema | type[pa.DataFrameModel]

Bound = int | float | datetime | date
_Holds = Callable[[pl.DataFrame], pl.Expr | pl.Series]
_F = TypeVar("_F", bound="_Holds | staticmethod[[pl.DataFrame], pl.Expr | pl.Series]")

_TYPES: dict[object, ColumnType] = {
    float: "float",
    int: "int",
    str: "str",
    bool: "bool",
    datetime: "datetime",
    date: "date",
}


class _Field(msgspec.Struct, frozen=True):
    rules: dict[str, Any]
    name: str


def field(
    *,
    ge: Bound | None = None,
    gt: Bound | None = None,
    le: Bound | None = None,
    lt: Bound | None = None,
    isin: Iterable[str | int | float | bool] | None = None,
    regex: str | None = None,
    unique: bool = False,
    nullable: bool = False,
    required: bool = True,
    finite: bool = True,
    description: str = "",
    name: str = "",
) -> Any:
    """The rules of a contract's column; `ColumnSpec` says what each means.

    `name` is the column's name where Python could not spell it. The answer is typed as anything, so that
    `distance: float = field(ge=0)` is right for a type checker.
    """
    return _Field(
        {
            "ge": _bound(ge),
            "gt": _bound(gt),
            "le": _bound(le),
            "lt": _bound(lt),
            "isin": None if isin is None else tuple(isin),
            "regex": regex,
            "unique": unique,
            "nullable": nullable,
            "required": required,
            "finite": finite,
            "description": description,
        },
        name,
    )


def check(name: str) -> Callable[[_F], _F]:
    """Make a static method of a contract a rule over whole rows.

        @check("the parts add up")
        @staticmethod
        def adds_up(rows: pl.DataFrame) -> pl.Expr:
            return pl.col("casual") + pl.col("registered") == pl.col("cnt")

    It answers an expression, or a boolean column, that is true where the rule holds. Such a rule is applied
    where the class is at hand; a server, which holds no user code, judges by the columns' rules alone.
    """

    def mark(method: _F) -> _F:
        function: Any = getattr(method, "__func__", method)
        function.__trimtab_check__ = name
        return method

    return mark


class Contract:
    """The class that contracts are made from: annotate columns, give rules with `field`.

    `class Trips(Contract, unexpected="drop")` drops columns that it does not know, "keep" keeps them; by
    default such rows are refused.
    """

    __columns__: ClassVar[dict[str, ColumnSpec]] = {}
    __checks__: ClassVar[dict[str, RowCheck]] = {}
    __unexpected__: ClassVar[Unexpected] = "refuse"

    def __init_subclass__(cls, *, unexpected: Unexpected | None = None) -> None:
        super().__init_subclass__()
        if unexpected is not None:
            cls.__unexpected__ = unexpected
        hints = _annotations(cls)
        columns = dict(cls.__columns__)
        for attribute in inspect.get_annotations(cls):
            hint = hints[attribute]
            if typing.get_origin(hint) is ClassVar or attribute.startswith("__"):
                continue
            given = cls.__dict__.get(attribute, _Field({}, ""))
            if not isinstance(given, _Field):
                raise InvalidInputError(
                    f"{cls.__name__}.{attribute} = {given!r} is not a rule.", hint="Write tt.field(...)."
                )
            columns[attribute] = _column(cls.__name__, attribute, hint, given)
            if attribute in cls.__dict__:
                delattr(cls, attribute)  # a column may have the name of a method of Contract
        cls.__columns__ = columns
        cls.__checks__ = {**cls.__checks__, **_checks(cls)}

    @classmethod
    def spec(cls) -> ContractSpec:
        """This contract as data."""
        checks = tuple(check.name for check in cls.__checks__.values())
        return ContractSpec(cls.__name__, tuple(cls.__columns__.values()), cls.__unexpected__, checks)

    @classmethod
    def checks(cls) -> tuple[RowCheck, ...]:
        """The rules over whole rows."""
        return tuple(cls.__checks__.values())

    @classmethod
    def validate(cls, rows: pl.DataFrame) -> pl.DataFrame:
        """`rows` in the contract's columns and types; raises ContractViolationError if any row breaks it."""
        judgement = judge(cls.spec(), rows, cls.checks())
        if judgement.violations:
            raise violated(cls.spec(), "", judgement)
        return judgement.good.drop(ROW)

    @classmethod
    def to_pandera(cls) -> pa.DataFrameSchema:
        """The same rules as a schema of pandera.polars."""
        from trimtab.data import pandera_schema  # noqa: PLC0415  (heavy: see the top of this module)

        return pandera_schema.of_spec(cls.spec(), cls.checks())


def _column(contract: str, attribute: str, hint: object, given: _Field) -> ColumnSpec:
    where = f"{contract}.{attribute}"
    rules = dict(given.rules)
    inner, optional = _without_none(hint)
    if typing.get_origin(inner) is Literal:
        values = typing.get_args(inner)
        inner = type(values[0])
        rules.setdefault("isin", None)
        rules["isin"] = rules["isin"] or values
    kind = _TYPES.get(inner)
    if kind is None:
        raise InvalidInputError(
            f"{where} is annotated {inner!r}, which is no type of a column.",
            hint="Use float, int, str, bool, datetime, date, a Literal of these, or one of them | None.",
        )
    rules["nullable"] = rules.get("nullable", False) or optional
    return ColumnSpec(given.name or attribute, kind, **rules)


def _without_none(hint: object) -> tuple[Any, bool]:
    """An annotation without its `| None`, and whether it had one."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(inner) == 1:
            return inner[0], True
    return hint, False


def _annotations(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError as error:
        raise InvalidInputError(
            f"The contract '{cls.__name__}' has an annotation that cannot be read: {error}.",
            hint="Import what it names at the top of the module, not under TYPE_CHECKING.",
        ) from None


def _checks(cls: type) -> dict[str, RowCheck]:
    found = {}
    for attribute, member in vars(cls).items():
        function = getattr(member, "__func__", member)
        name = getattr(function, "__trimtab_check__", None)
        if name is not None:
            found[attribute] = RowCheck(name, function)
    return found


def _bound(bound: Bound | None) -> int | float | datetime | None:
    if isinstance(bound, datetime):
        return as_utc(bound)
    if isinstance(bound, date):
        return datetime.combine(bound, time.min, tzinfo=UTC)
    return bound


def contract_of(contract: object) -> tuple[ContractSpec, tuple[RowCheck, ...]]:
    """What a contract says, and the checks that only run where it is at hand.

    `contract` is a Contract class, a ContractSpec, or a schema or model of pandera.polars; raises
    InvalidInputError for anything else.
    """
    if isinstance(contract, ContractSpec):
        return contract, ()
    if isinstance(contract, type) and issubclass(contract, Contract):
        return contract.spec(), contract.checks()
    mro = contract.__mro__ if isinstance(contract, type) else type(contract).__mro__
    if any(parent.__module__.startswith("pandera.") for parent in mro):
        from trimtab.data import pandera_schema  # noqa: PLC0415  (heavy: see the top of this module)

        if pandera_schema.is_pandera(contract):
            return pandera_schema.to_spec(contract)
    raise InvalidInputError(
        f"{contract!r} is not a contract.", hint="Give a subclass of tt.Contract, or a pandera.polars schema."
    )
