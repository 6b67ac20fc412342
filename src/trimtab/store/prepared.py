"""Statements of the paths that thousands of small calls take: compiled once, then run by the driver itself.

What SQLAlchemy does around a statement takes ten times as long as SQLite needs to run it. The statements are
still SQLAlchemy's, so they are written once for both databases, and values pass through the columns' types.
"""

from __future__ import annotations

import operator
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BindParameter,
    Boolean,
    ColumnElement,
    Connection,
    Dialect,
    Executable,
    Select,
    TypeDecorator,
    bindparam,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import NullType

Converter = Callable[[Any], Any]


class Prepared:
    """A statement whose parameters are named with `bindparam`; `columns` are those that an insert sets.

    A list of any length it takes by `among`; the text of a statement with `in_` differs from call to call.
    """

    def __init__(self, statement: Executable, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: Connection, **parameters: Any) -> list[Any]:
        """All rows, as named tuples of the selected columns."""
        found = self.tuples(connection, **parameters)
        return self._compiled[connection.dialect.name].converted(found)

    def tuples(self, connection: Connection, **parameters: Any) -> list[Any]:
        """All rows as the driver has them: for thousands of rows of numbers and texts."""
        compiled, driver = self._begun(connection)
        try:
            found: list[Any] = driver.execute(compiled.text, compiled.arguments(parameters)).fetchall()
        except compiled.failures as error:
            raise compiled.told(error) from error
        return found

    def first(self, connection: Connection, **parameters: Any) -> Any | None:
        """The first row, or None."""
        found = self.rows(connection, **parameters)
        return found[0] if found else None

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Run the statement once for each set of parameters; answers how many rows it changed."""
        compiled, driver = self._begun(connection)
        try:
            if len(rows) == 1:
                return int(driver.execute(compiled.text, compiled.arguments(rows[0])).rowcount)
            cursor = driver.cursor()
            cursor.executemany(compiled.text, [compiled.arguments(row) for row in rows])
            return int(cursor.rowcount)
        except compiled.failures as error:
            raise compiled.told(error) from error

    def _begun(self, connection: Connection) -> tuple[_Compiled, Any]:
        """The statement for this database, and the driver's own connection, in a transaction."""
        if not connection.in_transaction():
            connection.begin()
        compiled = self._compiled.get(connection.dialect.name)
        if compiled is None:
            compiled = _Compiled(self._statement, self._columns, connection.dialect)
            self._compiled[connection.dialect.name] = compiled
        return compiled, connection.connection.driver_connection


class _Compiled:
    """A statement for one dialect."""

    def __init__(self, statement: Executable, columns: Sequence[str] | None, dialect: Dialect) -> None:
        compiled: SQLCompiler = statement.compile(  # type: ignore[attr-defined]  # every statement has it
            dialect=dialect, column_keys=None if columns is None else list(columns)
        )
        self._dialect = dialect
        self.failures: type[Exception] = dialect.loaded_dbapi.Error
        # Numbers and texts go to both drivers, and come from them, as they are; our own types convert.
        self._converters = {
            name: convert
            for name, bind in compiled.binds.items()
            if isinstance(bind.type, TypeDecorator)
            and (convert := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }
        self._constants = {
            name: bind.value if name not in self._converters else self._converters[name](bind.value)
            for name, bind in compiled.binds.items()
            if not bind.required and bind.value is not None
        }
        self.text = str(compiled)
        if compiled.positiontup is None:  # parameters go by their names
            self._placed: Callable[[Mapping[str, Any]], Any] = dict
        elif len(compiled.positiontup) == 1:
            (only,) = compiled.positiontup
            self._placed = lambda bound: (bound[only],)
        else:
            self._placed = operator.itemgetter(*compiled.positiontup) if compiled.positiontup else _nothing
        if isinstance(statement, Select):
            selected = statement.selected_columns
            self._row = _maker(selected.keys())
            self._results = [
                (place, convert)
                for place, column in enumerate(selected)
                if isinstance(column.type, TypeDecorator)
                and (convert := column.type.dialect_impl(dialect).result_processor(dialect, None)) is not None
            ]

    def arguments(self, parameters: Mapping[str, Any]) -> Any:
        """What the driver is given for these parameters."""
        if not self._converters and not self._constants:
            return self._placed(parameters)
        bound = {**self._constants, **parameters}
        for name, convert in self._converters.items():
            if name in parameters:
                bound[name] = convert(bound[name])
        return self._placed(bound)

    def converted(self, found: list[Sequence[Any]]) -> list[Any]:
        """The driver's rows as the columns' types have them."""
        if not self._results:
            return [self._row(row) for row in found]
        rows = []
        for row in found:
            values = list(row)
            for place, convert in self._results:
                values[place] = convert(values[place])
            rows.append(self._row(values))
        return rows

    def told(self, error: Exception) -> BaseException:
        """An error of the driver's as SQLAlchemy raises it, whose classes the callers know."""
        return DBAPIError.instance(self.text, None, error, self.failures, dialect=self._dialect)


def _nothing(_: Mapping[str, Any]) -> tuple[()]:
    """The arguments of a statement without parameters."""
    return ()


class among(ColumnElement[bool]):  # noqa: N801  (reads like SQLAlchemy's own functions)
    """Whether a column of whole numbers is one of the list that the parameter `name` gives."""

    inherit_cache = True
    type = Boolean()

    def __init__(self, column: ColumnElement[int], name: str) -> None:
        self.column = column
        self.numbers: BindParameter[list[int]] = bindparam(name, type_=_Numbers())

    def self_group(self, against: object = None) -> among:
        """As it is: "= 1" behind it, as for other truths in SQLite, would keep every index out of use."""
        return self


@compiles(among, "sqlite")
def _among_in_sqlite(element: among, compiler: SQLCompiler, **options: Any) -> str:
    column, numbers = (
        compiler.process(element.column, **options),
        compiler.process(element.numbers, **options),
    )
    return f"{column} IN (SELECT value FROM json_each({numbers}))"  # noqa: S608  (both come from the compiler)


@compiles(among, "postgresql")
def _among_in_postgres(element: among, compiler: SQLCompiler, **options: Any) -> str:
    column, numbers = (
        compiler.process(element.column, **options),
        compiler.process(element.numbers, **options),
    )
    return f"{column} = ANY({numbers})"


class _Numbers(TypeDecorator[list[int]]):
    """A list of whole numbers, as a parameter only."""

    impl = NullType
    cache_ok = True

    def process_bind_param(self, value: list[int] | None, dialect: Dialect) -> list[int] | str | None:
        """JSON text where the database has no arrays."""
        return value if value is None or dialect.name == "postgresql" else msgspec.json.encode(value).decode()


def _maker(columns: Iterable[str]) -> Callable[[Iterable[Any]], Any]:
    """What makes a row of these columns."""
    maker: Callable[[Iterable[Any]], Any] = namedtuple("Row", columns)._make  # type: ignore[attr-defined]  # typeshed hides it
    return maker
