"""A model with its steps, in the process that is its own: of the user's code, what is packed runs there.

The code is written from what the digests vouch for into the process's own folder, and imported from there.
What is first-party on the search path is taken off it, so that nothing is found here which another machine
would not have.
"""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path

import numpy as np

from trimtab.errors import ModelCorruptError, TrimtabError
from trimtab.models.confined.messages import Answers, Ask, Hello, ModelRaisedError
from trimtab.models.runtimes.predictor import Predictor
from trimtab.models.runtimes.trusted import trusted_runtime_of
from trimtab.models.specification import read_model_file, read_specification
from trimtab.models.steps.applied import Applied, Function, StepFailedOnRowsError
from trimtab.models.steps.document import (
    CODE_FOLDER,
    INNER_FOLDER,
    PackedStep,
    inner_specification,
    read_files,
    read_steps,
)
from trimtab.models.steps.literals import value_of
from trimtab.models.steps.raw_columns import RawColumns
from trimtab.pipelines.modules import is_first_party


class StepsChild:
    """A loaded model with its steps at the end of a channel. It is made in a folder that is its own."""

    def __init__(self, folder: Path) -> None:
        self._outer = outer = read_specification(folder)
        self._steps = steps = read_steps(read_model_file(folder, outer))
        files = read_files(folder, steps)
        specification = inner_specification(files)
        content = files[f"{INNER_FOLDER}/{specification.file}"]
        inner = Predictor(specification, trusted_runtime_of(specification, content))
        code = Path.cwd() / "steps"
        for path, text in files.items():
            if path.startswith(f"{CODE_FOLDER}/"):
                place = code / path.removeprefix(f"{CODE_FOLDER}/")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(text)
        sys.path[:] = [str(code), *(path for path in sys.path if path and not is_first_party(Path(path)))]
        importlib.invalidate_caches()
        self._applied = Applied(
            inner,
            _function(steps.before),
            _function(steps.after),
            with_rows=steps.after is not None and steps.after.with_rows,
        )
        self._frame = RawColumns(steps.columns).frame
        self._numbers = sum(column.kind != "text" for column in steps.columns)

    def hello(self) -> Hello:
        """What the first step takes. The example and the answers to it stand in the package."""
        return Hello(
            columns=self._outer.signature.columns,
            whole=tuple(column.name for column in self._steps.columns if column.whole),
            target=self._outer.target,
            example={},
            answers=(),
        )

    def answer(self, asked: Ask) -> Answers:
        """Answer rows; raises TrimtabError."""
        numbers = np.frombuffer(asked.numbers, dtype=np.float64).reshape(asked.rows, self._numbers)
        rows = self._frame(asked.rows, numbers, asked.texts)
        try:
            made = self._applied.matrix(rows) if asked.width else self._applied.answers(rows)
        except StepFailedOnRowsError as error:
            raise ModelRaisedError(error.message, hint=error.hint) from error
        return Answers(made.tobytes())


def _function(step: PackedStep | None) -> Function | None:
    """The function in the packed code, with its arguments."""
    if step is None:
        return None
    try:
        found = getattr(importlib.import_module(step.module), step.name)
    except TrimtabError:
        raise
    except Exception as error:
        raise ModelCorruptError(
            f"The packed code of the step '{step}' cannot be imported: {type(error).__name__}: {error}.",
            hint="A package that it uses may be missing here, or the code may read a file as it is imported.",
        ) from error
    plain: Function = getattr(found, "function", found)  # of a step
    if not step.arguments:
        return plain
    return functools.partial(plain, **{name: value_of(text) for name, text in step.arguments.items()})
