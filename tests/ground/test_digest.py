"""Digests name content, whatever way it is held."""

from __future__ import annotations

from pathlib import Path

import msgspec
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from trimtab.digest import digest_bytes, digest_file, digest_json, is_digest

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.binary())
def test_a_digest_is_blake3_of_the_bytes(data: bytes) -> None:
    assert digest_bytes(data) == "b3:" + blake3(data).hexdigest()
    assert is_digest(digest_bytes(data))


def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    for size in (0, 1, 100_000):
        path = tmp_path / str(size)
        path.write_bytes(b"x" * size)
        assert digest_file(path) == digest_bytes(b"x" * size)


@given(st.dictionaries(st.text(), json_values))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    assert digest_json(value) == digest_json(dict(reversed(value.items())))


def test_a_struct_has_the_digest_of_its_json() -> None:
    class Point(msgspec.Struct):
        y: int
        x: int

    assert digest_json(Point(1, 2)) == digest_json({"x": 2, "y": 1})


def test_only_the_written_form_counts_as_a_digest() -> None:
    assert not is_digest("b3:" + "0" * 63)
    assert not is_digest("b3:" + "G" * 64)
    assert not is_digest("../" + "0" * 64)
