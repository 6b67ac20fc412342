"""What the expressions of packed steps may be built of, and how much of it.

That they run no code does not say that they cost nothing: whoever may register a model may make a gateway
work. What is held here is that no package ends the process, that reading one is a matter of a second at most,
and that applying it takes no more than in proportion to its length and to the rows: nothing among this makes
a text longer by itself, again and again.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import polars as pl
from polars.expr.whenthen import ChainedWhen, When


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


METHODS = _words("""
    abs alias and_ arccos arcsin arctan arctanh cast cbrt ceil clip cos cosh degrees eq eq_missing
    exp fill_nan fill_null floor floordiv ge gt is_between is_finite is_in is_infinite is_nan
    is_not_nan is_not_null is_null le log log10 log1p lt mod mul ne neg not_ or_ otherwise pow
    radians replace replace_strict round sign sin sinh sqrt sub tan tanh then truediv when xor
""")
"""Methods of expressions, and of what `pl.when` begins."""
WITHIN: Mapping[str, frozenset[str]] = {
    "dt": _words("""
        convert_time_zone date day epoch hour is_leap_year minute month ordinal_day quarter replace_time_zone
        second total_days total_hours total_minutes total_seconds truncate week weekday year
    """),
    "str": _words("""
        contains ends_with extract head len_bytes len_chars replace slice starts_with strip_chars
        strip_chars_end strip_chars_start strip_prefix strip_suffix tail to_lowercase to_uppercase
    """),
}
FUNCTIONS = _words("""
    all_horizontal any_horizontal coalesce col lit max_horizontal mean_horizontal min_horizontal
    sum_horizontal when
""")
TYPES = _words("""
    Boolean Categorical Date Datetime Duration Enum Float32 Float64 Int8 Int16 Int32 Int64 String UInt8 UInt16
    UInt32 UInt64 Utf8
""")
FRAME = _words("drop rename select with_columns")
OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
MOST = 5_000
"""Nodes of one expression, and items of a list. Beyond that, an expression that uses itself twice, again and
again, would be read for ever."""
DEEPEST = 100
"""How far one expression may stand inside another. Polars follows them on the stack, and ends the process
where that is full (some thousands)."""
METHODS_OF_FRAME = 20
"""How many selections may follow each other; each makes a whole frame."""

PLAIN = (bool, int, float, str, bytes, type(None))


class NotExpressionsError(Exception):
    """Why a step is more than expressions; its text goes on from "the step"."""


class Built(NamedTuple):
    """An expression, or what `pl.when` is on its way to one, how many nodes it has, how deep it is, what it
    is built of, and whether it `adds`, as texts can be."""

    expr: Any
    size: int
    depth: int
    parts: tuple[Built, ...] = ()
    adds: bool = False


def operated(op: ast.AST, *operands: Any) -> Any:
    """What an operator makes of expressions, or of plain numbers."""
    work = OPERATORS.get(type(op))
    if work is None:
        raise NotExpressionsError(f"has the operator {type(op).__name__}")
    # A text formats what comes after its %; and a list is given to Polars by name only, where it is counted.
    formats = isinstance(op, ast.Mod) and isinstance(operands[0], str | bytes)
    if any(isinstance(operand, Built) for operand in operands):
        if not formats and all(isinstance(operand, (Built, *PLAIN)) for operand in operands):
            made = made_of(work, list(operands), {})
            both = all(isinstance(operand, Built) for operand in operands)
            return made._replace(adds=isinstance(op, ast.Add) and both)
    elif all(type(operand) in (int, float) for operand in operands) and not isinstance(op, ast.Pow):
        return constant(work(*operands))
    if isinstance(op, ast.Add) and all(type(operand) is list for operand in operands):
        return short(operands[0] + operands[1])
    raise NotExpressionsError(f"has the operator {type(op).__name__} between {_kinds(operands)}")


def made_of(work: Callable[..., Any], args: list[Any], named: Mapping[str, Any], of: Any = 0) -> Built:
    """The expression that Polars builds of these arguments; `of` is what the method belongs to."""
    size, depth = extent((of, *args, *named.values()))
    made = work(*map(bare, args), **{key: bare(value) for key, value in named.items()})
    if not isinstance(made, pl.Expr | When | ChainedWhen):
        raise NotExpressionsError(f"makes a {type(made).__name__} of expressions")
    return Built(made, size, depth, tuple(_builts((of, args, dict(named)))))


def _builts(value: Any) -> Iterator[Built]:
    if isinstance(value, Built):
        yield value
    elif type(value) in (list, tuple):
        for item in value:
            yield from _builts(item)
    elif type(value) is dict:
        yield from _builts((*value, *value.values()))


def sums_of(*values: Any) -> list[Built]:
    """The sums among what these values are built of, each once."""
    found, pending = {}, list(_builts(values))
    while pending:
        built = pending.pop()
        if id(built) not in found:
            found[id(built)] = built
            pending.extend(built.parts)
    return [built for built in found.values() if built.adds]


def check_sum(expr: pl.Expr, frame: pl.LazyFrame) -> None:
    """Raise NotExpressionsError for a sum that puts texts together, and what Polars raises."""
    for dtype in frame.select(expr).collect_schema().dtypes():
        if not (dtype.is_numeric() or dtype.is_temporal() or dtype in (pl.Boolean, pl.Null)):
            raise NotExpressionsError("puts texts together")


def check_replaces_once(args: list[Any], named: Mapping[str, Any]) -> None:
    """Raise NotExpressionsError unless `str.replace` puts one plain text in the place of one."""
    given = dict(zip(("pattern", "value"), args, strict=False)) | dict(named)
    value = given.get("value")
    if not isinstance(value, str) or not set(given) <= {"pattern", "value", "literal"} or len(args) > 2:
        raise NotExpressionsError("replaces in a text by what is no plain text, or more than once")
    if "$" in value and given.get("literal") is not True:
        raise NotExpressionsError("replaces in a text by parts of itself")


def extent(value: Any) -> tuple[int, int]:
    """How much there is in a value, and how deep; raises NotExpressionsError as soon as that is too much."""
    if isinstance(value, Built):
        return value.size, value.depth
    if isinstance(value, str | bytes):
        return 1 + len(value) // 100, 0
    if type(value) is dict:
        value = (*value, *value.values())
    if type(value) not in (list, tuple):
        return 1, 0
    size, depth = 1, 0
    for item in value:
        more, below = extent(item)
        size, depth = size + more, max(depth, below + 1)
        if size > MOST:
            raise NotExpressionsError("has a list or an expression that is too large")
        if depth > DEEPEST:
            raise NotExpressionsError("has a list or an expression that is nested too deeply")
    return size, depth


def bare(value: Any) -> Any:
    """A value as Polars takes it; raises NotExpressionsError for one that it must not be given."""
    if isinstance(value, Built):
        return value.expr
    if isinstance(value, list):
        return [bare(item) for item in value]
    if type(value) is tuple:
        return tuple(bare(item) for item in value)
    if isinstance(value, dict):
        return {bare(key): bare(item) for key, item in value.items()}
    if isinstance(value, (*PLAIN, pl.DataType)):
        return value
    if isinstance(value, type) and issubclass(value, pl.DataType):
        return value
    raise NotExpressionsError(f"gives a {type(value).__name__.strip('_')} to Polars")


def constant(value: Any) -> Any:
    """A plain value, if it is no larger than what a column holds: Python would compute with numbers of any
    length, for seconds, and nothing else of the process runs meanwhile."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise NotExpressionsError("has a number that is too large")
    if isinstance(value, str | bytes):
        return short(value)
    if isinstance(value, list | tuple | set | dict):
        for item in (*value, *(value.values() if isinstance(value, dict) else ())):
            constant(item)
        return value if isinstance(value, set) else short(value)
    return value


def short(value: Any) -> Any:
    """The text or the list, with all that is in it, if it is not too long."""
    if len(value) > MOST:
        raise NotExpressionsError("has a list or a text that is too long")
    extent(value)
    return value


def _kinds(values: tuple[Any, ...]) -> str:
    return " and ".join(type(value).__name__.strip("_") for value in values)


def listed(value: Any) -> list[Any]:
    """The items of a plain list, or the keys of a dictionary."""
    if type(value) not in (list, tuple, dict) or len(value) > MOST:
        raise NotExpressionsError("goes through what is no list")
    return list(value)
