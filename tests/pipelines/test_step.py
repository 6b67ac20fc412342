"""Steps as functions, and what a step may declare."""

from __future__ import annotations

import pytest

from trimtab.errors import InvalidInputError
from trimtab.pipelines.source import dataset
from trimtab.pipelines.step import Resources, step


@step
def double(x: int) -> int:
    """Twice x."""
    return 2 * x


@step(name="thrice", retries=2, timeout=5, cache=False, resources=Resources(cpu=2, memory="2GB"))
def triple(x: int, *, plus: int = 0) -> int:
    return 3 * x + plus


def test_a_step_called_outside_a_pipeline_is_the_plain_function() -> None:
    assert double(4) == 8
    assert triple(2, plus=1) == 7
    assert double.__doc__ == "Twice x."


def test_a_step_is_named_after_its_module() -> None:
    assert double.name == f"{__name__}.double"
    assert triple.name == f"{__name__}.thrice"


@pytest.mark.parametrize(
    ("memory", "expected"), [("512MB", 512 * 2**20), ("2g", 2**31), ("1.5 GiB", 3 * 2**29), ("100", 100)]
)
def test_memory_is_read_in_powers_of_1024(memory: str, expected: int) -> None:
    assert Resources(memory=memory).memory_bytes == expected


def test_resources_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="amount of memory"):
        Resources(memory="much")
    with pytest.raises(InvalidInputError, match="cores"):
        Resources(cpu=0)


def test_coroutines_and_generators_are_no_steps() -> None:
    async def later() -> int:
        return 1

    def many() -> object:
        yield 1

    for function in (later, many):
        with pytest.raises(InvalidInputError, match="coroutine or a generator"):
            step(function)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="retries"):
        step(retries=-1)(double.function)
    with pytest.raises(InvalidInputError, match="time out"):
        step(timeout=0)(double.function)


def test_a_plain_call_on_a_dataset_says_how_to_give_it_rows() -> None:
    with pytest.raises(InvalidInputError, match=r"pipeline\.on"):
        double(dataset("trips"))
