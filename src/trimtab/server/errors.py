"""How errors leave over HTTP: `{"error": {"code", "message", "hint"}}` with the error's own status."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from trimtab.errors import InvalidInputError, TrimtabError, UnauthorizedError
from trimtab.server.mlflow.errors import answer_mlflow_error, is_mlflow


def answer_error(status: int, code: str, message: str, hint: str = "") -> JSONResponse:
    """The one shape that every error has."""
    headers = {}
    if status == UnauthorizedError.http_status:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers["Retry-After"] = "1"
    content = {"error": {"code": code, "message": message, "hint": hint}}
    return JSONResponse(content, status_code=status, headers=headers)


def answer_to(path: str, error: TrimtabError) -> Response:
    """The answer to a request for `path` that ended in this error, as whoever asks there understands it."""
    if is_mlflow(path):
        return answer_mlflow_error(error)
    return answer_error(error.http_status, error.code, error.message, error.hint)


def install_error_handlers(app: FastAPI) -> None:
    """Make all errors of this app leave in the one shape."""

    @app.exception_handler(TrimtabError)
    def on_trimtab_error(_: Request, error: TrimtabError) -> JSONResponse:
        return answer_error(error.http_status, error.code, error.message, error.hint)

    @app.exception_handler(RequestValidationError)
    def on_bad_request(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        refused = InvalidInputError(f"The request cannot be used: {place}: {first['msg']}.")
        return answer_error(refused.http_status, refused.code, refused.message)

    @app.exception_handler(Exception)
    def on_bug(request: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again behind this answer, so that it stands in the log with its traceback.
        return answer_error(500, "internal", "The server failed on this request.", "Its log has the details.")

    @app.exception_handler(HTTPException)
    def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "error")
        message = f"{request.method} {request.url.path}: {error.detail}."
        return answer_error(error.status_code, code, message, "See /docs for what there is.")
