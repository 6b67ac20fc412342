"""Prediction ids: unique, and recognisable as ours without looking anything up.

An id is 28 characters of URL-safe base64 for a request of one row, and 32 of them, a dot and the row's
number for a request of many:

    boot (8 bytes: second of the minter's start, random) · number (4) [· rows (3)] · MAC (9)

The MAC is keyed BLAKE3 over the endpoint's name and the bytes before it, so an id of one endpoint is not
genuine at another. Ids of one minter sort near each other, which keeps their index compact.
"""

from __future__ import annotations

import binascii
import hmac
import itertools
import os
import re
import struct
import time

from blake3 import blake3

SECRET_BYTES = 32
MOST_ROWS = 2**24 - 1

_MAC = 9
_SINGLE = re.compile(r"[A-Za-z0-9_-]{28}")
_ROW = re.compile(r"([A-Za-z0-9_-]{32})\.(0|[1-9][0-9]{0,7})")
_FROM_URL = str.maketrans("-_", "+/")
_TO_URL = bytes.maketrans(b"+/", b"-_")


class PredictionIds:
    """Makes and recognises ids under one secret of 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._boot = struct.pack(">I", int(time.time()) & 0xFFFFFFFF) + os.urandom(4)
        self._next = itertools.count().__next__

    def mint(self, endpoint: str, rows: int = 1) -> str:
        """The id of a new request of so many rows; `row_ids` makes its rows' ids."""
        number = self._next()
        if number >= 2**32 - 1:
            self._boot = struct.pack(">I", int(time.time()) & 0xFFFFFFFF) + os.urandom(4)
            self._next = itertools.count().__next__
        body = self._boot + number.to_bytes(4, "big")
        if rows != 1:
            body += rows.to_bytes(3, "big")
        whole = body + self._mac(endpoint, body)
        return binascii.b2a_base64(whole, newline=False).translate(_TO_URL).decode("ascii")

    def genuine(self, endpoint: str, id: str) -> bool:
        """Whether `id` was minted for a prediction of this endpoint."""
        if _SINGLE.fullmatch(id):
            base, row = id, None
        elif found := _ROW.fullmatch(id):
            base, row = found[1], int(found[2])
        else:
            return False
        whole = binascii.a2b_base64(base.translate(_FROM_URL))
        body, mac = whole[:-_MAC], whole[-_MAC:]
        if not hmac.compare_digest(mac, self._mac(endpoint, body)):
            return False
        return row is None or row < int.from_bytes(body[-3:], "big")

    def _mac(self, endpoint: str, body: bytes) -> bytes:
        return blake3(body + endpoint.encode(), key=self._secret).digest(length=_MAC)


def row_ids(base: str, rows: int) -> list[str]:
    """The ids of a request's rows."""
    return [base] if rows == 1 else [f"{base}.{row}" for row in range(rows)]
