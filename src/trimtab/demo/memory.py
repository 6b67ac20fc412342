"""How much memory a tree of processes takes: proportional set sizes, summed, sampled in a thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psutil

SAMPLE_SECONDS = 2.0


class PeakMemory:
    """Watches this process and all below it; `peak_mb` is the largest sum seen, in MB (10^6 bytes).

    The proportional set size shares a page out among the processes that map it, so the sum counts each
    page once.
    """

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._stopped = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator[PeakMemory]:
        """Sample while the block runs."""
        thread = threading.Thread(target=self._watch, name="trimtab-memory", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.peak_mb = max(self.peak_mb, total_mb())


def total_mb() -> float:
    """The summed proportional set size of this process and all below it, in MB."""
    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # ended, or another user's
            total += process.memory_full_info().pss
    return total / 1e6
