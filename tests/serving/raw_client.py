"""A client that says bytes, and hears bytes."""

from __future__ import annotations

import asyncio


async def said_to(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """All that a client hears who says this and no more, until its connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = asyncio.create_task(reader.read())
    try:
        for piece in pieces:
            if heard.done():
                break
            writer.write(piece)
            await asyncio.sleep(pause)
        return await asyncio.wait_for(heard, 60)
    except ConnectionError:  # closed while it spoke
        return b""
    finally:
        writer.close()
