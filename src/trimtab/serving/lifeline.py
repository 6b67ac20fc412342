"""A lifeline: a pipe that only a supervisor holds open, so that what it started ends when it does."""

from __future__ import annotations

import contextlib
import os
import signal
import threading


def follow_lifeline(handle: int) -> None:
    """End this process by SIGTERM when the supervisor's end of the pipe closes."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(handle, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="trimtab-lifeline", daemon=True).start()
