"""Content digests: BLAKE3, written "b3:" and 64 hexadecimal digits."""

from __future__ import annotations

import os
import re
from pathlib import Path

import blake3
import msgspec

PREFIX = "b3:"
_PATTERN = re.compile(r"b3:[0-9a-f]{64}")
_canonical = msgspec.json.Encoder(order="sorted")


def digest_bytes(data: bytes | bytearray | memoryview) -> str:
    """The digest of these bytes."""
    return PREFIX + blake3.blake3(data).hexdigest()


def digest_json(value: object) -> str:
    """The digest of a value's canonical JSON (keys sorted, no spaces).

    `value` may be anything that msgspec can encode: builtins, structs, dataclasses, dates.
    """
    return digest_bytes(_canonical.encode(value))


def digest_file(path: str | os.PathLike[str]) -> str:
    """The digest of a file's bytes, read at flat memory."""
    hasher = blake3.blake3()
    hasher.update_mmap(Path(path))
    return PREFIX + hasher.hexdigest()


def is_digest(text: str) -> bool:
    """Whether `text` is written as a digest is."""
    return _PATTERN.fullmatch(text) is not None
