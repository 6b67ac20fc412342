"""A model file that may run code when it is read, in the process that is its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trimtab.errors import InvalidInputError
from trimtab.models.confined.messages import Answers, Ask, Hello, ModelRaisedError
from trimtab.models.runtimes.trusted import trusted_runtime_of
from trimtab.models.specification import read_model_file, read_specification


class ProgramChild:
    """The runtime of such a file at the end of a channel. What it is asked was encoded on the other side, and
    what it answers is transformed, and compared with the example, there."""

    def __init__(self, folder: Path) -> None:
        self._specification = read_specification(folder)
        content = read_model_file(folder, self._specification)
        self._runtime = trusted_runtime_of(self._specification, content)

    def hello(self) -> Hello:
        """What the model takes. The example and the answers to it stand in the package."""
        specification = self._specification
        return Hello(specification.signature.columns, (), specification.target, {}, ())

    def answer(self, asked: Ask) -> Answers:
        """Answer encoded rows; raises ModelRaisedError."""
        width = len(self._specification.signature.columns)
        rows = np.frombuffer(asked.numbers, dtype=np.float64).reshape(asked.rows, width)
        try:
            return Answers(self._runtime.matrix(rows).tobytes())
        except InvalidInputError as error:  # the rows are what the signature says, so it is not about them
            raise ModelRaisedError(error.message, hint=error.hint) from error
