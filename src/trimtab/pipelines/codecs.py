"""Codecs: how a step's value becomes bytes, or files, and comes back exactly as it was.

A value's type names its codec without importing it: by the class attribute `__trimtab_codec__`
("module:object"), by the built-in table below, or by an entry point of the group `trimtab.codecs` whose
name is the type's full name. What has no codec is pickled, in step processes only.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import math
import traceback
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from trimtab.errors import InvalidInputError, RefusedError, TrimtabError
from trimtab.pipelines.modules import is_first_party

GROUP = "trimtab.codecs"
_BUILTIN_MODULES = "trimtab.pipelines.frames:"


class Codec(Protocol):
    """The port of a codec.

    `encode` writes the value to `to`, as a file or as a folder; equal values should give equal bytes,
    since their digest is what a cache key sees. `decode` reads what `encode` wrote.
    """

    def encode(self, value: Any, to: Path) -> None:
        """Write the value to the path `to`, at which nothing stands yet."""
        ...

    def decode(self, at: Path) -> object:
        """Read the value that stands at the path."""
        ...


class BytesCodec(Protocol):
    """A codec of small things, which needs no files."""

    def to_bytes(self, value: Any) -> bytes:
        """The value as bytes."""
        ...

    def from_bytes(self, data: bytes) -> object:
        """The value again."""
        ...


class JsonCodec:
    """Builtins that JSON gives back unchanged: None, bool, int, finite float, str, and lists and
    string-keyed dicts of them."""

    def to_bytes(self, value: object) -> bytes:
        """The value as compact JSON, with the order of keys kept."""
        return msgspec.json.encode(value)

    def from_bytes(self, data: bytes) -> object:
        """The value again."""
        return msgspec.json.decode(data)


_TUPLE, _SET, _FROZENSET, _DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _INT, _DICT = range(1, 11)


class BuiltinsCodec:
    """All other builtins: MessagePack, with extensions for what it would not give back unchanged."""

    def to_bytes(self, value: object) -> bytes:
        """The value as MessagePack."""
        return msgspec.msgpack.encode(_marked(value))

    def from_bytes(self, data: bytes) -> object:
        """The value again."""
        return msgspec.msgpack.decode(data, ext_hook=_unmarked)


def _marked(value: object) -> object:
    """The value with everything that MessagePack lacks replaced by extensions. Sets are sorted by their
    bytes, so that equal sets have equal bytes."""
    kind = type(value)
    if kind is int and not -(2**63) <= cast("int", value) < 2**63:
        return msgspec.msgpack.Ext(_INT, str(value).encode())
    if kind is list:
        return [_marked(item) for item in cast("list[object]", value)]
    if kind is dict:
        entries = cast("dict[object, object]", value)
        if all(type(key) is str for key in entries):
            return {key: _marked(item) for key, item in entries.items()}
        return _extension(_DICT, [[_marked(key), _marked(item)] for key, item in entries.items()])
    if kind is tuple:
        return _extension(_TUPLE, [_marked(item) for item in cast("tuple[object, ...]", value)])
    if kind in (set, frozenset):
        items = sorted(msgspec.msgpack.encode(_marked(item)) for item in cast("set[object]", value))
        return _extension(_SET if kind is set else _FROZENSET, [msgspec.Raw(item) for item in items])
    if kind in _TEXTS:
        return msgspec.msgpack.Ext(*_TEXTS[kind](value))
    return value


_TEXTS: dict[type, Callable[[Any], tuple[int, bytes]]] = {
    datetime: lambda value: (_DATETIME, value.isoformat().encode()),
    date: lambda value: (_DATE, value.isoformat().encode()),
    time: lambda value: (_TIME, value.isoformat().encode()),
    timedelta: lambda value: (_TIMEDELTA, f"{value.days},{value.seconds},{value.microseconds}".encode()),
    Decimal: lambda value: (_DECIMAL, str(value).encode()),
}


def _extension(code: int, items: list[Any]) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, msgspec.msgpack.encode(items))


def _unmarked(code: int, data: memoryview) -> object:
    raw = bytes(data)
    if code in (_TUPLE, _SET, _FROZENSET, _DICT):
        items = msgspec.msgpack.decode(raw, ext_hook=_unmarked)
        builders: dict[int, Callable[[Any], object]] = {
            _TUPLE: tuple,
            _SET: set,
            _FROZENSET: frozenset,
            _DICT: dict,
        }
        return builders[code](items)
    text = raw.decode()
    if code == _TIMEDELTA:
        days, seconds, microseconds = (int(part) for part in text.split(","))
        return timedelta(days, seconds, microseconds)
    readers: dict[int, Callable[[str], object]] = {
        _DATETIME: datetime.fromisoformat,
        _DATE: date.fromisoformat,
        _TIME: time.fromisoformat,
        _DECIMAL: Decimal,
        _INT: int,
    }
    return readers[code](text)


class RecordCodec:
    """Structs and dataclasses of simple fields: the type's name and the fields as JSON."""

    def to_bytes(self, value: object) -> bytes:
        """The value as JSON; raises TypeError if that would not give back an equal value."""
        kind = type(value)
        name = f"{kind.__module__}:{kind.__qualname__}"
        if "<" in name or kind.__module__ == "__main__":
            raise TypeError(f"{name} cannot be imported")
        data = msgspec.json.encode([name, value])
        if self._decoded(data, kind) != value:
            raise TypeError(f"{name} does not survive JSON")
        return data

    def from_bytes(self, data: bytes) -> object:
        """The value again; imports its type."""
        name: str = msgspec.json.decode(data, type=list[Any])[0]
        return self._decoded(data, cast("type", load_object(name)))

    def _decoded(self, data: bytes, kind: type) -> object:
        content = msgspec.json.decode(data, type=list[msgspec.Raw])[1]
        return msgspec.json.decode(content, type=kind)


class PickleCodec:
    """Everything else, by cloudpickle. Reading it runs code, so only step processes may."""

    def to_bytes(self, value: object) -> bytes:
        """The value pickled; raises InvalidInputError if it cannot be."""
        cloudpickle = _cloudpickle()

        try:
            return cast("bytes", cloudpickle.dumps(value))
        except Exception as error:  # whatever the value's own reducers raise
            raise InvalidInputError(
                f"A {type(value).__module__}.{type(value).__qualname__} cannot be passed on: {error}.",
                hint=f"Return something else, or register a codec for it (entry points '{GROUP}').",
            ) from error

    def from_bytes(self, data: bytes) -> object:
        """The value again."""
        return cast("object", _cloudpickle().loads(data))


def _cloudpickle() -> Any:
    return importlib.import_module("cloudpickle")  # only steps whose values have no codec need it


JSON, BUILTINS, RECORD, PICKLE = "json", "builtins", "record", "pickle"

_SMALL: dict[str, BytesCodec] = {
    JSON: JsonCodec(),
    BUILTINS: BuiltinsCodec(),
    RECORD: RecordCodec(),
    PICKLE: PickleCodec(),
}
RUNS_CODE = frozenset({RECORD, PICKLE})
"""The codecs that import, or run, what the stored bytes name."""

_BY_TYPE = {
    "polars.dataframe.frame.DataFrame": "polars",
    "polars.series.series.Series": "polars-series",
    "numpy.ndarray": "numpy",
    "numpy.generic": "numpy",
    "pyarrow.lib.Table": "arrow",
    "pandas.DataFrame": "pandas",
    "pandas.core.frame.DataFrame": "pandas",
    "pathlib.PosixPath": "path",
}
_BY_NAME = {
    "polars": f"{_BUILTIN_MODULES}PolarsCodec",
    "polars-series": f"{_BUILTIN_MODULES}PolarsSeriesCodec",
    "numpy": f"{_BUILTIN_MODULES}NumpyCodec",
    "arrow": f"{_BUILTIN_MODULES}ArrowCodec",
    "pandas": f"{_BUILTIN_MODULES}PandasCodec",
    "path": f"{_BUILTIN_MODULES}PathCodec",
}


def codec_name(value: object) -> str:
    """The name under which the codec of this value is stored and found again."""
    if is_builtin(value):
        return JSON if is_json(value) else BUILTINS
    for kind in type(value).__mro__:
        declared = kind.__dict__.get("__trimtab_codec__")
        if declared is not None:
            return str(declared)
        known = _BY_TYPE.get(f"{kind.__module__}.{kind.__qualname__}")
        if known is not None:
            return known
    entry = _entry_point(type(value))
    if entry is not None:
        return entry
    if isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(value):
        try:
            _SMALL[RECORD].to_bytes(value)
        except (TypeError, ValueError, msgspec.MsgspecError):
            return PICKLE
        return RECORD
    return PICKLE


def small_codec(name: str) -> BytesCodec | None:
    """The codec of that name, if it is one that needs no files."""
    return _SMALL.get(name)


def file_codec(name: str) -> Codec:
    """The codec of that name, loaded now; raises InvalidInputError if there is none."""
    target = cast("Any", load_object(_BY_NAME.get(name, name)))
    return cast("Codec", target() if isinstance(target, type) else target)


def check_trusted(name: str) -> None:
    """Raise RefusedError for a codec whose bytes decide what code is run.

    Processes that serve (server, gateway, controller) read values of built-in codecs only.
    """
    if name in RUNS_CODE or not (name in _SMALL or name in _BY_NAME or name.startswith("trimtab.")):
        raise RefusedError(
            f"A value stored by '{name}' is read in step processes only.",
            hint="Return a table, an array, a model or plain values from the step.",
        )


def load_object(reference: str) -> object:
    """What "module:object" names.

    Raises InvalidInputError if there is no such thing or its module fails to import, and what Trimtab
    itself raises while the module is imported.
    """
    module, _, name = reference.partition(":")
    try:
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except TrimtabError:
        raise
    except AttributeError as error:
        raise InvalidInputError(
            f"'{reference}' cannot be loaded: {error}.", hint="Write it as 'module:name'."
        ) from error
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        raise InvalidInputError(
            f"'{reference}' cannot be loaded: {type(error).__qualname__}: {error}{_place(error)}.",
            hint="Write it as 'module:name', and see that the module can be imported.",
        ) from error
    return found


def _place(error: BaseException) -> str:
    """Where in the user's own code it happened; "" if the error says so itself, or if nowhere there."""
    if isinstance(error, SyntaxError):
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if each.filename[0] != "<" and is_first_party(Path(each.filename))]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def is_builtin(value: object) -> bool:
    """Whether a value is made of builtins alone, through all levels."""
    kind = type(value)
    if kind is str:
        return _is_text(cast("str", value))
    if kind in (datetime, time):
        return _is_plain_time(cast("datetime | time", value))
    if kind in _SCALARS:
        return True
    if kind in (list, tuple, set, frozenset):
        return all(is_builtin(item) for item in cast("list[object]", value))
    if kind is dict:
        entries = cast("dict[object, object]", value)
        return all(is_builtin(key) and is_builtin(item) for key, item in entries.items())
    return False


_SCALARS = frozenset({type(None), bool, int, float, bytes, date, timedelta, Decimal})


def is_json(value: object) -> bool:
    """Whether JSON gives back exactly this value."""
    kind = type(value)
    if kind is float:
        return math.isfinite(cast("float", value))
    if kind is int:
        return -(2**63) <= cast("int", value) < 2**63
    if kind in (type(None), bool, str):
        return True
    if kind is list:
        return all(is_json(item) for item in cast("list[object]", value))
    if kind is dict:
        entries = cast("dict[object, object]", value)
        return all(type(key) is str and is_json(key) and is_json(item) for key, item in entries.items())
    return False


def _is_text(value: str) -> bool:
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _is_plain_time(value: datetime | time) -> bool:
    """Whether its ISO text says all of it: no named zone, no repeated hour."""
    return value.fold == 0 and (value.tzinfo is None or type(value.tzinfo) is timezone)


def _entry_point(kind: type) -> str | None:
    wanted = f"{kind.__module__}.{kind.__qualname__}"
    for entry in importlib.metadata.entry_points(group=GROUP, name=wanted):
        return entry.value
    return None
