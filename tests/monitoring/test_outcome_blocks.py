"""Blocks hold what was put into them, in a few bytes a prediction, and are found by what labels say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sqlalchemy import func, select

from trimtab.monitoring.key_filter import key_filter, key_hash, may_have
from trimtab.monitoring.number_columns import pack_floats, pack_integers, unpack_floats, unpack_integers
from trimtab.monitoring.outcome_blocks import BLOCK_ROWS, Answers, Labels, labels_of, unpacked
from trimtab.monitoring.outcomes import (
    Answered,
    LabelCounts,
    LabelRecord,
    Outcomes,
    Span,
    prune,
    record_answers,
    record_labels,
)
from trimtab.monitoring.prediction_names import Names, name_of, shelved, shelved_heads
from trimtab.monitoring.schema import outcome_blocks_table as blocks
from trimtab.serving.prediction_ids import PredictionIds, row_ids
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

IDS = PredictionIds(bytes(32))
NOON = datetime(2011, 9, 1, 12, tzinfo=UTC)
AT = to_microseconds(NOON)
DAY = timedelta(days=1)


@given(arrays.arrays(np.int64, st.integers(0, 50), elements=st.integers(-(2**62), 2**61)))
def test_integers_come_back_as_they_were(values: np.ndarray) -> None:
    assert unpack_integers(pack_integers(values)).tolist() == values.tolist()


@given(
    arrays.arrays(np.float64, st.integers(0, 50))
    | st.builds(np.full, st.integers(0, 50), st.floats(width=64))
)
def test_floats_come_back_bit_by_bit(values: np.ndarray) -> None:
    np.testing.assert_equal(unpack_floats(pack_floats(values)), values)


@given(st.lists(st.text(max_size=5), min_size=1), st.text(max_size=5))
def test_a_filter_lets_every_key_of_its_own_pass(keys: list[str], other: str) -> None:
    asked = np.array([key_hash(key) for key in [*keys, other]], dtype=np.uint64)
    assert may_have(key_filter(set(keys)), asked)[:-1].all()


def test_a_filter_keeps_nearly_all_other_keys_out() -> None:
    passing = key_filter({f"mine-{number}" for number in range(BLOCK_ROWS)})
    others = np.array([key_hash(f"yours-{number}") for number in range(5000)], dtype=np.uint64)
    assert may_have(passing, others).mean() < 0.03


def test_ids_have_the_same_names_one_by_one_and_all_at_once() -> None:
    counts = [1, 3, 1, 1000, 1]
    heads = [IDS.mint("rides", count) for count in counts]
    ids = [id for head, count in zip(heads, counts, strict=True) for id in row_ids(head, count)]
    at_once = shelved_heads(heads, np.array(counts))
    assert at_once is not None
    ((rows, names),) = at_once
    ((_, single),) = shelved(ids)
    assert rows.tolist() == list(range(len(ids)))
    assert isinstance(names.places, np.ndarray)
    assert isinstance(single.places, np.ndarray)
    assert (names.shelf, names.places.tolist()) == (single.shelf, single.places.tolist())
    assert len(set(names.places.tolist())) == len(ids)
    assert names.rows_of([name_of(ids[700]).place, 5]) == [700, -1]


def test_texts_that_are_no_ids_of_a_gateway_are_names_by_themselves() -> None:
    for text in ("a", "", "x" * 27, "ü" * 28, "A" * 32 + ".99999999"):
        assert name_of(text) == (b"", text)
        assert shelved_heads([text], np.array([1])) is None


def test_a_block_and_its_labels_come_back_as_they_were() -> None:
    answers = Answers(
        Names(b"", ["a", "12", "c"]),
        np.array([AT, AT, AT + 5]),
        np.array([1, 2, 1]),
        np.array([0.1, np.nan, 3.0]),
        {2: np.array([np.nan, 5.0, 0.1])},
        ["k", None, "ü"],
    )
    found = unpacked(b"", answers.packed())
    assert found.names.places == ["a", "12", "c"]
    np.testing.assert_equal(found.answer, answers.answer)
    np.testing.assert_equal(found.scores, answers.scores)
    assert (found.at.tolist(), found.version.tolist(), found.keys) == (
        [AT, AT, AT + 5],
        [1, 2, 1],
        answers.keys,
    )
    labels = Labels()
    labels.set(2, 0.5, AT)
    labels.set(0, 1.0, AT)
    labels.set(2, 0.7, AT + 9)
    assert labels_of(labels.packed()) == Labels({0: 1.0, 2: 0.7}, {0: AT, 2: AT + 9}, {0: 0, 2: 1})
    assert labels_of(Labels().packed()) == Labels()


def asked(rows: int, *, heads: list[str] | None = None, start: int = 0, keys: bool = False) -> Answered:
    """So many predictions, a second apart."""
    at = AT + (start + np.arange(rows)) * 1_000_000
    made = heads or [IDS.mint("rides") for _ in range(rows)]
    return Answered(
        "rides",
        made,
        np.full(len(made), rows // len(made)),
        at,
        np.full(rows, 7),
        np.random.default_rng(start).random(rows),
        {},
        [f"k{start + row}" for row in range(rows)] if keys else None,
    )


def record(workspace: Workspace, rows: Answered) -> list[str]:
    workspace.write(lambda tx: record_answers(tx, rows))
    return rows.ids()


def label(value: float, **named: Any) -> LabelRecord:
    return LabelRecord(endpoint="rides", label=value, labelled_at=AT, **named)


def test_a_prediction_costs_a_few_bytes(workspace: Workspace) -> None:
    """The answer itself, in double precision, is eight of them."""
    for start in range(0, 20_000, 500):
        record(workspace, asked(500, start=start))
    columns = (blocks.c.answers, blocks.c.shelf, blocks.c.first_name, blocks.c.last_name, blocks.c.endpoint)
    with workspace.read() as connection:
        size = sum(connection.execute(select(func.sum(func.length(each)))).scalar_one() for each in columns)
        count = connection.execute(select(func.count()).select_from(blocks)).scalar_one()
    assert size + 100 * count < 14 * 20_000
    assert count < 20


def test_ids_of_requests_with_many_rows_are_found_in_their_blocks(any_workspace: Workspace) -> None:
    heads = [IDS.mint("rides", 1000) for _ in range(5)]
    ids = record(any_workspace, asked(5000, heads=heads))
    chosen = {0: 1.0, 999: 2.0, 1000: 3.0, 4999: 4.0}
    counts = any_workspace.write(
        lambda tx: record_labels(tx, [label(value, id=ids[row]) for row, value in chosen.items()])
    )
    assert counts == LabelCounts(joined=4)
    joined = Outcomes(any_workspace).joined("rides", NOON, NOON + DAY)
    assert {row: joined.label[row] for row in np.flatnonzero(joined.labelled)} == chosen


def test_labels_of_many_blocks_find_their_own_by_id_and_by_key(any_workspace: Workspace) -> None:
    rows = 3 * BLOCK_ROWS
    ids = []
    for start in range(0, rows, 1024):
        ids += record(any_workspace, asked(1024, start=start, keys=True))
    step = 97
    told = []
    for row in range(0, rows, step):
        at = AT + row * 1_000_000
        ways: list[dict[str, Any]] = [{"id": ids[row]}, {"key": f"k{row}", "at": at}, {"key": f"k{row}"}]
        named = ways[row % 3]
        told.append(label(float(row), **named))
    assert any_workspace.write(lambda tx: record_labels(tx, told)).joined == len(told)
    joined = Outcomes(any_workspace).joined("rides", NOON, NOON + DAY)
    assert joined.label[::step].tolist() == [float(row) for row in range(0, rows, step)]
    assert joined.labelled.sum() == len(told)


@pytest.mark.parametrize("more", [0, 400])
def test_labels_that_wait_find_predictions_however_many_others_wait(workspace: Workspace, more: int) -> None:
    rows = asked(100, keys=True)
    ids = rows.ids()
    waiting = [label(1.0, id=ids[3]), label(2.0, key="k4", at=int(rows.at[4])), label(3.0, key="k5")]
    waiting += [label(9.0, id=IDS.mint("rides")) for _ in range(more)]
    workspace.write(lambda tx: record_labels(tx, waiting))
    record(workspace, rows)
    joined = Outcomes(workspace).joined("rides", NOON, NOON + DAY)
    assert {row: joined.label[row] for row in np.flatnonzero(joined.labelled)} == {3: 1.0, 4: 2.0, 5: 3.0}
    assert Outcomes(workspace).counts("rides") == (100, 3, more)


def test_pruning_cuts_a_block_and_keeps_labels_with_their_predictions(workspace: Workspace) -> None:
    ids = record(workspace, asked(10))
    workspace.write(lambda tx: record_labels(tx, [label(float(row), id=id) for row, id in enumerate(ids)]))
    second = timedelta(seconds=1)
    kept = [Span("rides", NOON + 2 * second, NOON + 4 * second)]
    assert workspace.write(lambda tx: prune(tx, NOON + 7 * second, keep=kept)) == 5
    joined = Outcomes(workspace).joined("rides", NOON, NOON + DAY)
    assert joined.label.tolist() == [2, 3, 7, 8, 9]
    assert workspace.write(lambda tx: record_labels(tx, [label(0.5, id=ids[8])])) == LabelCounts(revised=1)
    assert workspace.write(lambda tx: prune(tx, NOON + DAY)) == 5
    assert Outcomes(workspace).counts("rides") == (0, 0, 0)
