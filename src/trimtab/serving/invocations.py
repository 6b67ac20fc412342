"""`/invocations` and `/ping`, as MLflow's scoring server, SageMaker and Databricks have them.

    POST /invocations                          predictions, where the gateway has one endpoint
    POST /endpoints/NAME/invocations           predictions of one endpoint
    POST /serving-endpoints/NAME/invocations   the same, as Databricks' clients call it
    GET  /ping                                 200 once it is ready to answer
    GET  /version                              Trimtab's version, as a bare text

A body is JSON with one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`, or CSV with a
header (`text/csv`, `application/csv`; without one if the content type says `header=absent`). The answer is
{"predictions": [...]}, or one prediction a line where a request's header Accept begins with text/csv, as
SageMaker's clients may ask; the header Trimtab-Prediction-Id names it in feedback, with ".ROW" behind it
where there are several rows. The request's header Trimtab-Key keeps a caller with one version. `params` are
ignored, as MLflow does for a model that has none. Errors are {"error_code", "message"}.

How values are read is told in `trimtab.serving.coercion`. What differs from `mlflow models serve` beside
that, on purpose, since each would turn a mistake into a prediction: a missing value, a row that is too short
and Infinity are refused where the signature does not allow them (MLflow makes false of a missing truth value,
and missing values of what a row lacks); unknown columns are passed over, as MLflow does, and named in the
header Trimtab-Ignored-Columns, but only where none of the model's own is missing. And for convenience: rows
without names are taken in the signature's order, also where they hold texts; a prediction that is no number
is null, where MLflow writes NaN, which is not JSON. Parquet is not taken.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import Callable
from importlib.metadata import version as package_version
from typing import Any
from urllib.parse import quote

import msgspec

from trimtab.errors import InvalidInputError, MalformedError, NotFoundError, TrimtabError
from trimtab.serving.body_formats import (
    SplitFrame,
    Table,
    from_csv,
    from_inputs,
    from_instances,
    from_records,
    from_split,
)
from trimtab.serving.coercion import Coercion, coercion_for
from trimtab.serving.http_messages import Response
from trimtab.serving.loaded_endpoints import EndpointTable, LoadedEndpoint
from trimtab.serving.number_bodies import Matrix, number_bodies_for
from trimtab.serving.questions import Answer, Question
from trimtab.serving.requests import Request, allow, checked_key, decoded, json_answer, to_json

PREDICTION_ID = "trimtab-prediction-id"
MODEL_VERSION = "trimtab-model-version"
IGNORED_COLUMNS = "trimtab-ignored-columns"
KEY = "trimtab-key"

INLINE_BYTES = 64 * 2**10
"""Up to so many bytes are read in the event loop."""

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_CSV = frozenset({"text/csv", "application/csv"})
_JSON = frozenset({"", "application/json", "text/json", "application/x-www-form-urlencoded", "text/plain"})
_LONGEST_HEADER = 2000

# As in mlflow.protos.databricks_pb2.
_ERROR_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class UnsupportedContentError(InvalidInputError):
    """The body is of a type that is not understood here."""

    code = "unsupported_content"
    http_status = 415


class Invocation(msgspec.Struct, frozen=True):
    """The body of `/invocations`. Other fields are ignored."""

    dataframe_split: SplitFrame | msgspec.UnsetType = msgspec.UNSET
    dataframe_records: list[Any] | msgspec.UnsetType = msgspec.UNSET
    instances: Any = msgspec.UNSET
    inputs: Any = msgspec.UNSET


class Predictions(msgspec.Struct, frozen=True):
    """The answer of `/invocations`."""

    predictions: list[Any]


_invocation = msgspec.json.Decoder(Invocation).decode


async def respond(request: Request) -> Response:
    """Answer a request to one of the addresses above, but /ping; raises TrimtabError."""
    match request.parts:
        case ["version"]:
            allow(request, "GET")
            return Response(200, _version())
        case ["invocations"]:
            allow(request, "POST")
            return await _invoke(request, None)
        case ["endpoints" | "serving-endpoints", name, "invocations"]:
            allow(request, "POST")
            return await _invoke(request, name)
    raise NotFoundError(
        f"There is nothing at /{'/'.join(request.parts):.200}.", hint="Use /endpoints/NAME/invocations."
    )


def failure(error: TrimtabError) -> bytes:
    """The body that tells an error, as MLflow words it."""
    return to_json({"error_code": _ERROR_CODES.get(error.http_status, "BAD_REQUEST"), "message": str(error)})


async def _invoke(request: Request, name: str | None) -> Response:
    try:
        endpoint = _endpoint(request.view.table, name)
        matrix = _numbers(request, endpoint)
        rows: Rows = (None, {}, [])
        if matrix is None:
            rows = await _rows(request, coercion_for(endpoint))
        row, columns, ignored = rows
        answer = await request.answering.answer(
            Question(
                endpoint=endpoint,
                row=row,
                columns=columns,
                matrix=matrix,
                at=request.at,
                started=request.started,
                key=checked_key(request.headers.get(KEY)),
            )
        )
    except InvalidInputError as error:
        # What other protocols call unprocessable (422), clients of this one know as a bad request.
        status = 400 if error.http_status == 422 else error.http_status
        return Response(status, failure(error))
    headers = answer_headers(answer)
    if ignored:
        names = ",".join(quote(each) for each in ignored)
        headers = (*headers, (IGNORED_COLUMNS, names[:_LONGEST_HEADER]))
    accepted = request.headers.get("accept")
    if accepted is not None and re.split("[,;]", accepted, maxsplit=1)[0].strip().lower() in _CSV:
        lines = "".join(f"{prediction!r}\n" for prediction in answer.predictions)
        return Response(200, lines.encode(), headers, content_type="text/csv; charset=utf-8")
    return json_answer(Predictions(answer.predictions), headers)


def answer_headers(answer: Answer) -> tuple[tuple[str, str], ...]:
    """The headers that tell a prediction's id, and which versions answered, each once."""
    versions = ",".join(str(version) for version in dict.fromkeys(answer.versions))
    return ((PREDICTION_ID, answer.id), (MODEL_VERSION, versions))


def _endpoint(table: EndpointTable, name: str | None) -> LoadedEndpoint:
    if name is not None:
        return table.get(name)
    names = sorted({*table.endpoints, *table.failures})
    if len(names) == 1:
        return table.get(names[0])
    if not names:
        raise NotFoundError("This gateway has no endpoint yet.")
    shown = ", ".join(f"/endpoints/{each}/invocations" for each in names[:10])
    raise MalformedError(
        f"This gateway has {len(names)} endpoints, and /invocations names none.", hint=f"Use one of {shown}."
    )


def _numbers(request: Request, endpoint: LoadedEndpoint) -> Matrix | None:
    """The rows of a body that has many, and nothing but numbers; None for any other."""
    bodies = number_bodies_for(endpoint.predictors[endpoint.primary], request.body)
    if bodies is None or _content(request.headers.get("content-type") or "")[0] not in _JSON:
        return None
    read = bodies.invocation(request.body)
    if read is None:
        return None
    frame = read.dataframe_split
    if frame is msgspec.UNSET:
        given = (read.dataframe_records, read.instances, read.inputs)
        return bodies.matrix(next(each for each in given if each is not msgspec.UNSET))
    if frame.index is not None and len(frame.index) != len(frame.data):
        return None
    return bodies.matrix(frame.data, frame.columns)


Rows = tuple[dict[str, Any] | None, Table, list[str]]
"""One row that is as the model takes it, or else columns, and the names of those that are passed over."""


async def _rows(request: Request, coercion: Coercion) -> Rows:
    """The rows of a body. A large one is read in a thread, since all other requests would wait for it."""
    kind, header = _content(request.headers.get("content-type") or "")
    read: Callable[[], Rows]
    if kind in _JSON:
        read = functools.partial(_json_rows, request.body, coercion)
    elif kind in _CSV:
        read = functools.partial(_csv_rows, request.body, coercion, header)
    else:
        raise UnsupportedContentError(
            f"The content type '{kind[:60]}' is not understood.", hint="Send application/json or text/csv."
        )
    return read() if len(request.body) <= INLINE_BYTES else await asyncio.to_thread(read)


def _csv_rows(body: bytes, coercion: Coercion, header: bool) -> Rows:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"The body is not UTF-8: {error}.") from None
    columns, ignored = coercion.columns(coercion.texts(from_csv(text, coercion.names, header=header)))
    return None, columns, ignored


@functools.lru_cache(maxsize=256)
def _content(content_type: str) -> tuple[str, bool]:
    """The media type, and whether a CSV text has a header; raises UnsupportedContentError."""
    kind, *parameters = (part.strip() for part in content_type.split(";"))
    header = True
    for parameter in filter(None, parameters):
        name, _, value = parameter.partition("=")
        value = value.strip().strip('"').lower()
        match name.strip().lower():
            case "charset" if value in {"utf-8", "utf8", "us-ascii"}:
                pass
            case "header" if value in {"present", "absent"}:
                header = value == "present"
            case _:
                raise UnsupportedContentError(
                    f"The content type's parameter '{parameter[:60]}' is not understood.",
                    hint="There are charset=utf-8, and for CSV header=present and header=absent.",
                )
    return kind.lower(), header


def _json_rows(body: bytes, coercion: Coercion) -> Rows:
    asked = _asked(body)
    given = [name for name in FORMATS if getattr(asked, name) is not msgspec.UNSET]
    if len(given) != 1:
        raise MalformedError(
            f"The body has {', '.join(given) if given else 'none'} of the fields {', '.join(FORMATS)}.",
            hint="It needs exactly one of them.",
        )
    row = _one_row(asked, coercion.names)
    if row is not None and coercion.fits(row):
        return row, {}, []
    columns, ignored = coercion.columns(_table(asked, coercion.names))
    return None, columns, ignored


def _one_row(asked: Invocation, names: list[str]) -> dict[str, Any] | None:
    """The row of a body that has one and is as most are; None for any other."""
    frame = asked.dataframe_split
    if isinstance(frame, SplitFrame):
        if len(frame.data) == 1 and frame.columns and len(frame.columns) == len(frame.data[0]):
            row = {str(name): value for name, value in zip(frame.columns, frame.data[0], strict=True)}
            whole = len(row) == len(frame.columns) and (frame.index is None or len(frame.index) == 1)
            return row if whole else None
        return None
    records = asked.instances if isinstance(asked.instances, list) else asked.dataframe_records
    if isinstance(records, list) and len(records) == 1:
        (only,) = records
        if isinstance(only, dict):
            return only
        if isinstance(only, list) and asked.instances is records and len(only) == len(names):
            return dict(zip(names, only, strict=True))
    return None


def _table(asked: Invocation, names: list[str]) -> Table:
    if isinstance(asked.dataframe_split, SplitFrame):
        return from_split(asked.dataframe_split, names)
    if isinstance(asked.dataframe_records, list):
        return from_records(asked.dataframe_records)
    if asked.instances is not msgspec.UNSET:
        return from_instances(asked.instances, names)
    return from_inputs(asked.inputs, names)


def _asked(body: bytes) -> Invocation:
    try:
        return decoded(_invocation, body)
    except MalformedError:
        # Python's own clients write NaN for a missing value, which is not JSON, and which MLflow reads.
        if b"NaN" not in body:
            raise
        document = decoded(_with_nan, body)
    try:
        return msgspec.convert(document, Invocation)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"The request is not understood: {error}.") from None


def _with_nan(body: bytes) -> Any:
    try:
        document = json.loads(body)
        if b"\\u" in body:  # half a surrogate pair is no text that can be kept
            json.dumps(document, ensure_ascii=False).encode()
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from None
    return document


@functools.cache
def _version() -> bytes:
    return package_version("trimtab").encode()
