"""Values come back as they went."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import InvalidInputError, RefusedError
from trimtab.pipelines import codecs
from trimtab.pipelines.values import Branch, Leaf, ValueStore, digest_of, load, pack, select, unpack
from trimtab.store.blobs import open_blobs


class Point(msgspec.Struct, frozen=True):
    """A struct of simple fields."""

    x: int
    tags: tuple[str, ...] = ()


@dataclasses.dataclass
class Odd:
    """A dataclass whose field JSON does not give back."""

    value: object


def no_rows(_wanted: object) -> object:
    raise AssertionError


def there_and_back(value: object, folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    return unpack(pack(value, folder), folder, no_rows)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
)
hashable = st.recursive(scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=5)
builtins = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.sets(hashable, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=4)
    ),
    max_leaves=10,
)


def same(left: Any, right: Any) -> bool:
    """Equal, of the same types, through all levels; NaN is itself."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or (
            left == right and math.copysign(1, left) == math.copysign(1, right)
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left), list(right)) and same(list(left.values()), list(right.values()))
    if isinstance(left, set | frozenset):
        return len(left) == len(right) and all(any(same(one, other) for other in right) for one in left)
    return bool(left == right)


@given(builtins)
def test_builtins_come_back_as_they_went(value: object) -> None:
    name = codecs.codec_name(value)
    codec = codecs.small_codec(name)
    assert codec is not None
    assert name in {codecs.JSON, codecs.BUILTINS, codecs.PICKLE}
    assert same(codec.from_bytes(codec.to_bytes(value)), value)


@given(builtins)
def test_equal_builtins_have_equal_bytes(value: object) -> None:
    name = codecs.codec_name(value)
    codec = codecs.small_codec(name)
    assert codec is not None
    again = codec.from_bytes(codec.to_bytes(value))
    assert codecs.codec_name(again) == name
    if name != codecs.PICKLE:
        assert codec.to_bytes(again) == codec.to_bytes(value)


@pytest.mark.parametrize("value", [True, 1, 1.0, "1", None, [1, {"a": [None, 2.5]}], {"n": 1, "m": "ü"}])
def test_plain_json_is_stored_as_json(value: object) -> None:
    assert codecs.codec_name(value) == codecs.JSON


@pytest.mark.parametrize(
    "value",
    [
        *((1, 2), {1: "a"}, {1, 2}, float("nan"), 2**80, b"x", [(1,)]),
        *(datetime(2012, 1, 1, tzinfo=UTC), date(2012, 1, 1), time(3), timedelta(1), Decimal("1.10")),
    ],
)
def test_what_json_would_change_is_not_stored_as_json(value: object) -> None:
    assert codecs.codec_name(value) == codecs.BUILTINS


def test_tables_and_arrays_come_back(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "at": [datetime(2012, 1, 1, tzinfo=UTC), None],
            "n": [1, 2],
            "c": pl.Series(["a", "b"], dtype=pl.Categorical),
        }
    )
    assert there_and_back(frame, tmp_path).equals(frame)
    assert there_and_back(frame, tmp_path).schema == frame.schema
    assert there_and_back(frame["n"], tmp_path).equals(frame["n"])
    table = pa.table({"x": [1, None], "y": ["a", "b"]})
    assert there_and_back(table, tmp_path).equals(table)
    array = np.arange(6, dtype="float32").reshape(2, 3)
    assert np.array_equal(there_and_back(array, tmp_path), array)
    assert there_and_back(np.float32(1.5), tmp_path) == np.float32(1.5)
    assert type(there_and_back(np.float32(1.5), tmp_path)) is np.float32
    assert there_and_back(np.array(3), tmp_path).shape == ()
    pandas_frame = pd.DataFrame({"a": [1.5, None]}, index=pd.Index(["x", "y"], name="key"))
    pd.testing.assert_frame_equal(there_and_back(pandas_frame, tmp_path), pandas_frame)


def test_frames_of_different_chunks_have_the_same_digest(tmp_path: Path) -> None:
    blobs = open_blobs("memory://")
    whole = pl.DataFrame({"x": [1, 2, 3, 4]})
    parts = pl.concat([whole[:2], whole[2:]], rechunk=False)
    store = ValueStore(blobs, tmp_path)
    assert store.keep(pack(whole, tmp_path)) == store.keep(pack(parts, tmp_path))


def test_structs_and_dataclasses_come_back(tmp_path: Path) -> None:
    point = Point(1, ("a",))
    assert codecs.codec_name(point) == codecs.RECORD
    assert there_and_back(point, tmp_path) == point
    odd = Odd((1, 2))
    assert codecs.codec_name(odd) == codecs.PICKLE
    assert there_and_back(odd, tmp_path) == odd


def test_a_class_names_its_own_codec(tmp_path: Path) -> None:
    value = Named("x")
    assert codecs.codec_name(value) == f"{__name__}:NamedCodec"
    assert there_and_back(value, tmp_path).text == "x"


class Named:
    """A value whose type says how it is kept: as a folder."""

    __trimtab_codec__ = f"{__name__}:NamedCodec"

    def __init__(self, text: str) -> None:
        self.text = text


class NamedCodec:
    """Keeps a Named."""

    def encode(self, value: Named, to: Path) -> None:
        to.mkdir()
        (to / "text").write_text(value.text)

    def decode(self, at: Path) -> Named:
        return Named((at / "text").read_text())


def test_a_path_stands_for_the_file_or_folder_there(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.txt").write_text("a")
    store = ValueStore(open_blobs("memory://"), tmp_path / "store")
    (tmp_path / "store").mkdir()
    stored = store.keep(pack(tmp_path / "made", tmp_path / "store"))
    assert isinstance(stored, Leaf)
    assert stored.tree
    back = unpack(store.supply(stored), tmp_path, no_rows)
    assert isinstance(back, Path)
    assert (back / "a.txt").read_text() == "a"
    with pytest.raises(InvalidInputError, match="nothing stands there"):
        pack(tmp_path / "missing", tmp_path)


def test_containers_of_tables_are_kept_part_by_part(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [1]})
    store = ValueStore(open_blobs("memory://"), tmp_path)
    stored = store.keep(pack({"train": frame, "info": (1, 2)}, tmp_path))
    assert isinstance(stored, Branch)
    part, rest = select(stored, ("train",))
    assert digest_of(part) == digest_of(store.keep(pack(frame, tmp_path)))
    assert rest == ()
    with pytest.raises(InvalidInputError, match="no part 'test'"):
        select(stored, ("test",))


def test_a_kept_value_outlives_the_files_of_its_run(tmp_path: Path) -> None:
    blobs = open_blobs(str(tmp_path / "blobs"))
    (tmp_path / "run").mkdir()
    store = ValueStore(blobs, tmp_path / "run")
    large = pl.DataFrame({"x": np.random.default_rng(1).normal(size=100_000)})
    stored = store.keep(pack({"large": large, "small": 1}, tmp_path / "run"))
    store.close()
    (tmp_path / "read").mkdir()
    found: Any = load(blobs, stored, tmp_path / "read")
    assert found["large"].equals(large)
    assert found["small"] == 1


def test_what_runs_code_is_read_in_step_processes_only(tmp_path: Path) -> None:
    store = ValueStore(open_blobs("memory://"), tmp_path)
    blobs = store._blobs
    for value in (Odd((1,)), Point(1), Named("x")):
        stored = store.keep(pack(value, tmp_path))
        with pytest.raises(RefusedError, match="step processes only"):
            load(blobs, stored, tmp_path)


def test_what_cannot_be_pickled_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="generator cannot be passed on"):
        pack((x for x in range(3)), tmp_path)
    with pytest.raises(InvalidInputError, match="Python objects"):
        pack(np.array([object()]), tmp_path)


def test_codecs_import_no_library_that_no_value_needs() -> None:
    code = (
        "import sys, trimtab.pipelines.task, trimtab.pipelines.codecs as c; c.codec_name({'a': (1, 2)}); "
        "print([m for m in ('polars', 'numpy', 'pandas', 'pyarrow', 'mlflow', 'sqlalchemy', 'cloudpickle', "
        "'pydantic') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
