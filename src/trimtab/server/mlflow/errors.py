"""How errors leave to MLflow's clients: `{"error_code", "message"}` with MLflow's codes and statuses."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from trimtab.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    TooLargeError,
    TrimtabError,
    UnauthorizedError,
    UnavailableError,
)

PREFIXES = tuple(
    f"/{api}/{version}/{name}"
    for api in ("api", "ajax-api")
    for version in ("2.0", "3.0", "4.0")
    for name in ("mlflow/", "mlflow-artifacts/")
)
"""Where MLflow's paths begin."""

_ANSWERS: tuple[tuple[type[TrimtabError], int, str], ...] = (
    (NotFoundError, 404, "RESOURCE_DOES_NOT_EXIST"),
    (AlreadyExistsError, 400, "RESOURCE_ALREADY_EXISTS"),
    (ConflictError, 400, "INVALID_PARAMETER_VALUE"),
    (InvalidInputError, 400, "INVALID_PARAMETER_VALUE"),
    (RefusedError, 403, "PERMISSION_DENIED"),
    (UnauthorizedError, 401, "UNAUTHENTICATED"),
    (UnavailableError, 503, "TEMPORARILY_UNAVAILABLE"),
)


class EndpointMissingError(NotFoundError):
    """MLflow has this endpoint, or may have; Trimtab does not answer it."""


def is_mlflow(path: str) -> bool:
    """Whether a path is one of MLflow's, so that what goes wrong is told in MLflow's way."""
    return path.startswith(PREFIXES)


def answer_mlflow_error(error: TrimtabError) -> Response:
    """The answer that MLflow's clients understand."""
    if isinstance(error, EndpointMissingError):
        return answer(404, "ENDPOINT_NOT_FOUND", str(error))
    if isinstance(error, TooLargeError):
        return answer(413, "INVALID_PARAMETER_VALUE", str(error))
    for kind, status, code in _ANSWERS:
        if isinstance(error, kind):
            return answer(status, code, str(error))
    return answer(500, "INTERNAL_ERROR", str(error))


def answer(status: int, code: str, message: str) -> Response:
    """An error by its status, code and message."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    content = msgspec.json.encode({"error_code": code, "message": message})
    return Response(content, status, headers, "application/json")
