"""From a model's raw answer to what the client gets: the declared transformation and clipping."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trimtab.models.signature import Output

Answers = NDArray[np.float64]


def _sigmoid(raw: Answers) -> Answers:
    # The two halves of the logistic function, each of which cannot overflow.
    small = np.exp(-np.abs(raw))
    return np.where(raw >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


_TRANSFORMS: dict[str, Callable[[Answers], Answers]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "sigmoid": _sigmoid,
}


def answers(raw: Answers, output: Output) -> Answers:
    """The answers for raw ones. NaN stays NaN; what overflows becomes infinite."""
    if output.transform == "identity":
        made = raw
    else:
        with np.errstate(over="ignore"):
            made = _TRANSFORMS[output.transform](raw)
    # Not np.clip, which takes five times as long on the single row of a request.
    if output.minimum is not None:
        made = np.maximum(made, output.minimum)
    if output.maximum is not None:
        made = np.minimum(made, output.maximum)
    return made
