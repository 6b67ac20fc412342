"""What a pipeline's body describes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trimtab.data.window import Window, last, share
from trimtab.errors import ConflictError, InvalidInputError
from trimtab.pipelines.graph import FromDataset, FromNode, Group, Handle, Literally, pipeline, trace
from trimtab.pipelines.source import dataset
from trimtab.pipelines.step import step
from trimtab.tracking.log import log

NOW = datetime(2012, 1, 1, tzinfo=UTC)
MONTH = last(days=30)


@step
def split(rows: list[int]) -> tuple[list[int], list[int]]:
    return rows[:1], rows[1:]


@step
def total(rows: Any, *more: Any, plus: int = 0) -> int:
    return int(sum(rows)) + len(more) + plus


@pipeline
def example(window: Window = MONTH, plus: int = 1) -> int:
    first, rest = split(dataset("trips").window(window))
    return total(rest, first, plus=plus)


def test_the_body_becomes_nodes_and_runs_nothing() -> None:
    graph = trace(example, as_of=NOW)
    split_node, total_node = graph.nodes.values()
    assert split_node.upstream == frozenset()
    assert total_node.upstream == {split_node.id}
    assert total_node.inputs == {
        "rows": FromNode(split_node.id, (1,)),
        "more[0]": FromNode(split_node.id, (0,)),
        "plus": Literally(1),
    }
    assert graph.outputs == {"output": FromNode(total_node.id)}


def test_a_dataset_is_read_within_its_window_before_the_runs_time() -> None:
    (ref,) = trace(example, {"window": {"days": 7}}, as_of=NOW).datasets
    assert ref.name == "trips"
    assert ref.bounds(NOW) == (NOW - timedelta(days=7), NOW)


def test_parameters_take_what_json_has() -> None:
    graph = trace(example, {"plus": "3", "window": {"hours": 2}}, as_of=NOW)
    assert graph.params == {"plus": 3, "window": Window(hours=2)}


def test_a_parameter_called_as_of_gets_the_runs_time() -> None:
    @pipeline
    def dated(as_of: datetime) -> Any:
        return total([as_of.year])

    assert trace(dated, as_of=NOW).params == {"as_of": NOW}


def test_calling_a_step_twice_makes_two_nodes() -> None:
    @pipeline
    def twice() -> Any:
        return {"a": total([1]), "b": total([2])}

    graph = trace(twice, as_of=NOW)
    assert list(graph.nodes) == [total.name, f"{total.name}#2"]
    assert list(graph.outputs) == ["a", "b"]


def test_handles_are_found_inside_lists_and_dicts() -> None:
    @pipeline
    def nested() -> Any:
        return total([total([1]), {"x": (total([2]), 5)}, dataset("trips")])

    *_, last_node = trace(nested, as_of=NOW).nodes.values()
    rows = last_node.inputs["rows"]
    assert isinstance(rows, Group)
    assert rows.kind == "list"
    assert isinstance(rows.items[2], FromDataset)
    assert last_node.upstream == {total.name, f"{total.name}#2"}


def test_a_pipeline_called_in_a_pipeline_gives_it_its_nodes() -> None:
    @pipeline
    def outer() -> Any:
        return total([example(), 1])

    assert len(trace(outer, as_of=NOW).nodes) == 3


@pytest.mark.parametrize(
    ("use", "complaint"),
    [
        (lambda handle: handle.filter, "asked for '.filter'"),
        (lambda handle: handle + 1, "computed with"),
        (lambda handle: handle > 1, "compared"),
        (lambda handle: 1 if handle else 2, "decide an `if`"),
        (len, "counted"),
        (list, "unpacked"),
        (lambda handle: handle[1:], "sliced"),
    ],
)
def test_what_needs_the_value_is_refused_with_advice(use: Any, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint) as caught:
        use(Handle("loop.prepare", (), None))
    assert "step" in caught.value.hint


def test_wrong_parameters_are_named() -> None:
    with pytest.raises(InvalidInputError, match=r"no parameter 'plsu'\. Did you mean 'plus'"):
        trace(example, {"plsu": 1}, as_of=NOW)
    with pytest.raises(InvalidInputError, match=r"'plus'.*cannot be 'many'"):
        trace(example, {"plus": "many"}, as_of=NOW)

    @pipeline
    def needy(rows: int) -> Any:
        return total([rows])

    with pytest.raises(InvalidInputError, match="needs the parameter 'rows'"):
        trace(needy, as_of=NOW)


def test_a_wrong_step_call_is_found_while_describing() -> None:
    @pipeline
    def wrong() -> Any:
        return split([1], 2)  # type: ignore[call-arg]  # the very mistake

    with pytest.raises(InvalidInputError, match=r"split.*cannot be called like this"):
        trace(wrong, as_of=NOW)


def test_only_results_of_steps_can_be_returned() -> None:
    @pipeline
    def constant() -> int:
        return 3

    with pytest.raises(InvalidInputError, match="not what a step returned"):
        trace(constant, as_of=NOW)


def test_a_pipeline_called_plainly_runs_its_steps_on_given_rows() -> None:
    assert example.on({"trips": [5, 6, 7]}, plus=2) == 6 + 7 + 1 + 2
    with pytest.raises(InvalidInputError, match="called plainly on the dataset 'trips'"):
        example()


def test_a_step_called_plainly_logs_to_nowhere() -> None:
    @step
    def learn(rate: float) -> float:
        log(rate=rate)
        return 2 * rate

    assert learn(0.5) == 1.0
    with pytest.raises(ConflictError, match="no active run"):
        log(rate=0.5)


def test_what_is_held_out_is_no_part_of_a_dataset_that_is_read() -> None:
    assert dataset("trips").part() is None
    assert dataset("trips").window(last(days=3)).part(0.1) == (0.1, 1)
    assert dataset("trips").window(share(0.5)).part(0.1) == (0.1, 0.5)
    with pytest.raises(InvalidInputError, match=r"All that the pipeline reads .* is held out"):
        dataset("trips").window(share(0.1)).part(0.1)


def test_a_pipelines_parameters_must_have_names() -> None:
    with pytest.raises(InvalidInputError, match="cannot be set by name"):

        @pipeline
        def open_ended(*values: int) -> None: ...
