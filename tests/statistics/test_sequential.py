"""The sequential test keeps its level where theory promises it, and says what it does elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError
from trimtab.statistics.sequential import (
    block_means,
    half_widths,
    judge,
    mixture_variance,
    simulated_error,
)


def test_the_boundary_is_the_papers_formula() -> None:
    t, alpha, r2, deviation = 20, 0.05, 0.3, 1.7
    v = t * r2
    by_hand = deviation * np.sqrt(2 * (v + 1) / (t**2 * r2) * np.log(np.sqrt(v + 1) / alpha))
    assert half_widths(deviation, t, alpha=alpha, r2=r2) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("blocks", [5, 14, 100])
def test_the_boundary_is_tightest_where_it_is_tuned(alpha: float, blocks: int) -> None:
    best = mixture_variance(alpha, blocks)
    grid = best * np.exp(np.linspace(-2, 2, 401))
    widths = [float(half_widths(1.0, blocks, alpha=alpha, r2=r2)) for r2 in grid]
    assert int(np.argmin(widths)) == 200


def test_the_error_level_over_all_looks_approaches_the_nominal_one_as_first_looks_come_later() -> None:
    early = simulated_error(alpha=0.1, max_blocks=400, min_blocks=5, repetitions=4000, seed=1)
    late = simulated_error(alpha=0.1, max_blocks=400, min_blocks=60, repetitions=4000, seed=1)
    assert late.simulated < early.simulated
    assert late.simulated <= 0.1 + 2 * late.standard_error


def test_the_error_level_at_few_blocks_is_what_the_simulation_says_and_is_reproducible() -> None:
    first = simulated_error(alpha=0.05, max_blocks=20, repetitions=20_000, seed=3)
    assert first == simulated_error(alpha=0.05, max_blocks=20, repetitions=20_000, seed=3)
    # the streams one by one, through the door that rollouts use
    generator = np.random.default_rng(99)
    wrong = 0
    for stream in generator.standard_normal((1500, 20)):
        wrong += any(
            judge(stream[:n], margin=0.0, alpha=0.05).decision in ("superior", "inferior")
            for n in range(5, 21)
        )
    spread = (first.simulated * (1 - first.simulated) / 1500) ** 0.5
    assert wrong / 1500 == pytest.approx(first.simulated, abs=4 * spread)


def test_dependent_blocks_raise_the_simulated_level() -> None:
    def sticky(generator: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
        values = generator.standard_normal(shape)
        for column in range(1, shape[1]):
            values[:, column] = 0.6 * values[:, column - 1] + 0.8 * values[:, column]
        return values

    independent = simulated_error(alpha=0.05, max_blocks=20, repetitions=5000)
    dependent = simulated_error(alpha=0.05, max_blocks=20, repetitions=5000, draw=sticky)
    assert dependent.simulated > 1.5 * independent.simulated


def test_a_clearly_better_challenger_is_superior_and_a_clearly_worse_one_inferior() -> None:
    noise = np.random.default_rng(5).standard_normal(10) * 0.1
    assert judge(noise - 1.0, margin=0.02, alpha=0.05).decision == "superior"
    assert judge(noise + 1.0, margin=0.02, alpha=0.05).decision == "inferior"


def test_an_equal_challenger_is_non_inferior_by_a_margin_wider_than_the_interval() -> None:
    noise = np.random.default_rng(6).standard_normal(30) * 0.1
    verdict = judge(noise - noise.mean(), margin=0.2, alpha=0.05)
    assert verdict.decision == "non_inferior"
    assert verdict.acceptable
    assert judge(noise - noise.mean(), margin=0.001, alpha=0.05).decision == "undecided"


def test_fewer_blocks_than_the_least_decide_nothing_however_clear_they_look() -> None:
    verdict = judge([-9.0, -9.1, -9.0, -9.1], margin=0.0, alpha=0.05)
    assert verdict.decision == "undecided"
    assert verdict.mean is None
    assert verdict.blocks == 4


@given(
    st.lists(st.floats(-100, 100), min_size=5, max_size=40),
    st.floats(0, 10),
    st.floats(0.001, 0.5),
)
def test_swapping_the_two_versions_mirrors_the_interval(
    values: list[float], margin: float, alpha: float
) -> None:
    one = judge(values, margin=margin, alpha=alpha)
    other = judge([-value for value in values], margin=margin, alpha=alpha)
    assert one.lower is not None
    assert other.upper is not None
    assert one.lower == pytest.approx(-other.upper, abs=1e-9)
    assert (one.decision == "inferior") <= (other.decision == "superior")


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(-5, 5)), min_size=1, max_size=60))
def test_block_means_are_the_means_of_each_block(rows: list[tuple[int, float]]) -> None:
    blocks = [block for block, _ in rows]
    expected = [np.mean([v for b, v in rows if b == block]) for block in sorted(set(blocks))]
    assert block_means([v for _, v in rows], blocks) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "margin", "alpha", "least"),
    [
        ([1.0, float("nan")] * 5, 0.0, 0.05, 5),
        ([1.0] * 9, -0.1, 0.05, 5),
        ([1.0] * 9, 0.0, 1.5, 5),
        ([1.0] * 9, 0.0, 0.05, 1),
    ],
)
def test_nonsense_is_refused(values: list[float], margin: float, alpha: float, least: int) -> None:
    with pytest.raises(InvalidInputError):
        judge(values, margin=margin, alpha=alpha, min_blocks=least)
