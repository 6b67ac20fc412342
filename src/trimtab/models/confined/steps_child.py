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

from trimtab.errors import ModelCorruptError, TrimtabError
from trimtab.models.confined.messages import Answers, Ask, Hello
from trimtab.models.confined.step_package import StepPackage
from trimtab.models.runtimes.predictor import Predictor
from trimtab.models.runtimes.trusted import trusted_runtime_of
from trimtab.models.steps.applied import Applied, Function
from trimtab.models.steps.document import CODE_FOLDER, PackedStep
from trimtab.models.steps.literals import value_of
from trimtab.pipelines.modules import is_first_party


class StepsChild:
    """A loaded model with its steps at the end of a channel. It is made in a folder that is its own."""

    def __init__(self, folder: Path) -> None:
        self._package = package = StepPackage(folder)
        steps = package.steps
        inner = Predictor(package.inner, trusted_runtime_of(package.inner, package.content))
        code = Path.cwd() / "steps"
        for path, text in package.files.items():
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

    def hello(self) -> Hello:
        """What the first step takes."""
        return self._package.hello()

    def answer(self, asked: Ask) -> Answers:
        """Answer rows; raises TrimtabError."""
        return Answers(self._package.answers(self._applied, asked).tobytes())


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
