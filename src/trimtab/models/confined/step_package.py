"""A package with steps as both of its readers see it: opened, checked, and asked for rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trimtab.errors import ModelCorruptError, TrimtabError
from trimtab.models.confined.messages import Ask, Hello, ModelRaisedError
from trimtab.models.specification import read_model_file, read_specification
from trimtab.models.steps.applied import Applied, StepFailedOnRowsError
from trimtab.models.steps.document import INNER_FOLDER, inner_specification, read_files, read_steps
from trimtab.models.steps.raw_columns import RawColumns


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[None]:
    """While the package in a folder is opened: whatever its files bring about is a ModelCorruptError. What is
    no fault of theirs (TrimtabError, OSError, MemoryError) passes."""
    try:
        yield
    except (TrimtabError, OSError, MemoryError):
        raise
    except (Exception, pl.exceptions.PanicException) as error:  # which is no Exception
        raise ModelCorruptError(
            f"The model in '{folder}' cannot be opened: {type(error).__name__}: {error!s:.300}.",
            hint="Pack it again with Model.with_steps.",
        ) from error


class StepPackage:
    """What a package with steps holds, read and compared with its digests. Runs nothing of it."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelCorruptError."""
        with opening(folder):
            self.outer = read_specification(folder)
            self.steps = read_steps(read_model_file(folder, self.outer))
            self.files = read_files(folder, self.steps)
            self.inner = inner_specification(self.files)
            self.content = self.files[f"{INNER_FOLDER}/{self.inner.file}"]
            self._frame = RawColumns(self.steps.columns).frame
            self._numbers = sum(column.kind != "text" for column in self.steps.columns)
            others = len(self.steps.columns) - self._numbers
            # A time zone is looked up as late as a value is cast to it.
            self.empty = self._frame(0, np.empty((0, self._numbers)), [[] for _ in range(others)])

    def hello(self) -> Hello:
        """What the first step takes. The example and the answers to it stand in the package."""
        return Hello(
            columns=self.outer.signature.columns,
            whole=tuple(column.name for column in self.steps.columns if column.whole),
            target=self.outer.target,
            example={},
            answers=(),
        )

    def answers(self, applied: Applied, asked: Ask) -> NDArray[np.float64]:
        """One answer for each row, or the matrix that is wanted, as one array. Raises InvalidInputError,
        ModelRaisedError."""
        numbers = np.frombuffer(asked.numbers, dtype=np.float64).reshape(asked.rows, self._numbers)
        rows = self._frame(asked.rows, numbers, asked.texts)
        try:
            return applied.matrix(rows).reshape(-1) if asked.width else applied.answers(rows)
        except StepFailedOnRowsError as error:
            raise ModelRaisedError(error.message, hint=error.hint) from error
