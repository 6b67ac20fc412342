"""Codecs of tables and arrays. Each names its library only once a value needs it."""

# ruff: noqa: PLC0415  (a step that passes no pandas must not load pandas)

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa


class PolarsCodec:
    """Polars frames as one Arrow IPC file of one chunk, so that equal frames have equal bytes."""

    def encode(self, value: pl.DataFrame, to: Path) -> None:
        """Write the frame."""
        value.rechunk().write_ipc(to, compression="lz4")

    def decode(self, at: Path) -> pl.DataFrame:
        """Read the frame."""
        import polars as pl

        return pl.read_ipc(at)


class PolarsSeriesCodec:
    """Polars series, as a frame of one column."""

    def encode(self, value: pl.Series, to: Path) -> None:
        """Write the series."""
        PolarsCodec().encode(value.to_frame(), to)

    def decode(self, at: Path) -> pl.Series:
        """Read the series."""
        return PolarsCodec().decode(at).to_series()


class NumpyCodec:
    """Arrays and scalars as .npy files; arrays of Python objects are refused."""

    def encode(self, value: np.ndarray[Any, Any] | np.generic, to: Path) -> None:
        """Write the array."""
        import numpy as np

        array = np.asarray(value)
        if array.dtype.hasobject:
            raise InvalidInputError(
                "An array of Python objects cannot be passed on.",
                hint="Give it a plain dtype, or pass a list.",
            )
        scalar = isinstance(value, np.generic)
        with to.open("wb") as file:
            file.write(b"s" if scalar else b"a")
            np.save(file, array, allow_pickle=False)

    def decode(self, at: Path) -> np.ndarray[Any, Any] | np.generic:
        """Read the array."""
        import numpy as np

        with at.open("rb") as file:
            scalar = file.read(1) == b"s"
            array: np.ndarray[Any, Any] = np.load(file, allow_pickle=False)
        return array[()] if scalar else array


class ArrowCodec:
    """Arrow tables as IPC files."""

    def encode(self, value: pa.Table, to: Path) -> None:
        """Write the table."""
        import pyarrow as pa

        with pa.OSFile(str(to), "wb") as sink, pa.ipc.new_file(sink, value.schema) as writer:
            writer.write_table(value.combine_chunks())

    def decode(self, at: Path) -> pa.Table:
        """Read the table."""
        import pyarrow as pa

        with pa.OSFile(str(at), "rb") as source:
            return pa.ipc.open_file(source).read_all()


class PandasCodec:
    """Pandas frames as Parquet with their index; columns of mixed objects are refused."""

    def encode(self, value: pd.DataFrame, to: Path) -> None:
        """Write the frame."""
        try:
            value.to_parquet(to, engine="pyarrow")
        except (ValueError, TypeError) as error:
            raise InvalidInputError(
                f"This pandas frame cannot be passed on: {error}.", hint="Give each column one type."
            ) from error

    def decode(self, at: Path) -> pd.DataFrame:
        """Read the frame."""
        import pandas as pd

        return pd.read_parquet(at, engine="pyarrow")


class PathCodec:
    """A path that a step returns stands for the file or the folder there, which is copied."""

    def encode(self, value: Path, to: Path) -> None:
        """Copy what stands at the path."""
        if value.is_dir():
            shutil.copytree(value, to)
        elif value.is_file():
            shutil.copyfile(value, to)
        else:
            raise InvalidInputError(
                f"The path {value} cannot be passed on: nothing stands there.",
                hint="Write the file first, or return the path as a str if only its name matters.",
            )

    def decode(self, at: Path) -> Path:
        """The path of the copy; it lives until the run ends."""
        return at
