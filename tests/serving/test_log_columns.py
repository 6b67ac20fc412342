from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trimtab.monitoring.outcomes import Outcomes
from trimtab.serving.frames import ColumnKind, EntryFrame, Frame, LabelFrame, RowFrame, RowsFrame, encoded
from trimtab.serving.log_columns import cells_of
from trimtab.serving.log_indexer import LogIndexer
from trimtab.serving.segments import FOLDER, Limits, SegmentWriter, segments
from trimtab.serving.shipping import Shipper
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

KINDS: tuple[ColumnKind, ...] = ("number", "integer", "boolean", "text")
EARLIEST = to_microseconds(datetime(1900, 1, 1, tzinfo=UTC))
LATEST = to_microseconds(datetime(2999, 12, 31, tzinfo=UTC))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([2**63, 2**63 - 1, -(2**63), 1e300, -1e300, 2.0**63, 1.7e308, 5e-324, -0.0])
    | st.floats()
    | texts
)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
times = st.integers(EARLIEST, LATEST)
keys = st.none() | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
)
scores = st.none() | st.floats()
rows = st.tuples(st.lists(values, min_size=len(KINDS), max_size=len(KINDS)), times, keys, scores)
labels = st.floats() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | texts
_number = itertools.count()


def entry(endpoint: str) -> EntryFrame:
    return EntryFrame(1, endpoint, 1, "m", (1, 2), ("primary", "shadow"), tuple("abcd"), KINDS)


def frames_of(some: list[Any], endpoint: str) -> list[Frame]:
    """Rows that came alone, and then the same rows as those of one request."""
    alone: list[Frame] = [
        RowFrame(1, f"p{place}", at, key, 0, given, [score, 1.0], 5)
        for place, (given, at, key, score) in enumerate(some)
    ]
    columns: Any = [list(column) for column in zip(*(given for given, *_ in some), strict=True)]
    said: Any = [[score for *_, score in some], None]
    together = RowsFrame(1, "r", some[0][1], [row[2] for row in some], [0] * len(some), columns, said, 5)
    return [*alone, together]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=20,
    deadline=None,
)
@given(some=st.lists(rows, min_size=1, max_size=4), learned=st.lists(labels, max_size=3))
@example(some=[([2**63, 2**63, 1, "a"], LATEST, "k", 1.0)], learned=[float("nan")])
@example(some=[([1.7e308] * 4, EARLIEST, None, 1.7e308)] * 3, learned=[float("inf")])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the variance of such numbers is beyond floats
def test_whatever_a_request_may_have_logged_is_indexed_and_shipped(
    any_workspace: Workspace, some: list[Any], learned: list[Any]
) -> None:
    folder, endpoint = any_workspace.root / FOLDER, f"e{next(_number)}"
    writer, indexer = SegmentWriter(folder, Limits()), LogIndexer(folder)
    for frame in frames_of(some, endpoint):
        writer.append(encoded(frame), rows=1, at=0, entry=entry(endpoint))
        indexer.index(any_workspace)
    for label in learned:
        writer.append(encoded(LabelFrame(endpoint, label, LATEST, id="p0")), rows=1, at=0)
    writer.close()
    writer.sync()
    indexer.index(any_workspace)
    assert Shipper(folder).ship(any_workspace) == 1
    assert list(segments(folder)) == []
    together = [f"r.{row}" if len(some) > 1 else "r" for row in range(len(some))]
    expected = [*(f"p{row}" for row in range(len(some))), *together]
    assert sorted(any_workspace.tables.read(f"predictions/{endpoint}")["id"]) == sorted(expected)
    assert Outcomes(any_workspace).counts(endpoint)[0] == 2 * len(some)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, None),
        (2.0**63, None),
        (1e300, None),
        (3.0, 3),
        (3.5, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        ("3", None),
    ],
)
def test_a_whole_number_that_fits_no_column_is_missing(value: object, kept: int | None) -> None:
    assert cells_of("integer", [value]) == [kept]
