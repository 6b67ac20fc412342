"""One anytime-valid test on the mean of a stream of paired differences.

The boundary is the Gaussian-mixture asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha,
Kennedy and Ramdas (2024), "Time-uniform central limit theory and asymptotic confidence sequences",
Annals of Statistics 52(6), theorem 2.2: after t observations

    mean_t +- s_t * sqrt( 2 (t r^2 + 1) / (t^2 r^2) * log( sqrt(t r^2 + 1) / alpha ) )

It may be looked at after every block without paying for the looks. It is asymptotic: with few blocks the
true error level lies above ``alpha``. `simulated_error` says by how much; claim that figure, not ``alpha``.
"""

from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from trimtab.errors import InvalidInputError

Decision = Literal["superior", "non_inferior", "inferior", "undecided"]
Sampler = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]

TUNED_FOR = 14
"""The number of blocks at which the boundary is tightest, unless told otherwise."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the blocks seen so far allow to be said, with the numbers behind it.

    ``mean``, ``lower`` and ``upper`` are in units of the loss (challenger minus champion: below zero the
    challenger is better). They are None while there are fewer than ``min_blocks`` blocks.
    """

    decision: Decision
    mean: float | None
    lower: float | None
    upper: float | None
    blocks: int
    alpha: float
    margin: float

    @property
    def acceptable(self) -> bool:
        """True when the challenger is shown to be better, or not worse by more than the margin."""
        return self.decision in ("superior", "non_inferior")


class ErrorLevel(msgspec.Struct, frozen=True, kw_only=True):
    """How often the test erred in a simulation whose truth is known."""

    nominal: float
    simulated: float
    standard_error: float
    max_blocks: int
    repetitions: int


def block_means(values: ArrayLike, blocks: ArrayLike) -> NDArray[np.float64]:
    """The mean of ``values`` within each block, in ascending order of block.

    ``blocks`` names each row's block by an integer (the day, say). Rows of one block may be dependent;
    the blocks should be long enough to be nearly independent of each other.
    """
    rows = np.asarray(values, dtype=np.float64)
    names = np.asarray(blocks)
    if rows.ndim != 1 or rows.shape != names.shape:
        raise InvalidInputError(
            f"Values of shape {rows.shape} do not go with blocks of shape {names.shape}.",
            hint="Give one block number for each value.",
        )
    _, place = np.unique(names, return_inverse=True)
    sums = np.bincount(place, weights=rows)
    return np.asarray(sums / np.bincount(place), dtype=np.float64)


def mixture_variance(alpha: float, blocks: int) -> float:
    """The r^2 for which the boundary is tightest at ``blocks`` blocks (same paper, appendix B.2).

    With v = t r^2 the width is least where v = log((v + 1) / alpha^2): a contraction, solved by iteration.
    """
    _check_level(alpha)
    v = -2.0 * np.log(alpha)
    for _ in range(60):
        v = np.log1p(v) - 2.0 * np.log(alpha)
    return float(v / blocks)


def half_widths(deviations: ArrayLike, blocks: ArrayLike, *, alpha: float, r2: float) -> NDArray[np.float64]:
    """Half the width of the confidence sequence after each count in ``blocks``."""
    t = np.asarray(blocks, dtype=np.float64)
    v = t * r2
    radius = np.sqrt(2.0 * (v + 1.0) / (t * v) * (0.5 * np.log1p(v) - np.log(alpha)))
    return np.asarray(np.asarray(deviations, dtype=np.float64) * radius, dtype=np.float64)


def judge(
    block_differences: ArrayLike,
    *,
    margin: float,
    alpha: float,
    min_blocks: int = 5,
    tuned_for: int = TUNED_FOR,
) -> Verdict:
    """Judge a challenger on its loss minus the champion's loss, one mean per block, in order of time.

    With L and U the ends of the confidence sequence for the mean difference:
    ``superior`` when U < 0; ``non_inferior`` when U < margin; ``inferior`` when L > margin (worse by more
    than is tolerated); else ``undecided``. At most one of non_inferior and inferior can hold.

    May be called after each new block; the error level over all the calls together is the one to compare
    with ``alpha``. Raises InvalidInputError on a non-finite difference or a negative margin.
    """
    if margin < 0:
        raise InvalidInputError(f"The margin {margin} is negative.", hint="Give zero or more.")
    if min_blocks < 2:
        raise InvalidInputError(f"min_blocks is {min_blocks}; a spread needs at least 2 blocks.")
    _check_level(alpha)
    values = np.asarray(block_differences, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InvalidInputError("The block differences must be a list of finite numbers.")
    count = int(values.size)
    if count < min_blocks:
        return Verdict(
            decision="undecided", mean=None, lower=None, upper=None, blocks=count, alpha=alpha, margin=margin
        )
    mean = float(values.mean())
    half = float(
        half_widths(values.std(ddof=1), count, alpha=alpha, r2=mixture_variance(alpha, max(tuned_for, 1)))
    )
    lower, upper = mean - half, mean + half
    decision: Decision = "undecided"
    if upper < 0:
        decision = "superior"
    elif upper < margin:
        decision = "non_inferior"
    elif lower > margin:
        decision = "inferior"
    return Verdict(
        decision=decision, mean=mean, lower=lower, upper=upper, blocks=count, alpha=alpha, margin=margin
    )


def simulated_error(
    *,
    alpha: float,
    max_blocks: int,
    min_blocks: int = 5,
    tuned_for: int = TUNED_FOR,
    draw: Sampler | None = None,
    repetitions: int = 20_000,
    seed: int = 0,
) -> ErrorLevel:
    """How often a true mean of zero falls outside the sequence at any look from min_blocks to max_blocks.

    ``draw(generator, (repetitions, max_blocks))`` gives the blocks: mean zero, each row one stream; normal
    by default. Give your own (heavy tails, dependence) to see what the test does on data like yours.
    """
    if not 2 <= min_blocks <= max_blocks:
        raise InvalidInputError(f"No look lies between {min_blocks} and {max_blocks} blocks.")
    generator = np.random.default_rng(seed)
    shape = (repetitions, max_blocks)
    values = generator.standard_normal(shape) if draw is None else draw(generator, shape)
    looks = np.arange(1, max_blocks + 1)
    means = np.cumsum(values, axis=1) / looks
    squares = np.cumsum(values**2, axis=1) - looks * means**2
    deviations = np.sqrt(np.maximum(squares, 0.0) / np.maximum(looks - 1, 1))
    widths = half_widths(deviations, looks, alpha=alpha, r2=mixture_variance(alpha, max(tuned_for, 1)))
    missed = (np.abs(means) > widths)[:, min_blocks - 1 :].any(axis=1)
    level = float(missed.mean())
    return ErrorLevel(
        nominal=alpha,
        simulated=level,
        standard_error=float(np.sqrt(level * (1.0 - level) / repetitions)),
        max_blocks=max_blocks,
        repetitions=repetitions,
    )


def _check_level(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise InvalidInputError(f"alpha is {alpha}.", hint="Give a number between 0 and 1, 0.05 say.")
