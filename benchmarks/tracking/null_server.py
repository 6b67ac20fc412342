"""A server that answers at once: what a client reaches against it, no server can surpass.

It asks another server for what it does not know yet, and from then on gives the same bytes again. It knows
a request by its path and, for reads, by what is asked. `GET /last` gives the last request as it came, which
is how requests of the client are recorded. Run by `python -m benchmarks.tracking.null_server PORT URL`.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import sys
from typing import cast
from urllib.parse import urlsplit

EMPTY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
LIMIT_PATH = "/limit"
LAST_PATH = "/last"


class Known:
    """The answers that are known, and the last request."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._answers = {f"POST {LIMIT_PATH}": EMPTY, "GET /health": EMPTY}
        self.last = b""

    def answer(self, head: bytes, body: bytes) -> bytes:
        """The whole answer to a request."""
        line = head[: head.index(b"\r\n")].decode()
        method, target, _ = line.split(" ")
        if target == LAST_PATH:
            return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(self.last) + self.last
        self.last = head + body
        key = request_key(method, target, body)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = self._asked(method, target, head, body)
        return answer

    def _asked(self, method: str, target: str, head: bytes, body: bytes) -> bytes:
        connection = http.client.HTTPConnection(urlsplit(self._upstream).netloc, timeout=60)
        headers = {}
        for line in head.decode("latin-1").split("\r\n")[1:]:
            name, _, value = line.partition(":")
            if name and name.lower() not in {"host", "connection", "content-length", "accept-encoding"}:
                headers[name] = value.strip()
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        kept = [f"HTTP/1.1 {response.status} {response.reason}"]
        for name, value in response.getheaders():
            if name.lower() not in {"connection", "content-length", "transfer-encoding"}:
                kept.append(f"{name}: {value}")
        kept.append(f"content-length: {len(content)}")
        return "\r\n".join(kept).encode("latin-1") + b"\r\n\r\n" + content


def request_key(method: str, target: str, body: bytes) -> str:
    """What requests have in common that get the same answer."""
    if method == "PUT":  # artifacts, each under a name of its own
        return method
    if target.endswith("/search"):
        return f"{method} {target} {body.decode()}"
    return f"{method} {target}"


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        opened: socket.socket = transport.get_extra_info("socket")
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        while end >= 4:
            head = bytes(self._received[:end])
            length = body_length(head)
            if len(self._received) < end + length:
                return
            body = bytes(self._received[end : end + length])
            del self._received[: end + length]
            self._transport.write(self._known.answer(head, body))
            end = self._received.find(b"\r\n\r\n") + 4


def body_length(head: bytes) -> int:
    """What the header says."""
    lowered = head.lower()
    place = lowered.find(b"\r\ncontent-length:")
    return int(lowered[place + 17 : lowered.index(b"\r\n", place + 2)]) if place >= 0 else 0


async def serve(port: int, upstream: str) -> None:
    known = Known(upstream)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(known), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
