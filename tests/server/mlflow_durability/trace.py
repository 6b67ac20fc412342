"""System calls as strace writes them, and what they say about when something was durable."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from typing import NamedTuple

CALLS = "read,recvfrom,write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync"

STRACE = ("strace", "-f", "--seccomp-bpf", "-y", "-s", "400", "-e", f"trace={CALLS}", "-o")
"""How a program is traced; the file to write to comes next."""

_CALL = re.compile(r"^(?P<thread>\d+) +(?P<name>\w+)\((?P<rest>.*)$")
_RESUMED = re.compile(r"^(?P<thread>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
_FILE = re.compile(r"^\d+<(?P<path>[^>]*)>")
_UNFINISHED = "<unfinished ...>"


class Event(NamedTuple):
    """The beginning or the end of a system call."""

    name: str
    path: str
    text: str
    ended: bool
    """Whether the call has returned; if it took no time worth mentioning, one event is both."""


def why_not() -> str:
    """Why no process can be traced here; empty if one can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(
        [*STRACE, "/dev/null", "true"], capture_output=True, text=True, check=False, timeout=60
    )
    return "" if tried.returncode == 0 else f"this machine lets nobody trace: {tried.stderr.strip()[:200]}"


def events(lines: Iterable[str]) -> Iterator[Event]:
    """What a trace tells, in its order."""
    begun: dict[str, Event] = {}
    for line in lines:
        if call := _CALL.match(line):
            file = _FILE.match(call["rest"])
            unfinished = call["rest"].rstrip().endswith(_UNFINISHED)
            event = Event(call["name"], file["path"] if file else "", call["rest"], ended=not unfinished)
            if unfinished:
                begun[call["thread"]] = event
            yield event
        elif (resumed := _RESUMED.match(line)) and (start := begun.pop(resumed["thread"], None)):
            yield Event(start.name, start.path, start.text + resumed["rest"], ended=True)


def synced_before_the_answer(trace: Iterable[Event], request: str, *suffixes: str) -> bool:
    """Whether, between the arrival of `request` and the answer 200 to it, files whose paths have each of
    these parts were synced, and the last write to each of the store's logs came before its sync."""
    remaining = iter(trace)
    if not any(request in event.text for event in remaining if event.name in {"read", "recvfrom"}):
        return False
    unsynced: set[str] = set()
    synced: set[str] = set()
    for event in remaining:
        if event.name in {"write", "writev", "sendto", "sendmsg"} and "HTTP/1.1 200" in event.text:
            return not unsynced and all(any(part in path for path in synced) for part in suffixes)
        if event.name == "pwrite64" and event.path.endswith("-wal"):
            unsynced.add(event.path)
        elif event.name in {"fsync", "fdatasync"} and event.ended and event.text.rstrip().endswith("= 0"):
            synced.add(event.path)
            unsynced.discard(event.path)
    return False
