"""Everything that Trimtab raises on purpose, in one tree.

    TrimtabError
    ├── InvalidInputError (ValueError)            what was given cannot be used                    422
    │   ├── ContractViolationError                rows break their dataset's contract              422
    │   ├── MalformedError                        bytes or a header that cannot be read            400
    │   └── TooLargeError                         a request body above the limit                   413
    ├── NotFoundError (LookupError)               a name or id that does not exist                 404
    ├── ConflictError                             it clashes with what is already there            409
    │   ├── AlreadyExistsError                    the name is taken                                409
    │   ├── AlreadyRunningError                   another supervisor holds this workspace          409
    │   ├── LeaseLostError                        somebody else took over; this holder must stop   409
    │   └── ClockWentBackError                    event time may only move forward                 409
    ├── RefusedError (PermissionError)            policy forbids it: gate, token, approval         403
    ├── UnauthorizedError (PermissionError)       no token, or a wrong one                         401
    ├── UnavailableError                          something needed does not answer; try again      503
    │   └── StorageFullError                      no space left; nothing was half-written          503
    ├── StepFailedError                           a pipeline step raised, hung or was killed       500
    ├── ModelCorruptError                         a model folder is not what its record says       500
    ├── JournalBrokenError                        the journal's hash chain does not hold           500
    ├── WorkspaceVersionError                     made by a newer Trimtab than this one            500
    └── MissingExtraError (ImportError)           an optional dependency is not installed          501

`code` is stable and travels in JSON; `http_status` is what the HTTP ports answer.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class TrimtabError(Exception):
    """The root of the tree. `message` says what happened to what; `hint` says what to do next."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = _written(message)
        self.hint = _written(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


def _written(words: str) -> str:
    """Words that any answer and terminal can hold: what was given is repeated in them, half a surrogate pair
    included, which UTF-8 does not have."""
    return words if words.isascii() else words.encode(errors="replace").decode()


class InvalidInputError(TrimtabError, ValueError):
    """What was given cannot be used."""

    code = "invalid_input"
    http_status = 422


class ContractViolationError(InvalidInputError):
    """Rows break their dataset's contract; `violations` are `trimtab.data.violations.Violation` each."""

    code = "contract_violation"

    def __init__(self, message: str, *, hint: str = "", violations: tuple[object, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.violations = violations


class MalformedError(InvalidInputError):
    """Bytes or a header that cannot be read at all: not JSON, not a time."""

    code = "malformed"
    http_status = 400


class TooLargeError(InvalidInputError):
    """A request body above the limit."""

    code = "too_large"
    http_status = 413


class NotFoundError(TrimtabError, LookupError):
    """A name or an id that does not exist."""

    code = "not_found"
    http_status = 404


class ConflictError(TrimtabError):
    """It clashes with what is already there."""

    code = "conflict"
    http_status = 409


class AlreadyExistsError(ConflictError):
    """The name is taken."""

    code = "already_exists"


class AlreadyRunningError(ConflictError):
    """Another supervisor holds this workspace."""

    code = "already_running"


class LeaseLostError(ConflictError):
    """Somebody else took over the lease; whoever sees this must stop what it was doing."""

    code = "lease_lost"


class ClockWentBackError(ConflictError):
    """Event time was asked to move backwards."""

    code = "clock_went_back"


class RefusedError(TrimtabError, PermissionError):
    """A policy forbids it: a missing gate report, a missing approval, an unsafe setting."""

    code = "refused"
    http_status = 403


class UnauthorizedError(TrimtabError, PermissionError):
    """No bearer token was sent, or one that is not known."""

    code = "unauthorized"
    http_status = 401


class UnavailableError(TrimtabError):
    """Something that is needed does not answer; the same call may succeed later."""

    code = "unavailable"
    http_status = 503


class StorageFullError(UnavailableError):
    """No space is left where this had to be written; nothing was written by halves."""

    code = "storage_full"


class StepFailedError(TrimtabError):
    """A pipeline step raised, ran out of time, or its process was killed."""

    code = "step_failed"


class ModelCorruptError(TrimtabError):
    """A model folder is not what its record says."""

    code = "model_corrupt"


class JournalBrokenError(TrimtabError):
    """The journal's hash chain does not hold: an entry was changed, removed or inserted."""

    code = "journal_broken"


class WorkspaceVersionError(TrimtabError):
    """The workspace was made by a newer Trimtab than this one."""

    code = "workspace_version"


class MissingExtraError(TrimtabError, ImportError):
    """An optional dependency is not installed."""

    code = "missing_extra"
    http_status = 501


def unknown(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> NotFoundError:
    """The error for a `kind` ("dataset", "model") that has no `name`, with the nearest known name."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if not hint:
        if near:
            hint = f"Did you mean '{near[0]}'?"
        elif names:
            hint = f"There are: {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}."
        else:
            hint = f"There is no {kind} yet."
    return NotFoundError(f"There is no {kind} '{name}'.", hint=hint)


def missing_extra(package: str, extra: str) -> MissingExtraError:
    """The error for an optional `package` that belongs to the extra `extra`."""
    return MissingExtraError(
        f"This needs the package '{package}', which is not installed.",
        hint=f"Install it with: pip install 'trimtab[{extra}]'",
    )
