"""Bounds on a mean of dependent rows, for a single look at a fixed set of rows."""

import math

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from trimtab.errors import InvalidInputError


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A mean with a lower and an upper bound, each of which holds alone with probability ``level``."""

    mean: float
    lower: float
    upper: float
    level: float
    blocks: int
    rows: int


def paired_block_bound(differences: ArrayLike, blocks: ArrayLike, level: float = 0.95) -> Interval:
    """Bounds on the mean of paired differences whose rows depend on each other within a block.

    The mean is over rows. Its variance is the cluster-robust one, from the residual sums e_g of the G
    blocks: G / (G - 1) * sum(e_g^2) / N^2, and the bounds use Student's t with G - 1 degrees of freedom
    (Cameron and Miller 2015, "A practitioner's guide to cluster-robust inference", sections II and VI:
    with few blocks the normal quantile is too narrow). For one look only: use `sequential.judge` to look
    again and again. Raises InvalidInputError with fewer than 2 blocks.
    """
    values = np.asarray(differences, dtype=np.float64)
    names = np.asarray(blocks)
    if values.ndim != 1 or values.shape != names.shape or not np.isfinite(values).all():
        raise InvalidInputError(
            f"Differences of shape {values.shape} with blocks of shape {names.shape} cannot be bounded.",
            hint="Give finite numbers and one block number for each.",
        )
    if not 0.5 <= level < 1.0:
        raise InvalidInputError(f"The level {level} is not in [0.5, 1).", hint="Give 0.95, say.")
    _, place = np.unique(names, return_inverse=True)
    sizes = np.bincount(place)
    count = int(sizes.size)
    if count < 2:
        raise InvalidInputError(
            f"{count} block(s) say nothing about the spread between blocks.",
            hint="Hold out a longer window, or use shorter blocks.",
        )
    mean = float(values.mean())
    residuals = np.bincount(place, weights=values) - sizes * mean
    variance = count / (count - 1) * float(np.square(residuals).sum()) / values.size**2
    half = student_quantile(level, count - 1) * float(np.sqrt(variance))
    return Interval(
        mean=mean,
        lower=mean - half,
        upper=mean + half,
        level=level,
        blocks=count,
        rows=int(values.size),
    )


def student_quantile(level: float, degrees: int) -> float:
    """The quantile of Student's t at ``level`` in [0.5, 1), by bisection of its distribution function.

    For whole degrees of freedom that function is a finite sum (Abramowitz and Stegun 1964, 26.7.3 and
    26.7.4). Written here because importing scipy.special costs each process 0.4 s.
    """
    low, high = 0.0, 1.0
    while _student_cdf(high, degrees) < level:
        high *= 2.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        if _student_cdf(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _student_cdf(t: float, degrees: int) -> float:
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2 == 1
    term = cosine if odd else 1.0
    total = 0.0 if degrees == 1 else term
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    both = 2.0 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + 0.5 * both
