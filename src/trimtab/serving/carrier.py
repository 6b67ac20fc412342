"""The carrier: a process that brings segments to their tables, and ends once there is nothing left to bring.

    python -m trimtab.serving.carrier --project DIR

Its shipper starts it. It may be killed at any time, and another one begins again with the same segment.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import secrets
import signal
import socket
import threading
import time
from pathlib import Path

from trimtab.config import STATE_FOLDER, load_settings
from trimtab.errors import UnavailableError
from trimtab.serving.segments import FOLDER
from trimtab.serving.shipping import Shipper
from trimtab.serving.store_link import StoreLink

LOOK_SECONDS = 0.2
IDLE_SECONDS = 5.0
"""How long it waits for more: to start again takes half a second of processor time."""

_log = logging.getLogger(__name__)


def carry(project: Path, stop: threading.Event) -> None:
    """Ship until there was nothing to ship for a while, or until `stop`."""
    folder = project.resolve() / STATE_FOLDER / FOLDER
    actor = f"carrier-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    link = StoreLink(project, load_settings(project), folder, actor=actor)
    shipper = Shipper(folder)
    idle_since = time.monotonic()
    while time.monotonic() - idle_since < IDLE_SECONDS:
        try:
            if shipper.ship(link.workspace(), stop):
                idle_since = time.monotonic()
        except UnavailableError as error:
            _log.warning("carrying waits: %s", error)
        if stop.wait(LOOK_SECONDS):
            break
    link.close()


def main() -> None:
    """Run one carrier."""
    parser = argparse.ArgumentParser(prog="python -m trimtab.serving.carrier")
    parser.add_argument("--project", type=Path, required=True)
    asked = parser.parse_args()
    # Thousands of rows become objects at once, and none is part of a cycle: to look for cycles can wait.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    logging.basicConfig(format="%(asctime)s carrier %(levelname)s %(message)s", level=logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    carry(asked.project, stop)


def _watch_parent(stop: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    stop.set()


if __name__ == "__main__":
    main()
