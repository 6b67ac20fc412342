"""Drift as one effect size on a scale from 0 to 1: by how much the probability of an event has changed.

For numbers it is the largest difference between the two cumulative distributions (the Kolmogorov-Smirnov
distance), for categories the total variation distance, which is the same thing with all events allowed and
not only half-lines; where the share of missing values changed by more, that. All are read off sketches, whose
rank error is about 1 %, so effects below about 0.03 mean nothing. An effect size does not grow with traffic,
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
    """The effect size, 0 (alike) to 1 (disjoint), of two non-empty samples of one feature."""
    missing = abs(_missing_share(reference) - _missing_share(current))
    if not reference.count or not current.count:
        return missing
    if reference.finite and current.finite:
        return max(missing, _largest_gap(reference, current))
    return max(missing, _total_variation(reference, current))


def effects(reference: Profile, current: Profile, features: Sequence[str] | None = None) -> dict[str, float]:
    """The effect size of each feature that both profiles have, or of `features`."""
    shared = [name for name in reference.features if name in current.features]
    wanted = shared if features is None else [name for name in features if name in shared]
    return {name: effect(reference.feature(name), current.feature(name)) for name in wanted}


def _missing_share(profile: FeatureProfile) -> float:
    total = profile.count + profile.missing
    return profile.missing / total if total else 0.0


def _largest_gap(reference: FeatureProfile, current: FeatureProfile) -> float:
    ranks = GRID.tolist()
    points = np.unique(np.concatenate([reference.quantiles(ranks), current.quantiles(ranks)]))
    return float(np.max(np.abs(reference.cdf(points) - current.cdf(points))))


def _total_variation(reference: FeatureProfile, current: FeatureProfile) -> float:
    one, two = _shares(reference), _shares(current)
    return 0.5 * sum(abs(one.get(word, 0.0) - two.get(word, 0.0)) for word in one.keys() | two.keys())


def _shares(profile: FeatureProfile) -> dict[str, float]:
    counts = profile.counts()
    shares = {word: count / profile.count for word, count in counts.items()}
    rest = 1.0 - sum(shares.values())
    return {**shares, REST: rest} if rest > 1e-9 else shares
