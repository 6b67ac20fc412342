"""Memory that a worker keeps for its next request."""

from __future__ import annotations

import ctypes

KEPT_BYTES = 16 * 2**20
LARGEST_BLOCK = 4 * 2**20

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Let the C library keep up to `KEPT_BYTES` that are free, blocks of up to `LARGEST_BLOCK` among them.

    glibc gives the blocks of a large request back to the system, and takes them anew page by page for the
    next one. For a binary tensor of 240 KB that costs as much as its checks, its model and its log together.
    Does nothing where there is no `mallopt` (other systems, musl).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGEST_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
