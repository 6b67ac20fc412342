"""The Open Inference Protocol, version 2, over gRPC: the same data plane as REST, other words around it."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from trimtab.errors import InvalidInputError, MalformedError, TrimtabError, UnavailableError
from trimtab.serving.answering import Answering
from trimtab.serving.frames import FailureFrame, encoded
from trimtab.serving.grpc_messages import MESSAGES
from trimtab.serving.grpc_tensors import parameters_of, read_tensors
from trimtab.serving.open_inference import key_and_deadline, refuse_other_outputs
from trimtab.serving.open_inference_binary import packed_numbers
from trimtab.serving.open_inference_models import (
    OUTPUT_DATATYPE,
    load,
    model_configuration,
    model_metadata,
    refuse_unload,
    repository_index,
    server_metadata,
)
from trimtab.serving.open_inference_tensors import refuse_unserved, rows_of
from trimtab.serving.prediction_ids import PredictionIds
from trimtab.serving.prediction_log import PredictionLog
from trimtab.serving.questions import OUTPUT, Question
from trimtab.serving.requests import EVENT_TIME, checked_key, event_time
from trimtab.serving.state import State, View

NAME = "inference.GRPCInferenceService"

LONGEST_DETAILS = 2_000
"""Characters of an error: they travel in a header, which clients limit to 8 KiB."""

_EVENT_TIME = EVENT_TIME.lower()
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

_log = logging.getLogger(__name__)

_InferResponse = MESSAGES["ModelInferResponse"]


class Call:
    """What an RPC knows beside its message: the worker's view as it began, metadata, and the caller's
    patience. `started` and `deadline` are by `time.perf_counter_ns`."""

    __slots__ = ("deadline", "metadata", "started", "view")

    def __init__(
        self, view: View, metadata: Mapping[str, Any], started: int, remaining: float | None
    ) -> None:
        self.view = view
        self.metadata = metadata
        self.started = started
        self.deadline = None if remaining is None else started + int(remaining * 1e9)

    @property
    def authorization(self) -> str | None:
        """As the header of HTTP."""
        return self._text("authorization")

    @property
    def event_time(self) -> str | None:
        """As the header of HTTP."""
        return self._text(_EVENT_TIME)

    def _text(self, name: str) -> str | None:
        value = self.metadata.get(name)
        return value if isinstance(value, str) else None


Work = Callable[[Any, Call], Awaitable[Any]]


class InferenceService:
    """The service's methods for one gateway worker. `answering` gives what answers questions under these
    prediction ids: the same that HTTP uses, so that rows of both share model calls. `calls` is how many have
    come."""

    def __init__(
        self, state: State, log: PredictionLog, answering: Callable[[PredictionIds], Answering]
    ) -> None:
        self._state = state
        self._log = log
        self._answering = answering
        self.calls = 0

    def handlers(self) -> grpc.GenericRpcHandler:
        """All methods, for a server of grpc.aio."""
        methods: dict[str, Work] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelInfer": self._model_infer,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._repository_model_load,
            "RepositoryModelUnload": self._repository_model_unload,
        }
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                # Messages are read in the method: what grpc cannot read, it would call an error of ours.
                name: grpc.unary_unary_rpc_method_handler(self._method(name, work))
                for name, work in methods.items()
            },
        )

    def _method(self, name: str, work: Work) -> Callable[[bytes, Any], Awaitable[bytes]]:
        read = MESSAGES[f"{name}Request"].FromString
        guarded = not name.startswith(("ServerLive", "ServerReady"))

        async def method(message: bytes, context: Any) -> bytes:
            started = time.perf_counter_ns()
            self.calls += 1
            asked = None
            try:
                view = self._state.view
                metadata = dict(context.invocation_metadata() or ())
                call = Call(view, metadata, started, context.time_remaining())
                if guarded and view.access.required:
                    # No web page can speak gRPC, so there is no origin to check where no token is wanted.
                    view.access.check(call.authorization)
                asked = _read(read, message)
                answered: bytes = (await work(asked, call)).SerializeToString()
                return answered
            except TrimtabError as error:
                failure = error
            except Exception:  # noqa: BLE001  (a bug answers INTERNAL and ends no worker)
                _log.exception("a call of %s failed", name)
                failure = TrimtabError("The gateway failed on this request.", hint="Its log has the details.")
            if failure.http_status >= 500:
                self._record(getattr(asked, "model_name", ""), failure)
            code = _CODES.get(failure.http_status, grpc.StatusCode.INTERNAL)
            await context.abort(code, str(failure)[:LONGEST_DETAILS])
            raise AssertionError("abort raises")

        return method

    async def _server_live(self, _asked: Any, _call: Call) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def _server_ready(self, _asked: Any, call: Call) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=call.view.ready and not self._state.draining)

    async def _model_ready(self, asked: Any, call: Call) -> Any:
        try:
            call.view.table.get(asked.name).place_of(asked.version or None)
        except UnavailableError:
            return MESSAGES["ModelReadyResponse"](ready=False)
        return MESSAGES["ModelReadyResponse"](ready=True)

    async def _server_metadata(self, _asked: Any, _call: Call) -> Any:
        found = server_metadata()
        return MESSAGES["ServerMetadataResponse"](
            name=found.name, version=found.version, extensions=found.extensions
        )

    async def _model_metadata(self, asked: Any, call: Call) -> Any:
        found = model_metadata(call.view.table.get(asked.name), asked.version or None)
        told = MESSAGES["ModelMetadataResponse"](
            name=found.name, versions=found.versions, platform=found.platform
        )
        for tensors, place in ((found.inputs, told.inputs), (found.outputs, told.outputs)):
            for tensor in tensors:
                place.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        return told

    async def _model_config(self, asked: Any, call: Call) -> Any:
        found = model_configuration(call.view.table.get(asked.name), asked.version or None)
        return ParseDict({"config": found}, MESSAGES["ModelConfigResponse"]())

    async def _model_infer(self, asked: Any, call: Call) -> Any:
        view = call.view
        if call.event_time is not None and view.replay_at is None:
            view = await self._state.fresh_view()  # the replay may have begun this very moment
        at = event_time(call.event_time, view)
        if view.ids is None:
            raise UnavailableError("This gateway is starting and does not know its routes yet.")
        endpoint = view.table.get(asked.model_name)
        version = asked.model_version or None
        if asked.outputs:
            refuse_other_outputs([output.name for output in asked.outputs])
            refuse_unserved(parameters_of(asked.outputs[0].parameters), f"The output '{OUTPUT}'")
        key, deadline = key_and_deadline(parameters_of(asked.parameters), call.started)
        predictor = endpoint.predictors[endpoint.place_of(version)]
        rows = rows_of(read_tensors(asked), predictor.signature)
        answer = await self._answering(view.ids).answer(
            Question(
                endpoint=endpoint,
                columns=rows.columns,
                row=rows.row,
                matrix=rows.matrix,
                at=at,
                started=call.started,
                key=key,
                request_id=checked_key(asked.id or None),
                version=version,
                deadline=min((each for each in (deadline, call.deadline) if each is not None), default=None),
            )
        )
        told = _InferResponse(
            model_name=endpoint.name, model_version=str(answer.versions[0]), id=asked.id or answer.id
        )
        told.parameters["prediction_id"].string_param = answer.id
        predictions = answer.predictions
        output = told.outputs.add(name=OUTPUT, datatype=OUTPUT_DATATYPE, shape=[len(predictions)])
        if asked.raw_input_contents:
            told.raw_output_contents.append(packed_numbers(predictions))
        else:
            output.contents.fp64_contents.extend(predictions)
        return told

    async def _repository_index(self, asked: Any, call: Call) -> Any:
        told = MESSAGES["RepositoryIndexResponse"]()
        for entry in repository_index(call.view.table, ready=asked.ready):
            told.models.add(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        return told

    async def _repository_model_load(self, asked: Any, call: Call) -> Any:
        await load(self._state, call.view, asked.model_name, dict(asked.parameters), call.authorization)
        return MESSAGES["RepositoryModelLoadResponse"]()

    async def _repository_model_unload(self, asked: Any, call: Call) -> Any:
        raise refuse_unload(call.view, asked.model_name, call.authorization)

    def _record(self, name: str, error: TrimtabError) -> None:
        """Log a failure of the gateway's own, so that service levels can be judged."""
        if name in self._state.view.table.endpoints:
            at = event_time(None, self._state.view)
            self._log.failed(encoded(FailureFrame(name, at, error.code)), at=at)


def _read(read: Callable[[bytes], Any], message: bytes) -> Any:
    try:
        return read(message)
    except DecodeError:
        raise MalformedError("The message is not what this method takes.") from None
    except RecursionError:
        raise InvalidInputError("The message is nested too deeply.") from None
