"""A filter that tells which blocks cannot have a key, so that these need not be read (Bloom 1970).

Ten bits a key and four places for each of them: of a hundred blocks without a key, about one is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

BITS_A_KEY = 10
PLACES = 4


def key_filter(keys: Collection[str]) -> bytes:
    """The filter of these keys."""
    bits = np.zeros((len(keys) * BITS_A_KEY + 64) // 64 * 64, dtype=np.uint8)
    bits[_places([key_hash(key) for key in keys], bits.size).ravel()] = 1
    return np.packbits(bits).tobytes()


def key_hash(key: str) -> int:
    """64 bits of a key, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def may_have(filter: bytes, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """For each key, by its hash: False if it is certainly not among those of the filter."""
    bits = np.unpackbits(np.frombuffer(filter, dtype=np.uint8))
    return np.asarray(bits[_places(hashes, bits.size)].all(axis=1), dtype=np.bool_)


def _places(hashes: Collection[int] | NDArray[np.uint64], size: int) -> NDArray[np.int64]:
    """Two halves of the hash make all places (Kirsch and Mitzenmacher 2006)."""
    whole = np.array(hashes, dtype=np.uint64)[:, None]
    low, high = whole & np.uint64(0xFFFFFFFF), whole >> np.uint64(32)
    steps = np.arange(PLACES, dtype=np.uint64)
    return ((low + steps * (high | np.uint64(1))) % np.uint64(size)).astype(np.int64)
