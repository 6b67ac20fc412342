"""Bounds on a mean of rows that depend on each other within blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trimtab.errors import InvalidInputError
from trimtab.statistics.intervals import paired_block_bound, student_quantile


@given(st.floats(0.5, 0.9995), st.integers(1, 200))
def test_the_student_quantile_is_scipys(level: float, degrees: int) -> None:
    assert student_quantile(level, degrees) == pytest.approx(stats.t.ppf(level, degrees), rel=1e-7, abs=1e-9)


def test_blocks_of_one_row_give_the_ordinary_t_bound() -> None:
    values = np.random.default_rng(1).normal(size=17)
    interval = paired_block_bound(values, np.arange(17), level=0.9)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.8)
    assert interval.lower == pytest.approx(expected.low)
    assert interval.upper == pytest.approx(expected.high)


def test_equal_blocks_give_the_t_bound_on_their_means() -> None:
    values = np.random.default_rng(2).normal(size=(9, 24))
    interval = paired_block_bound(values.ravel(), np.repeat(np.arange(9), 24), level=0.975)
    expected = stats.ttest_1samp(values.mean(axis=1), 0.0).confidence_interval(0.95)
    assert interval.upper == pytest.approx(expected.high)


def test_each_bound_holds_as_often_as_it_says_where_days_share_an_error() -> None:
    generator = np.random.default_rng(3)
    blocks = np.repeat(np.arange(12), 24)
    held = naive_held = 0
    for _ in range(2000):
        values = generator.normal(size=12)[blocks] + 0.5 * generator.normal(size=blocks.size)
        held += paired_block_bound(values, blocks, level=0.9).upper > 0
        naive_held += paired_block_bound(values, np.arange(blocks.size), level=0.9).upper > 0
    assert held / 2000 == pytest.approx(0.9, abs=0.025)
    assert naive_held / 2000 < 0.7


@pytest.mark.parametrize(
    ("values", "blocks", "level"),
    [
        ([1.0, 2.0], [0, 0], 0.95),
        ([1.0, float("inf")], [0, 1], 0.95),
        ([1.0, 2.0], [0], 0.95),
        ([1.0, 2.0], [0, 1], 0.3),
    ],
)
def test_rows_that_bound_nothing_are_refused(values: list[float], blocks: list[int], level: float) -> None:
    with pytest.raises(InvalidInputError):
        paired_block_bound(values, blocks, level)
