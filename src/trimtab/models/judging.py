"""Judging a candidate in a process of its own: models that MLflow's clients logged run their own code.

    python -m trimtab.models.judging    reads one Assignment from standard input, answers on standard output

What the model prints goes to standard error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import msgspec

from trimtab.errors import StepFailedError, TrimtabError
from trimtab.models.gate_evaluation import GatesRequest, judge
from trimtab.models.reports import GateReport
from trimtab.pipelines.address import Address
from trimtab.workspace import Workspace


class Assignment(msgspec.Struct, frozen=True):
    """What to judge, and the workspace that it is kept in."""

    workspace: Address
    request: GatesRequest


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The report, or the error by its class in `trimtab.errors`."""

    report: GateReport | None = None
    error: str = ""
    message: str = ""
    hint: str = ""


def judge_apart(workspace: Workspace, request: GatesRequest) -> GateReport:
    """Judge a stored candidate in a process of its own; the report is not stored.

    Raises what `judge` raises, and StepFailedError if the process ended without an answer.
    """
    assignment = msgspec.json.encode(Assignment(Address.of(workspace), request))
    command = [sys.executable, "-m", "trimtab.models.judging"]
    ended = subprocess.run(command, input=assignment, stdout=subprocess.PIPE, check=False)
    try:
        answer = msgspec.json.decode(ended.stdout, type=Answer)
    except msgspec.DecodeError:
        how = (
            f"was killed by {signal.Signals(-ended.returncode).name}"
            if ended.returncode < 0
            else f"ended with status {ended.returncode}"
        )
        raise StepFailedError(
            f"The process in which {_named(request)} was judged {how} and gave no answer.",
            hint="Its last words stand above. There is no gate report.",
        ) from None
    if answer.report is None:
        raise _error_called(answer.error)(answer.message, hint=answer.hint)
    return answer.report


def main() -> None:
    """Read an assignment, judge, answer."""
    answering = os.dup(1)
    os.dup2(2, 1)  # what the model prints is not the answer
    assignment = msgspec.json.decode(sys.stdin.buffer.read(), type=Assignment)
    try:
        with assignment.workspace.open() as workspace:
            answer = Answer(report=judge(workspace, assignment.request))
    except TrimtabError as error:
        answer = Answer(error=type(error).__name__, message=error.message, hint=error.hint)
    with os.fdopen(answering, "wb") as out:
        out.write(msgspec.json.encode(answer))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of the model's may go on for ever


def _error_called(name: str, below: type[TrimtabError] = TrimtabError) -> type[TrimtabError]:
    """The class of the tree of errors that has this name; the root, if none has."""
    for each in below.__subclasses__():
        found = each if each.__name__ == name else _error_called(name, each)
        if found is not TrimtabError:
            return found
    return TrimtabError


def _named(request: GatesRequest) -> str:
    version = "a candidate" if request.version is None else f"version {request.version}"
    return f"{version} of '{request.model}'"


if __name__ == "__main__":
    main()
