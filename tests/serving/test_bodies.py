from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from trimtab.errors import TooLargeError
from trimtab.serving.bodies import Patience, SlowBodyError


class _Channel:
    """A caller that sends its chunks so many seconds apart."""

    def __init__(self, chunks: list[bytes], seconds: float) -> None:
        self._chunks = chunks
        self._seconds = seconds

    async def __call__(self) -> bytes:
        return b"".join([chunk async for chunk in self])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            await asyncio.sleep(self._seconds)
            yield chunk

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        raise AssertionError


def read(patience: Patience, channel: _Channel, headers: dict[str, Any], limit: int = 100) -> bytes:
    return asyncio.run(patience.read(headers, channel, limit))


@pytest.mark.parametrize("headers", [{}, {"content-length": "10"}])
def test_a_body_that_does_not_come_is_not_waited_for(headers: dict[str, str]) -> None:
    with pytest.raises(SlowBodyError, match=r"0\.1 seconds"):
        read(Patience(0.1), _Channel([b"x"], 60), headers)


def test_a_slow_body_is_taken_if_it_comes_in_time() -> None:
    assert read(Patience(60), _Channel([b"x"] * 5, 0.3), {}) == b"x" * 5


def test_who_cancels_for_another_reason_is_heard() -> None:
    async def cancelled() -> None:
        task = asyncio.ensure_future(Patience(60).read({}, _Channel([b"x"], 60), 100))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())


@pytest.mark.parametrize("headers", [{}, {"content-length": "300"}, {"content-length": "a lot"}])
def test_a_body_beyond_the_limit_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(TooLargeError):
        read(Patience(), _Channel([b"x" * 100] * 3, 0), headers)
