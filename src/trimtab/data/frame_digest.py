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
    for name in rows.columns:
        values = rows.get_column(name)
        kind = column_type(values)
        hasher.update(f"{len(name.encode())} {name} {kind}\n".encode())
        for part in _parts(values.cast(DTYPES[kind])):
            hasher.update(part)
    return PREFIX + hasher.hexdigest()


def _parts(values: pl.Series) -> Iterator[bytes]:
    """A column's values in one layout: which are null, then the values, with zero for null."""
    nulls = values.is_null().to_numpy() if values.null_count() else np.zeros(len(values), dtype=bool)
    yield np.packbits(nulls).tobytes()
    if values.dtype == pl.String:
        texts = values.fill_null("")
        yield texts.str.len_bytes().to_numpy().astype("<u4").tobytes()
        yield "".join(texts.to_list()).encode()
    elif values.dtype == pl.Float64:
        numbers = values.fill_null(0.0).to_numpy()
        yield np.where(np.isnan(numbers), np.nan, numbers).astype("<f8").tobytes()
    elif values.dtype == pl.Boolean:
        yield np.packbits(values.fill_null(False).to_numpy()).tobytes()
    else:
        yield values.to_physical().fill_null(0).to_numpy().astype("<i8").tobytes()
