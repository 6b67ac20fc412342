"""The effect size of drift, against independent oracles and known answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from trimtab.data.profiles import FeatureProfile, Profile
from trimtab.monitoring.drift import effect, effects


def profile(values: Sequence[float | None] | NDArray[np.float64] | pl.Series) -> FeatureProfile:
    return FeatureProfile.of(pl.Series("x", values, strict=False))


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.3, 1.0), (1.0, 1.0), (0.0, 3.0), (5.0, 1.0)])
@pytest.mark.parametrize("rows", [200, 20_000])
def test_for_numbers_it_is_the_kolmogorov_smirnov_distance(shift: float, scale: float, rows: int) -> None:
    generator = np.random.default_rng(7)
    one, two = generator.normal(size=rows), generator.normal(shift, scale, size=rows)
    expected = stats.ks_2samp(one, two).statistic
    assert effect(profile(one), profile(two)) == pytest.approx(expected, abs=0.025)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60), st.lists(st.integers(0, 5), min_size=1, max_size=60)
)
def test_for_few_different_numbers_it_is_exact(one: list[int], two: list[int]) -> None:
    expected = stats.ks_2samp(one, two, method="asymp").statistic
    assert effect(profile(one), profile(two)) == pytest.approx(expected, abs=1e-9)


words = st.lists(st.sampled_from(["mist", "clear", "rain", None]), min_size=1, max_size=60)


@given(words, words)
def test_for_categories_it_is_the_total_variation_with_missing_as_one_more(
    one: list[str | None], two: list[str | None]
) -> None:
    values = {*one, *two}
    expected = 0.5 * sum(abs(one.count(v) / len(one) - two.count(v) / len(two)) for v in values)
    left, right = (FeatureProfile.of(pl.Series("x", x, dtype=pl.String)) for x in (one, two))
    assert effect(left, right) == pytest.approx(expected)
    assert effect(right, left) == pytest.approx(expected)


def test_it_does_not_grow_with_traffic() -> None:
    generator = np.random.default_rng(1)
    sizes = [
        effect(profile(generator.normal(size=rows)), profile(generator.normal(0.1, 1, size=rows)))
        for rows in (20_000, 200_000)
    ]
    assert sizes == pytest.approx([0.04, 0.04], abs=0.02)


def test_a_feature_that_is_nearly_always_missing_cannot_drift_by_more_than_its_share() -> None:
    before, after = [None] * 990 + [1.0] * 10, [None] * 990 + [2.0] * 10
    assert effect(profile(before), profile(after)) == pytest.approx(0.01)


def test_values_that_went_missing_are_drift() -> None:
    assert effect(profile([1.0, 2.0, 3.0, 4.0]), profile([1.0, 2.0, None, None])) == pytest.approx(0.5)
    assert effect(profile([1.0, 2.0]), profile(pl.Series("x", [None, None], dtype=pl.Float64))) == 1.0


def test_times_are_left_out_and_only_shared_features_compared() -> None:
    one = Profile.of(
        pl.DataFrame({"x": [1.0, 2.0], "day": [1, 2], "only": [1, 1]}).with_columns(
            pl.from_epoch("day", time_unit="d")
        )
    )
    two = Profile.of(
        pl.DataFrame({"x": [5.0, 6.0], "day": [9, 9]}).with_columns(pl.from_epoch("day", time_unit="d"))
    )
    assert effects(one, two) == {"x": 1.0}
    assert effects(one, two, ["only", "x", "nowhere"]) == {"x": 1.0}
