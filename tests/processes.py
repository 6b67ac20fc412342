"""Whether a process still does anything."""

from __future__ import annotations

import psutil


def alive(process: psutil.Process) -> bool:
    """Whether it runs. One that has ended, and waits for somebody to take notice, does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
