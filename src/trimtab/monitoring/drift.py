"""Drift as one effect size on a scale from 0 to 1: by how much the probability of an event has changed.

For numbers it is the largest difference between the two cumulative distributions (the Kolmogorov-Smirnov
distance), for categories the total variation distance, which is the same thing with all events allowed and
not only half-lines. Missing values are one more value in both. All is read off sketches, whose rank error is
about 1 %, so effects below about 0.03 mean nothing. An effect size does not grow with traffic,
as a p-value does: it stays quiet until a change matters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.data.profiles import FeatureProfile, Profile

GRID = np.linspace(0.0, 1.0, 101)
"""The quantiles of both samples at which their distributions are compared."""

REST = "\0rest"


def effect(reference: FeatureProfile, current: FeatureProfile) -> float:
    """The effect size, 0 (alike) to 1 (disjoint), of two samples of one feature.

    Missing values count as a value of their own, so that a feature which is there in a few rows only
    cannot have drifted by more than their share.
    """
    shares = _present_share(reference), _present_share(current)
    missing = abs(shares[0] - shares[1])
    if not reference.count or not current.count:
        return missing
    if reference.finite and current.finite:
        return max(missing, _largest_gap(reference, current, *shares))
    return _total_variation(reference, current, *shares)


def effects(reference: Profile, current: Profile, features: Sequence[str] | None = None) -> dict[str, float]:
    """The effect size of each feature that both profiles have, or of those `features` that they have.

    Times are left out, since they always move on, and so is what is only counted (lists, bytes).
    """
    shared = [name for name in reference.features if name in current.features]
    wanted = shared if features is None else [name for name in features if name in shared]
    wanted = [name for name in wanted if reference.feature(name).kind in ("number", "category")]
    return {name: effect(reference.feature(name), current.feature(name)) for name in wanted}


def _present_share(profile: FeatureProfile) -> float:
    total = profile.count + profile.missing
    return profile.count / total if total else 0.0


def _largest_gap(reference: FeatureProfile, current: FeatureProfile, one: float, two: float) -> float:
    """Over all half-lines, on either side; `one` and `two` are the shares of rows that have a value."""
    ranks = GRID.tolist()
    points = np.unique(np.concatenate([reference.quantiles(ranks), current.quantiles(ranks)]))
    below, then = reference.cdf(points), current.cdf(points)
    gaps = np.abs(one * below - two * then), np.abs(one * (1 - below) - two * (1 - then))
    return float(np.max(gaps))


def _total_variation(reference: FeatureProfile, current: FeatureProfile, one: float, two: float) -> float:
    first, second = _shares(reference), _shares(current)
    words = first.keys() | second.keys()
    changed = sum(abs(one * first.get(word, 0.0) - two * second.get(word, 0.0)) for word in words)
    return 0.5 * (changed + abs(one - two))


def _shares(profile: FeatureProfile) -> dict[str, float]:
    counts = profile.counts()
    shares = {word: count / profile.count for word, count in counts.items()}
    rest = 1.0 - sum(shares.values())
    return {**shares, REST: rest} if rest > 1e-9 else shares
