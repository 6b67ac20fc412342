"""What a process does with memory that it has freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from trimtab.serving.freed_memory import keep_freed_memory
if {kept}:
    keep_freed_memory()
def request():
    body = bytes(bytearray(2**20))
    return [body[1:], body[:-1]]
for _ in range(8):
    request()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    request()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, kept: bool) -> int:
    """How many pages a process takes from the system for 100 requests of megabytes."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(kept=kept)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives it back so soon")
def test_memory_that_one_large_request_frees_serves_the_next() -> None:
    assert faults(kept=True) < 100 < faults(kept=False)
