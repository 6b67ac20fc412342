"""Whether a step is being called as a plain function, so that what it logs belongs to no run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

called_plainly: ContextVar[bool] = ContextVar("trimtab_called_plainly", default=False)


@contextmanager
def plain_call() -> Iterator[None]:
    """Within this, `trimtab.log` drops what it is given where no run is active: a step's test needs none."""
    token = called_plainly.set(True)
    try:
        yield
    finally:
        called_plainly.reset(token)
