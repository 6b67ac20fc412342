"""Sketches of many values at once are as good as those that take them one by one."""

from __future__ import annotations

import datasketches
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data.quantile_sketches import QUANTILE_K, sketch_of_sorted

HALF_A_RUN = 0.2 / 100
"""Rank error of one sketch; of merged ones see the library's own bound, 0.5 %."""


def ranks_off(sketch: datasketches.kll_doubles_sketch, values: np.ndarray) -> float:
    """By how much the sketch's shares differ from the true ones at the most."""
    asked = np.unique(values[:: max(1, values.size // 400)])
    told = np.asarray(sketch.get_cdf(asked.tolist(), inclusive=True))[:-1]
    return float(np.abs(told - np.searchsorted(values, asked, side="right") / values.size).max())


@given(st.integers(0, 5 * QUANTILE_K) | st.integers(10_000, 40_000), st.integers(0, 2**32 - 1))
def test_a_sketch_counts_every_value_once_and_knows_ranks_to_a_fifth_of_a_percent(
    count: int, seed: int
) -> None:
    values = np.sort(np.random.default_rng(seed).normal(size=count))
    sketch = sketch_of_sorted(values)
    assert sketch.n == count
    assert sum(weight for _, weight in sketch) == count
    if not count:
        return
    assert (sketch.get_min_value(), sketch.get_max_value()) == (values[0], values[-1])
    assert ranks_off(sketch, values) <= (0 if count <= QUANTILE_K else HALF_A_RUN + 1 / count)


@pytest.mark.parametrize("sizes", [[20_000] * 20, [1] * 300, [513, 3, 9_000, 512, 1] * 10])
def test_merged_sketches_stay_within_the_librarys_bound(sizes: list[int]) -> None:
    rng = np.random.default_rng(3)
    parts = [np.sort(rng.normal(size=size)) for size in sizes]
    whole = datasketches.kll_doubles_sketch(QUANTILE_K)
    for part in parts:
        whole.merge(sketch_of_sorted(part))
    whole = datasketches.kll_doubles_sketch.deserialize(whole.serialize())
    assert whole.n == sum(sizes)
    assert ranks_off(whole, np.sort(np.concatenate(parts))) < 1.5 / 100
