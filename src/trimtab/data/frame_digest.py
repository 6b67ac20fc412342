"""The digest of a frame's rows: of the values and their order alone, whatever lies in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator

import blake3
import numpy as np
import polars as pl

from trimtab.data.column_types import DTYPES, column_type
from trimtab.digest import PREFIX

_FORMAT = b"trimtab frame 1\n"


def frame_digest(rows: pl.DataFrame) -> str:
    """The digest of `rows`, whose columns have types of table datasets.

    Columns count by name, type and place. Every NaN is alike; null is not NaN. Arrow's own encoding is no
    use here: what stands under a null, and how text is cut into buffers, differs between equal frames.
    """
    hasher = blake3.blake3(_FORMAT + f"{rows.height}\n".encode())
    for values in rows.iter_columns():
        kind = column_type(values)
        hasher.update(f"{len(values.name.encode())} {values.name} {kind}\n".encode())
        for part in _parts(values if values.dtype == DTYPES[kind] else values.cast(DTYPES[kind])):
            hasher.update(part)
    return PREFIX + hasher.hexdigest()


def _parts(values: pl.Series) -> Iterator[bytes]:
    """A column's values in one layout: which are null, then the values, with zero for null."""
    if values.null_count():
        yield b"1" + np.packbits(values.is_null().to_numpy()).tobytes()
        values = values.to_physical()
        values = values.fill_null("" if values.dtype == pl.String else 0)
    else:
        yield b"0"
    if values.dtype == pl.String:
        texts = [text.encode() for text in values.to_list()]
        yield np.array([len(text) for text in texts], dtype="<u4").tobytes()
        yield b"".join(texts)
    elif values.dtype == pl.Float64:
        numbers = values.to_numpy()
        yield np.where(np.isnan(numbers), np.nan, numbers).astype("<f8", copy=False).tobytes()
    elif values.dtype == pl.Boolean:
        yield np.packbits(values.to_numpy()).tobytes()
    else:
        yield values.to_physical().to_numpy().astype("<i8", copy=False).tobytes()
