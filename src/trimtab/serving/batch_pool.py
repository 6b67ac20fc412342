"""Worker processes for the parts of a batch job.

Each has a pipe of its own, so that it ends when this process does, however that ends. They are started afresh
(spawned), with as many threads as leave each other room.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from trimtab.errors import UnavailableError
from trimtab.serving.batch_worker import Part, PartReport, Task, serve_parts

_CAPPED = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_THRIFTY = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "8388608",
    "MALLOC_TRIM_THRESHOLD_": "8388608",
}
"""What keeps a worker from holding on to memory that it has freed (300 MB instead of 450 MB), yet lets it use
the same pages again for the matrix of each call, which takes half the time of getting fresh ones."""

_PATIENCE = 5.0


def computed(task: Task, parts: Iterable[Part], workers: int) -> Iterator[PartReport]:
    """The reports of parts, as they are finished.

    Raises what a worker raised, and UnavailableError if one was killed. Ending early ends the workers.
    """
    waiting = deque(parts)
    context = multiprocessing.get_context("spawn")
    running: dict[Connection, tuple[SpawnProcess, Part | None]] = {}
    try:
        for _ in range(min(workers, len(waiting))):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve_parts, args=(theirs, task), daemon=True)
            with _environment(dict.fromkeys(_CAPPED, str(task.threads)) | _THRIFTY):
                process.start()
            theirs.close()
            running[ours] = (process, None)
            _hand_out(running, ours, waiting)
        while any(part is not None for _, part in running.values()):
            for found in wait([connection for connection, (_, part) in running.items() if part is not None]):
                assert isinstance(found, Connection)
                yield _received(found, *running[found])
                _hand_out(running, found, waiting)
    finally:
        for connection, (process, part) in running.items():
            connection.close()
            if part is not None:
                process.terminate()
        for process, _ in running.values():
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()


def _hand_out(
    running: dict[Connection, tuple[SpawnProcess, Part | None]], to: Connection, waiting: deque[Part]
) -> None:
    process, _ = running[to]
    part = waiting.popleft() if waiting else None
    running[to] = (process, part)
    if part is not None:
        with suppress(BrokenPipeError):  # it has an error to tell, or is dead: reading says which
            to.send(part)


def _received(connection: Connection, process: SpawnProcess, part: Part | None) -> PartReport:
    try:
        answer = connection.recv()
    except (EOFError, ConnectionResetError):
        process.join(_PATIENCE)
        code = process.exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"
        raise UnavailableError(
            f"A worker process ended {how} while it computed part {part.number if part else '?'}.",
            hint="If memory ran out, use fewer --workers. The finished parts are kept: run the same again.",
        ) from None
    if isinstance(answer, BaseException):
        raise answer
    assert isinstance(answer, PartReport)
    return answer


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """What a process that is started in here finds in its environment."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
