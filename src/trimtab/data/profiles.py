"""Mergeable statistics of a set of rows: what they looked like, without the rows.

Moments are merged by the formulas of Chan, Golub and LeVeque (1979, "Updating formulae and a pairwise
algorithm for computing sample variances"); quantiles are KLL sketches (Karnin, Lang and Liberty 2016),
exact up to 512 values and beyond that with a rank error of about 0.5 % (0.7 % between two ranks); words are
counted exactly up to 512 different ones and beyond that by a frequent-items sketch. Both sketches are Apache
DataSketches', whose KLL draws random bits: two profiles of the same many rows agree within that error, not
bit for bit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal

import datasketches
import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.data.quantile_sketches import QUANTILE_K, sketch_of_sorted
from trimtab.digest import digest_bytes
from trimtab.errors import InvalidInputError, unknown

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["number", "time", "category", "other"]

EXACT_WORDS = 512
FREQUENT_LG_SIZE = 11
LONGEST_WORD = 200
_MAGIC = b"TTP\x01"


class FeatureSummary(msgspec.Struct, frozen=True):
    """A feature's statistics in plain numbers, for people and for JSON. Times are in seconds since 1970."""

    name: str
    kind: Kind
    count: int
    missing: int
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    quantiles: dict[str, float]
    top: dict[str, int]


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    kind: Kind
    count: int
    missing: int
    infinite: int
    min: float | None
    max: float | None
    mean: float
    m2: float
    sketch: bytes | None
    words: dict[str, int] | None
    frequent: bytes | None


class _StoredProfile(msgspec.Struct, frozen=True, array_like=True):
    rows: int
    features: dict[str, _Stored]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_StoredProfile)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureProfile:
    """The statistics of one feature.

    `count` values were there and `missing` were null or NaN. Of those counted, `infinite` were plus or minus
    infinity; they enter neither moments nor quantiles. `m2` is the sum of squared distances from the mean.
    Times are numbers here: seconds since 1970 in UTC. Sketches are never changed once they are in here.
    """

    kind: Kind
    count: int
    missing: int
    infinite: int = 0
    min: float | None = None
    max: float | None = None
    mean: float = 0.0
    m2: float = 0.0
    sketch: datasketches.kll_doubles_sketch | None = None
    words: Mapping[str, int] | None = None
    frequent: datasketches.frequent_strings_sketch | None = None

    @staticmethod
    def of(values: pl.Series) -> FeatureProfile:
        """The statistics of a column of any type; lists, structs and bytes are only counted."""
        from trimtab.data import column_values as column  # noqa: PLC0415  (Polars: 30 MB, for arrays in vain)

        match column.column_values(values):
            case column.Numbers(numbers, kind):
                return FeatureProfile.of_numbers(numbers, kind)
            case column.Truths(true, false, missing):
                return FeatureProfile.of_booleans(true, false, missing)
            case column.Words(found, missing):
                return FeatureProfile.of_words(found, missing)
            case column.Others(count, missing):
                return FeatureProfile("other", count, missing)

    @staticmethod
    def of_numbers(values: NDArray[np.float64], kind: Literal["number", "time"] = "number") -> FeatureProfile:
        """The statistics of numbers; NaN is a missing one."""
        ordered = np.sort(values)  # NaN comes last
        missing = int(np.isnan(ordered).sum()) if ordered.size and np.isnan(ordered[-1]) else 0
        finite = ordered[: ordered.size - missing]
        counted = finite.size
        if counted and not (np.isfinite(finite[0]) and np.isfinite(finite[-1])):
            finite = finite[np.isfinite(finite)]
        sketch = sketch_of_sorted(finite)
        if not finite.size:
            return FeatureProfile(kind, counted, missing, counted, sketch=sketch)
        mean = float(finite.mean())
        apart = finite - mean
        np.square(apart, out=apart)  # not a product of vectors, to which BLAS brings threads
        return FeatureProfile(
            kind=kind,
            count=counted,
            missing=missing,
            infinite=counted - finite.size,
            min=float(finite[0]),
            max=float(finite[-1]),
            mean=mean,
            m2=float(apart.sum()),
            sketch=sketch,
        )

    @staticmethod
    def of_booleans(true: int, false: int, missing: int) -> FeatureProfile:
        """The statistics of so many truth values."""
        words = {word: count for word, count in (("false", false), ("true", true)) if count}
        return FeatureProfile("category", true + false, missing, words=words)

    @staticmethod
    def of_words(found: Mapping[str, int], missing: int) -> FeatureProfile:
        """The statistics of texts, by how often each was seen."""
        words, frequent = _bounded(_shortened(found))
        return FeatureProfile("category", sum(found.values()), missing, words=words, frequent=frequent)

    @property
    def finite(self) -> int:
        """How many values entered moments and quantiles."""
        return self.count - self.infinite if self.kind in ("number", "time") else 0

    @property
    def std(self) -> float | None:
        """The standard deviation (n - 1 below the line); None for fewer than two values."""
        return math.sqrt(self.m2 / (self.finite - 1)) if self.finite > 1 else None

    def quantiles(self, ranks: Sequence[float]) -> NDArray[np.float64]:
        """The values at or below which these shares (0 to 1) of the finite values lie; NaN if none are."""
        if self.sketch is None or self.sketch.is_empty():
            return np.full(len(ranks), np.nan)
        return np.asarray(self.sketch.get_quantiles(list(ranks), inclusive=True), dtype=np.float64)

    def cdf(self, points: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of finite values at or below each of `points` (in any order); NaN if there are none."""
        if self.sketch is None or self.sketch.is_empty():
            return np.full(len(points), np.nan)
        ordered, back = np.unique(np.asarray(points, dtype=np.float64), return_inverse=True)
        shares = self.sketch.get_cdf(ordered.tolist(), inclusive=True)
        return np.asarray(shares, dtype=np.float64)[back]

    def counts(self) -> dict[str, int]:
        """How often each word (or "true" and "false") was seen, the most frequent first.

        Exact up to 512 different words; beyond that the frequent ones only, each with a lower bound, so that
        `count` less the sum of these is what the rest had at most.
        """
        if self.words is not None:
            found = dict(self.words)
        elif self.frequent is not None:
            found = {item[0]: item[2] for item in _items(self.frequent) if item[2] > 0}
        else:
            found = {}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def merge(self, other: FeatureProfile, name: str = "") -> FeatureProfile:
        """The statistics of both sets of values together.

        A side without values takes the other's kind. Raises InvalidInputError where kinds differ otherwise.
        """
        if self.kind != other.kind:
            if not self.count or not other.count:
                ours = self.count or (not other.count and other.kind == "other")
                valued, empty = (self, other) if ours else (other, self)
                return valued.with_missing(empty.missing)
            raise InvalidInputError(
                f"Feature '{name}' has {self.kind} values in one profile and {other.kind} values in another.",
                hint="Give it one type on both sides.",
            )
        one, two = self.finite, other.finite
        total = one + two
        apart = other.mean - self.mean if one and two else 0.0
        words, frequent = _merged_words(self, other)
        return FeatureProfile(
            kind=self.kind,
            count=self.count + other.count,
            missing=self.missing + other.missing,
            infinite=self.infinite + other.infinite,
            min=_present(min, self.min, other.min),
            max=_present(max, self.max, other.max),
            mean=(self.mean * one + other.mean * two) / total if total else 0.0,
            m2=self.m2 + other.m2 + (apart * apart * one * two / total if total else 0.0),
            sketch=_merged_sketch(self.sketch, other.sketch),
            words=words,
            frequent=frequent,
        )

    def with_missing(self, more: int) -> FeatureProfile:
        """The same with so many `more` missing values."""
        if not more:
            return self
        return FeatureProfile(
            self.kind,
            self.count,
            self.missing + more,
            self.infinite,
            self.min,
            self.max,
            self.mean,
            self.m2,
            self.sketch,
            self.words,
            self.frequent,
        )

    def summary(self, name: str) -> FeatureSummary:
        """This feature's statistics in plain numbers."""
        ranks = (0.05, 0.25, 0.5, 0.75, 0.95)
        values = self.quantiles(ranks).tolist() if self.finite else []
        return FeatureSummary(
            name=name,
            kind=self.kind,
            count=self.count,
            missing=self.missing,
            min=self.min,
            max=self.max,
            mean=self.mean if self.finite else None,
            std=self.std,
            quantiles={str(rank): value for rank, value in zip(ranks, values, strict=False)},
            top=dict(list(self.counts().items())[:20]),
        )

    def _stored(self) -> _Stored:
        return _Stored(
            kind=self.kind,
            count=self.count,
            missing=self.missing,
            infinite=self.infinite,
            min=self.min,
            max=self.max,
            mean=self.mean,
            m2=self.m2,
            sketch=None if self.sketch is None else self.sketch.serialize(),
            words=None if self.words is None else dict(sorted(self.words.items())),
            frequent=None if self.frequent is None else self.frequent.serialize(),
        )

    @staticmethod
    def _restored(stored: _Stored) -> FeatureProfile:
        sketch, frequent = stored.sketch, stored.frequent
        return FeatureProfile(
            kind=stored.kind,
            count=stored.count,
            missing=stored.missing,
            infinite=stored.infinite,
            min=stored.min,
            max=stored.max,
            mean=stored.mean,
            m2=stored.m2,
            sketch=None if sketch is None else datasketches.kll_doubles_sketch.deserialize(sketch),
            words=stored.words,
            frequent=None if frequent is None else datasketches.frequent_strings_sketch.deserialize(frequent),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The statistics of a set of rows, feature by feature. Merging is associative and commutative."""

    rows: int
    features: Mapping[str, FeatureProfile]

    @staticmethod
    def of(rows: pl.DataFrame, columns: Sequence[str] | None = None) -> Profile:
        """The profile of these rows (of these `columns` only, if given)."""
        names = rows.columns if columns is None else columns
        return Profile(rows.height, {name: FeatureProfile.of(rows.get_column(name)) for name in names})

    @staticmethod
    def merged(profiles: Iterable[Profile]) -> Profile:
        """All of these as one; the profile of no rows for none."""
        return reduce(Profile.merge, profiles, Profile(0, {}))

    def merge(self, other: Profile) -> Profile:
        """The profile of both sets of rows together. A feature that only one side has is missing in the
        other side's rows."""
        features = {}
        for name in dict.fromkeys((*self.features, *other.features)):
            mine, theirs = self.features.get(name), other.features.get(name)
            if mine is not None and theirs is not None:
                features[name] = mine.merge(theirs, name)
            elif mine is not None:
                features[name] = mine.with_missing(other.rows)
            elif theirs is not None:
                features[name] = theirs.with_missing(self.rows)
        return Profile(self.rows + other.rows, features)

    def feature(self, name: str) -> FeatureProfile:
        """One feature's statistics; raises NotFoundError."""
        try:
            return self.features[name]
        except KeyError:
            raise unknown("feature", name, self.features) from None

    def quantiles(self, feature: str, ranks: Sequence[float]) -> NDArray[np.float64]:
        """See `FeatureProfile.quantiles`."""
        return self.feature(feature).quantiles(ranks)

    def cdf(self, feature: str, points: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """See `FeatureProfile.cdf`."""
        return self.feature(feature).cdf(points)

    def counts(self, feature: str) -> dict[str, int]:
        """See `FeatureProfile.counts`."""
        return self.feature(feature).counts()

    def summary(self) -> list[FeatureSummary]:
        """Every feature's statistics in plain numbers."""
        return [feature.summary(name) for name, feature in self.features.items()]

    def to_bytes(self) -> bytes:
        """This profile, to be stored; `from_bytes` reads it again. A few hundred bytes for a feature of a
        day's rows, 12 kB at most for numbers."""
        stored = {name: feature._stored() for name, feature in self.features.items()}
        return _MAGIC + _encoder.encode(_StoredProfile(self.rows, stored))

    @staticmethod
    def from_bytes(data: bytes) -> Profile:
        """A profile that `to_bytes` wrote; raises InvalidInputError if it did not, or a newer one did."""
        if data[:3] != _MAGIC[:3]:
            raise InvalidInputError("These bytes are not a profile.")
        if data[:4] != _MAGIC:
            raise InvalidInputError(
                f"This profile has format {data[3:4].hex()}; this Trimtab reads format {_MAGIC[3:4].hex()}.",
                hint="Read it with the newer Trimtab that wrote it.",
            )
        try:
            stored = _decoder.decode(data[4:])
            features = {name: FeatureProfile._restored(feature) for name, feature in stored.features.items()}
        except (msgspec.MsgspecError, RuntimeError, ValueError, IndexError) as error:
            raise InvalidInputError(f"These bytes are a damaged profile: {error}.") from error
        return Profile(stored.rows, features)

    def digest(self) -> str:
        """The digest of this profile's bytes."""
        return digest_bytes(self.to_bytes())


def _shortened(words: Mapping[str, int]) -> Mapping[str, int]:
    """Long texts under their beginning and a digest, so that a profile of free text stays small."""
    if all(len(word) <= LONGEST_WORD for word in words):
        return words
    found: Counter[str] = Counter()
    for word, count in words.items():
        long = len(word) > LONGEST_WORD
        found[f"{word[:LONGEST_WORD]}… {digest_bytes(word.encode())[:19]}" if long else word] += count
    return dict(found)


_Words = tuple[Mapping[str, int] | None, datasketches.frequent_strings_sketch | None]


def _bounded(words: Mapping[str, int]) -> _Words:
    """`words` themselves while they are few, otherwise a sketch of them."""
    if len(words) <= EXACT_WORDS:
        return words, None
    sketch = datasketches.frequent_strings_sketch(FREQUENT_LG_SIZE)
    for word, count in words.items():
        sketch.update(word, count)
    return None, sketch


def _merged_words(one: FeatureProfile, two: FeatureProfile) -> _Words:
    if one.words is not None and two.words is not None:
        return _bounded(Counter(one.words) + Counter(two.words))
    if one.words is None and one.frequent is None:
        return two.words, two.frequent
    if two.words is None and two.frequent is None:
        return one.words, one.frequent
    sketch = datasketches.frequent_strings_sketch(FREQUENT_LG_SIZE)
    for side in (one, two):
        if side.frequent is not None:
            sketch.merge(side.frequent)
        for word, count in (side.words or {}).items():
            sketch.update(word, count)
    return None, sketch


def _items(sketch: datasketches.frequent_strings_sketch) -> list[tuple[str, int, int, int]]:
    found: list[tuple[str, int, int, int]] = sketch.get_frequent_items(
        datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES
    )
    return found


def _merged_sketch(
    one: datasketches.kll_doubles_sketch | None, two: datasketches.kll_doubles_sketch | None
) -> datasketches.kll_doubles_sketch | None:
    if one is None or two is None:
        return one or two
    sketch = datasketches.kll_doubles_sketch(QUANTILE_K)
    sketch.merge(one)
    sketch.merge(two)
    return sketch


def _present(choose: Callable[[float, float], float], one: float | None, two: float | None) -> float | None:
    if one is None or two is None:
        return two if one is None else one
    return choose(one, two)
