from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data.profiles import EXACT_WORDS, FeatureProfile, Profile
from trimtab.data.quantile_sketches import QUANTILE_K
from trimtab.errors import InvalidInputError, NotFoundError

numbers = st.one_of(
    st.none(),
    st.floats(-1e6, 1e6, allow_nan=False),
    st.sampled_from([math.nan, math.inf, -math.inf]),
)
words = st.one_of(st.none(), st.text(max_size=3))
batches = st.builds(
    lambda rows: pl.DataFrame(
        {"x": [x for x, _, _ in rows], "w": [w for _, w, _ in rows], "b": [b for _, _, b in rows]},
        schema={"x": pl.Float64, "w": pl.String, "b": pl.Boolean},
    ),
    st.lists(st.tuples(numbers, words, st.one_of(st.none(), st.booleans())), max_size=30),
)


def agree(one: Profile, two: Profile) -> None:
    """Both say the same about the same rows; sketches of so few rows are exact."""
    assert one.rows == two.rows
    assert set(one.features) == set(two.features)
    for name, mine in one.features.items():
        theirs = two.features[name]
        assert (mine.count, mine.missing, mine.infinite) == (theirs.count, theirs.missing, theirs.infinite)
        assert (mine.min, mine.max, mine.counts()) == (theirs.min, theirs.max, theirs.counts())
        assert mine.mean == pytest.approx(theirs.mean, rel=1e-9, abs=1e-6)
        assert mine.m2 == pytest.approx(theirs.m2, rel=1e-6, abs=1e-3)
        ranks = np.linspace(0, 1, 11).tolist()
        np.testing.assert_array_equal(mine.quantiles(ranks), theirs.quantiles(ranks))


@given(batches, batches, batches)
@settings(max_examples=60, deadline=None)
def test_merging_is_associative_commutative_and_the_same_as_one_pass(
    a: pl.DataFrame, b: pl.DataFrame, c: pl.DataFrame
) -> None:
    one, two, three = Profile.of(a), Profile.of(b), Profile.of(c)
    whole = Profile.of(pl.concat([a, b, c]))
    agree(one.merge(two).merge(three), whole)
    agree(one.merge(two.merge(three)), whole)
    agree(three.merge(one).merge(two), whole)
    agree(Profile.merged([two, one, three]), whole)


@given(batches)
@settings(max_examples=30, deadline=None)
def test_a_profile_survives_storage(rows: pl.DataFrame) -> None:
    profile = Profile.of(rows)
    restored = Profile.from_bytes(profile.to_bytes())
    agree(restored, profile)
    assert restored.to_bytes() == profile.to_bytes()
    assert restored.digest() == profile.digest()


def test_moments_agree_with_numpy() -> None:
    values = np.random.default_rng(1).normal(5, 2, 10_000)
    feature = FeatureProfile.of(pl.Series(values))
    assert feature.mean == pytest.approx(values.mean())
    assert feature.std == pytest.approx(values.std(ddof=1))
    assert (feature.min, feature.max) == (values.min(), values.max())


def test_quantiles_and_cdf_of_many_rows_are_within_the_stated_rank_error() -> None:
    generator = np.random.default_rng(2)
    parts = [generator.gamma(2, 3, 5_000) for _ in range(10)]
    profile = Profile.merged(Profile.of(pl.DataFrame({"x": part})) for part in parts)
    values = np.sort(np.concatenate(parts))
    ranks = np.linspace(0.01, 0.99, 99)
    real = np.searchsorted(values, profile.quantiles("x", ranks.tolist()), side="right") / values.size
    assert np.abs(real - ranks).max() < 0.015
    points = np.array([1.0, 20.0, 5.0])
    exact = np.searchsorted(values, points, side="right") / values.size
    np.testing.assert_allclose(profile.cdf("x", points), exact, atol=0.015)


def test_small_samples_are_exact() -> None:
    values = np.random.default_rng(3).normal(size=QUANTILE_K)
    profile = Profile.of(pl.DataFrame({"x": values}))
    points = np.random.default_rng(4).normal(size=40)
    exact = [(values <= point).mean() for point in points]
    np.testing.assert_allclose(profile.cdf("x", points), exact)
    assert profile.quantiles("x", [0.5])[0] == np.quantile(values, 0.5, method="inverted_cdf")


def test_nan_null_and_infinity_are_told_apart_from_values() -> None:
    feature = FeatureProfile.of(pl.Series([1.0, None, math.nan, math.inf, 3.0]))
    assert (feature.count, feature.missing, feature.infinite, feature.finite) == (3, 2, 1, 2)
    assert feature.mean == 2.0
    assert feature.max == 3.0


def test_words_are_counted_exactly_while_they_are_few_and_bounded_when_they_are_many() -> None:
    few = FeatureProfile.of(pl.Series(["mist", "clear", "mist", None]))
    assert few.counts() == {"mist": 2, "clear": 1}
    many = pl.Series(["often"] * 4_000 + [f"rare {i}" for i in range(EXACT_WORDS * 8)])
    feature = FeatureProfile.of(many)
    counts = feature.counts()
    assert next(iter(counts)) == "often"
    assert 3_900 <= counts["often"] <= 4_000
    assert sum(counts.values()) <= feature.count
    assert len(Profile(len(many), {"w": feature}).to_bytes()) < 50_000


def test_sketched_words_merge_with_exact_ones() -> None:
    many = Profile.of(pl.DataFrame({"w": [f"w{i}" for i in range(EXACT_WORDS + 1)]}))
    few = Profile.of(pl.DataFrame({"w": ["w1", "w1", "new"]}))
    counts = few.merge(many).counts("w")
    assert (counts["w1"], counts["new"], counts["w2"]) == (3, 1, 1)
    assert counts == many.merge(few).counts("w")


def test_long_texts_are_kept_short_and_apart() -> None:
    long = ["a" * 10_000 + "1", "a" * 10_000 + "2", "a" * 10_000 + "1"]
    profile = Profile.of(pl.DataFrame({"text": long}))
    assert sorted(profile.counts("text").values()) == [1, 2]
    assert len(profile.to_bytes()) < 1_000


def test_times_dates_durations_and_categories_are_profiled() -> None:
    at = datetime(2011, 1, 1, tzinfo=UTC)
    rows = pl.DataFrame(
        {
            "at": [at, at + timedelta(hours=1)],
            "day": [date(2011, 1, 1), None],
            "took": [timedelta(seconds=90), timedelta(seconds=30)],
            "kind": pl.Series(["a", "b"], dtype=pl.Categorical),
            "list": [[1], None],
        }
    )
    profile = Profile.of(rows)
    assert profile.feature("at").max == at.timestamp() + 3600
    assert profile.feature("day").min == at.timestamp()
    assert profile.feature("took").mean == 60
    assert profile.counts("kind") == {"a": 1, "b": 1}
    assert (profile.feature("list").kind, profile.feature("list").missing) == ("other", 1)
    assert [summary.name for summary in profile.summary()] == rows.columns


def test_a_feature_that_one_side_lacks_is_missing_there() -> None:
    merged = Profile.of(pl.DataFrame({"x": [1.0, 2.0]})).merge(Profile.of(pl.DataFrame({"y": ["a"]})))
    assert (merged.feature("x").count, merged.feature("x").missing) == (2, 1)
    assert (merged.feature("y").count, merged.feature("y").missing) == (1, 2)


def test_a_column_of_nulls_takes_the_other_sides_kind() -> None:
    nulls = Profile.of(pl.DataFrame({"w": [None, None]}))
    merged = nulls.merge(Profile.of(pl.DataFrame({"w": ["a"]})))
    assert (merged.feature("w").kind, merged.feature("w").missing) == ("category", 2)


def test_numbers_do_not_merge_with_words() -> None:
    with pytest.raises(InvalidInputError, match="'x'"):
        Profile.of(pl.DataFrame({"x": [1]})).merge(Profile.of(pl.DataFrame({"x": ["a"]})))


def test_an_unknown_feature_is_named_with_a_near_one() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'temp'"):
        Profile.of(pl.DataFrame({"temp": [1.0]})).quantiles("tmp", [0.5])


def test_no_rows_have_a_profile_too() -> None:
    profile = Profile.of(pl.DataFrame(schema={"x": pl.Float64, "w": pl.String, "n": pl.Null}))
    assert profile.rows == 0
    assert math.isnan(profile.quantiles("x", [0.5])[0])
    agree(Profile.from_bytes(profile.to_bytes()), profile)


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "not a profile"), (b"TTP\x09..", "newer"), (b"TTP\x01\xc1", "damaged")]
)
def test_bytes_that_are_no_profile_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Profile.from_bytes(data)


def test_a_damaged_sketch_is_refused() -> None:
    data = Profile.of(pl.DataFrame({"x": [1.5, 2.5]})).to_bytes()
    broken = data.replace(np.float64(1.5).tobytes(), b"")
    with pytest.raises(InvalidInputError, match="damaged"):
        Profile.from_bytes(broken)
