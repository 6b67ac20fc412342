"""A gateway worker whose disk is full while the file `full` stands in the project.

python tests/serving/faulty_worker.py PROJECT FD
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from pathlib import Path

from trimtab.serving.worker import Worker

project = Path(sys.argv[1])


def write(handle: int, data: bytes) -> int:
    """Half of what does not fit is written before the disk says that it is full."""
    if not (project / "full").exists():
        return os.write(handle, data)
    if len(data) > 8:
        return os.write(handle, data[: len(data) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


asyncio.run(Worker(project, "127.0.0.1", 0, int(sys.argv[2]), write=write).serve())
