"""Labels find their predictions, whichever comes first, and each counts once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.monitoring.outcomes import (
    LabelCounts,
    LabelRecord,
    Outcomes,
    PredictionRecord,
    prune,
    record_labels,
    record_predictions,
)
from trimtab.store.database import Transaction
from trimtab.store.types import to_microseconds
from trimtab.workspace import Workspace

NOON = datetime(2011, 9, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def prediction(
    id: str, *, hours: int = 0, key: str | None = None, endpoint: str = "bikes", **said: object
) -> PredictionRecord:
    given = {
        "version": 1,
        "answer": 10.0,
        "scores": {1: 10.0},
        **said,
    }
    return PredictionRecord(
        id=id,
        endpoint=endpoint,
        at=to_microseconds(NOON + hours * HOUR),
        key=key,
        **given,  # type: ignore[arg-type]  # the defaults above have the right types
    )


def label(
    value: float,
    *,
    id: str | None = None,
    key: str | None = None,
    hours: int | None = None,
    endpoint: str = "bikes",
    known: int = 1,
) -> LabelRecord:
    return LabelRecord(
        endpoint=endpoint,
        label=value,
        labelled_at=to_microseconds(NOON + known * HOUR),
        id=id,
        key=key,
        at=None if hours is None else to_microseconds(NOON + hours * HOUR),
    )


def record(workspace: Workspace, *rows: PredictionRecord) -> None:
    workspace.write(lambda tx: record_predictions(tx, rows))


def learn(workspace: Workspace, *rows: LabelRecord) -> LabelCounts:
    return workspace.write(lambda tx: record_labels(tx, rows))


def labels(workspace: Workspace, endpoint: str = "bikes") -> list[float | None]:
    joined = Outcomes(workspace).joined(endpoint, NOON - 1000 * HOUR, NOON + 1000 * HOUR)
    return [None if np.isnan(value) else float(value) for value in joined.label]


def test_a_label_joins_its_prediction_by_id(any_workspace: Workspace) -> None:
    record(any_workspace, prediction("a"), prediction("b", hours=1))
    assert learn(any_workspace, label(7.0, id="b")) == LabelCounts(joined=1)
    assert labels(any_workspace) == [None, 7.0]


def test_a_label_joins_its_prediction_by_key_and_time(any_workspace: Workspace) -> None:
    record(any_workspace, *(prediction(f"p{hour}", hours=hour, key="north") for hour in range(3)))
    assert learn(any_workspace, label(7.0, key="north", hours=1)).joined == 1
    assert labels(any_workspace) == [None, 7.0, None]


def test_a_label_by_key_and_time_never_lands_on_an_earlier_prediction_of_that_key(
    any_workspace: Workspace,
) -> None:
    record(any_workspace, prediction("nine", hours=0, key="north"))
    learn(any_workspace, label(5.0, key="north", hours=0))
    assert learn(any_workspace, label(8.0, key="north", hours=1)) == LabelCounts(pending=1)
    assert labels(any_workspace) == [5.0]
    record(any_workspace, prediction("ten", hours=1, key="north"))
    assert labels(any_workspace) == [5.0, 8.0]


def test_a_waiting_label_by_key_and_time_is_not_taken_by_another_time(any_workspace: Workspace) -> None:
    learn(any_workspace, label(8.0, key="north", hours=1))
    record(any_workspace, prediction("nine", hours=0, key="north"))
    assert labels(any_workspace) == [None]
    record(any_workspace, prediction("ten", hours=1, key="north"), prediction("x", hours=1, key="south"))
    assert sorted(labels(any_workspace), key=str) == [8.0, None, None]
    assert Outcomes(any_workspace).counts("bikes") == (3, 1, 0)


def test_a_label_before_its_prediction_waits_for_it(any_workspace: Workspace) -> None:
    assert learn(any_workspace, label(7.0, id="late")) == LabelCounts(pending=1)
    assert Outcomes(any_workspace).counts("bikes") == (0, 0, 1)
    record(any_workspace, prediction("late"))
    assert labels(any_workspace) == [7.0]
    assert Outcomes(any_workspace).counts("bikes") == (1, 1, 0)


def test_the_same_label_twice_counts_once(any_workspace: Workspace) -> None:
    record(any_workspace, prediction("a"))
    assert learn(any_workspace, label(7.0, id="a"), label(7.0, id="a")) == LabelCounts(joined=1, repeated=1)
    assert learn(any_workspace, label(7.0, id="a")) == LabelCounts(repeated=1)
    assert Outcomes(any_workspace).counts("bikes") == (1, 1, 0)


def test_another_label_for_the_same_prediction_replaces_it_and_counts_as_revised(
    any_workspace: Workspace,
) -> None:
    record(any_workspace, prediction("a"))
    learn(any_workspace, label(7.0, id="a"))
    assert learn(any_workspace, label(9.0, id="a", known=2)) == LabelCounts(revised=1)
    assert labels(any_workspace) == [9.0]
    assert Outcomes(any_workspace).revisions("bikes") == 1


def test_of_two_labels_that_which_was_known_last_stays_even_if_it_comes_first(
    any_workspace: Workspace,
) -> None:
    record(any_workspace, prediction("a"))
    learn(any_workspace, label(9.0, id="a", known=5))
    assert learn(any_workspace, label(7.0, id="a", known=2)) == LabelCounts(repeated=1)
    learn(any_workspace, label(9.0, id="b", known=5))
    learn(any_workspace, label(7.0, id="b", known=2))
    record(any_workspace, prediction("b", hours=1))
    assert labels(any_workspace) == [9.0, 9.0]


def test_a_label_told_while_its_prediction_is_being_recorded_finds_it(any_workspace: Workspace) -> None:
    told = threading.Event()

    def tell() -> None:
        learn(any_workspace, label(3.0, id="a"))
        told.set()

    telling = threading.Thread(target=tell)

    def work(tx: Transaction) -> None:
        record_predictions(tx, [prediction("a")])
        telling.start()
        told.wait(0.3)  # time enough to look for a prediction that is not committed yet

    any_workspace.write(work)
    telling.join()
    assert labels(any_workspace) == [3.0]
    assert Outcomes(any_workspace).counts("bikes") == (1, 1, 0)


def test_a_label_by_key_alone_joins_the_newest_prediction_of_that_key(any_workspace: Workspace) -> None:
    record(any_workspace, *(prediction(f"p{hour}", hours=hour, key="loan-7") for hour in range(3)))
    assert learn(any_workspace, label(1.0, key="loan-7", known=5)) == LabelCounts(joined=1)
    learn(any_workspace, label(0.0, key="loan-8", known=5))
    record(any_workspace, prediction("q", hours=3, key="loan-8"))
    assert labels(any_workspace) == [None, None, 1.0, 0.0]


@pytest.mark.parametrize("together", [True, False])
def test_a_label_by_key_alone_never_lands_on_a_prediction_made_after_it(
    any_workspace: Workspace, together: bool
) -> None:
    if not together:
        record(any_workspace, prediction("a", hours=0, key="k"))
        learn(any_workspace, label(1.0, key="k", known=1))
    record(any_workspace, *(prediction(id, hours=hour, key="k") for id, hour in (("a", 0), ("b", 2))))
    record(any_workspace, prediction("c", hours=100, key="k"))
    counts = learn(any_workspace, label(1.0, key="k", known=1), label(3.0, key="k", known=3))
    assert counts == (LabelCounts(joined=2) if together else LabelCounts(joined=1, repeated=1))
    assert labels(any_workspace) == [1.0, 3.0, None]


def test_a_label_by_key_alone_from_before_all_predictions_of_the_key_is_of_the_first(
    any_workspace: Workspace,
) -> None:
    record(any_workspace, *(prediction(f"p{hour}", hours=hour, key="k") for hour in (2, 3, 100)))
    assert learn(any_workspace, label(1.0, key="k", known=1)) == LabelCounts(joined=1)
    assert labels(any_workspace) == [1.0, None, None]


def test_of_labels_by_key_alone_that_wait_the_newest_stays(any_workspace: Workspace) -> None:
    told = [label(float(known), key="k", known=known) for known in (2, 1, 3)]
    assert learn(any_workspace, *told) == LabelCounts(pending=1, revised=2)
    record(any_workspace, prediction("a", key="k"))
    assert labels(any_workspace) == [3.0]


def test_a_label_by_key_and_time_goes_to_every_answer_to_that_question(any_workspace: Workspace) -> None:
    record(any_workspace, prediction("first", key="k"), prediction("retried", key="k"))
    learn(any_workspace, label(4.0, key="k", hours=0))
    assert labels(any_workspace) == [4.0, 4.0]


def test_a_label_for_another_endpoint_does_not_touch_the_prediction(any_workspace: Workspace) -> None:
    record(any_workspace, prediction("a", key="north"))
    learn(
        any_workspace, label(7.0, id="a", endpoint="cars"), label(7.0, key="north", hours=0, endpoint="cars")
    )
    assert labels(any_workspace) == [None]


def test_recording_the_same_predictions_again_changes_nothing(any_workspace: Workspace) -> None:
    record(any_workspace, prediction("a"))
    learn(any_workspace, label(7.0, id="a"))
    record(any_workspace, prediction("a", answer=99.0))
    joined = Outcomes(any_workspace).joined("bikes", NOON, NOON + HOUR)
    assert joined.answer.tolist() == [10.0]
    assert joined.label.tolist() == [7.0]


def test_joined_gives_what_each_version_said_in_order_of_time(any_workspace: Workspace) -> None:
    record(
        any_workspace,
        prediction("c", hours=2, version=2, answer=30.0, scores={1: 31.0, 2: 30.0}),
        prediction("a", hours=0),
        prediction("b", hours=1, answer=20.0, scores={1: 20.0, 2: None}),
        prediction("out", hours=3),
    )
    joined = Outcomes(any_workspace).joined("bikes", NOON, NOON + 3 * HOUR)
    assert joined.answer.tolist() == [10.0, 20.0, 30.0]
    assert joined.version.tolist() == [1, 1, 2]
    np.testing.assert_equal(joined.scores[1], [10.0, 20.0, 31.0])
    np.testing.assert_equal(joined.scores[2], [np.nan, np.nan, 30.0])


def test_an_answer_that_failed_is_nan_and_no_rows_are_empty_arrays(workspace: Workspace) -> None:
    record(workspace, prediction("a", answer=None, scores={1: None}))
    assert np.isnan(Outcomes(workspace).joined("bikes", NOON, NOON + HOUR).answer).all()
    empty = Outcomes(workspace).joined("nobody", NOON, NOON + HOUR)
    assert len(empty) == 0
    assert empty.scores == {}


def test_pruning_drops_what_is_old_and_keeps_the_rest(any_workspace: Workspace) -> None:
    record(any_workspace, prediction("old", hours=-48), prediction("new"))
    learn(any_workspace, label(1.0, id="never came", known=-48), label(1.0, id="may come", known=1))
    assert any_workspace.write(lambda tx: prune(tx, NOON - 24 * HOUR)) == 1
    assert Outcomes(any_workspace).counts("bikes") == (1, 0, 1)


Event = tuple[str, int]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    order=st.permutations([(what, number) for number in range(6) for what in ("prediction", "label")]),
    by_key=st.lists(st.booleans(), min_size=6, max_size=6),
    cuts=st.lists(st.integers(0, 12), max_size=4),
)
def test_in_whatever_order_and_batches_they_come_each_label_finds_its_own_prediction(
    workspace: Workspace, order: Sequence[Event], by_key: list[bool], cuts: list[int]
) -> None:
    workspace.write(lambda tx: prune(tx, NOON + 10_000 * HOUR))
    edges = sorted({0, 12, *cuts})
    for start, end in pairwise(edges):
        batch = order[start:end]
        record(
            workspace,
            *(prediction(f"p{n}", hours=n, key="k") for what, n in batch if what == "prediction"),
        )
        learn(
            workspace,
            *(
                label(float(n), key="k", hours=n) if by_key[n] else label(float(n), id=f"p{n}")
                for what, n in batch
                if what == "label"
            ),
        )
    assert labels(workspace) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert Outcomes(workspace).counts("bikes") == (6, 6, 0)


@pytest.mark.parametrize("by_key", [False, True])
def test_more_rows_than_fit_one_statement_are_joined(workspace: Workspace, by_key: bool) -> None:
    rows = [prediction(f"p{n}", hours=n, key="k") for n in range(900)]
    record(workspace, *rows)
    counts = learn(
        workspace,
        *(label(1.0, key="k", hours=n) if by_key else label(1.0, id=f"p{n}") for n in range(900)),
    )
    assert counts == LabelCounts(joined=900)
