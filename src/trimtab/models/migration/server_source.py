"""A tracking server, by MLflow's REST protocol: any server from version 2.0 on, and Trimtab's own."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote, unquote, urlsplit

import httpx
import msgspec

from trimtab.config import without_secrets
from trimtab.errors import InvalidInputError, NotFoundError, UnauthorizedError, UnavailableError
from trimtab.models.migration.artifact_places import PROXIED, ArtifactPlaces, local_folder, scheme_of
from trimtab.models.migration.entities import (
    PROMPT_TAG,
    Owner,
    SourceExperiment,
    SourceLoggedModel,
    SourcePoints,
    SourceRegisteredModel,
    SourceRun,
    SourceVersion,
)
from trimtab.models.migration.source import Found
from trimtab.tracking.inputs import ModelUse, RunDataset
from trimtab.tracking.logged_models import ModelMetric, Status

T = TypeVar("T")

API = "api/2.0/mlflow"
RUNS_AT_ONCE = 500
POINTS_AT_ONCE = 25_000
ATTEMPTS = 5
CONNECTIONS = 4
KEYS_AT_ONCE = 64

_STATUSES: dict[str, Status] = {
    "LOGGED_MODEL_PENDING": "PENDING",
    "LOGGED_MODEL_READY": "READY",
    "LOGGED_MODEL_UPLOAD_FAILED": "FAILED",
}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class _Point(msgspec.Struct):
    """A point as a server writes it; numbers of 64 bits come as text from some."""

    timestamp: int | str = 0
    value: float | str = 0.0
    step: int | str = 0


class _Points(msgspec.Struct):
    metrics: list[_Point] = []
    next_page_token: str = ""


class ServerSource:
    """See `trimtab.models.migration.source.Source`.

    Signs in by the variables that MLflow's client uses: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME
    and MLFLOW_TRACKING_PASSWORD, or what the address itself says.
    """

    def __init__(self, address: str, proxied: str | None = None) -> None:
        self.damaged: list[str] = []
        self.address = without_secrets(address)
        parts = urlsplit(address)
        self._host = parts.hostname or ""
        self._client = httpx.Client(
            base_url=f"{address.rstrip('/')}/",
            timeout=httpx.Timeout(120, connect=10),
            auth=_signing_in(),
            headers=_token(),
            follow_redirects=True,
            limits=httpx.Limits(max_connections=CONNECTIONS * 2),
        )
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="trimtab-import")
        self._places = ArtifactPlaces(Path.cwd(), proxied)
        self._has_logged_models: bool | None = None
        try:
            self._post("experiments/search", {"max_results": 1, "view_type": "ALL"}, attempts=1)
        except NotFoundError:
            self.close()
            raise InvalidInputError(
                f"{self.address} answers, but not as an MLflow tracking server of version 2.0 or later.",
                hint="Check the address; of an older server import the database or the folder behind it.",
            ) from None
        except BaseException:
            self.close()
            raise

    def experiments(self) -> list[SourceExperiment]:
        """See `Source.experiments`."""
        found = self._pages("experiments/search", {"max_results": 1000, "view_type": "ALL"}, "experiments")
        return [
            SourceExperiment(
                id=str(each["experiment_id"]),
                name=each["name"],
                lifecycle=_lifecycle(each),
                created_at=int(each.get("creation_time") or 0),
                updated_at=int(each.get("last_update_time") or each.get("creation_time") or 0),
                tags=_texts(each.get("tags")),
            )
            for page in found
            for each in page
        ]

    def runs(self, experiment: str) -> Iterator[list[SourceRun]]:
        """See `Source.runs`: the earliest started first."""
        asked = {
            "experiment_ids": [experiment],
            "run_view_type": "ALL",
            "max_results": RUNS_AT_ONCE,
            "order_by": ["attributes.start_time ASC"],
        }
        for page in self._pages("runs/search", asked, "runs"):
            yield [_run(each) for each in self._with_all_inputs(page)]

    def points(self, run: SourceRun) -> Iterator[SourcePoints]:
        """See `Source.points`."""
        for some in _some(run.keys):
            first = self._pool.map(lambda key: self._history(run.id, key, ""), some)
            for key, page in zip(some, first, strict=True):
                while page.metrics:
                    yield SourcePoints(
                        key,
                        [int(point.step) for point in page.metrics],
                        [int(point.timestamp) for point in page.metrics],
                        [float(point.value) for point in page.metrics],
                    )
                    if not page.next_page_token:
                        break
                    page = self._history(run.id, key, page.next_page_token)

    def logged_models(self, experiment: str) -> Iterator[SourceLoggedModel]:
        """See `Source.logged_models`: of deleted ones a server says nothing."""
        asked = {"experiment_ids": [experiment], "max_results": 50}
        try:
            for page in self._pages("logged-models/search", asked, "models"):
                yield from map(_logged_model, page)
        except NotFoundError:
            return  # a server before version 3

    def registered_models(self) -> Iterator[SourceRegisteredModel]:
        """See `Source.registered_models`."""
        versions: dict[str, list[SourceVersion]] = {}
        for page in self._pages("model-versions/search", {"max_results": 500}, "model_versions", get=True):
            for each in page:
                versions.setdefault(each["name"], []).append(self._version(each))
        for page in self._pages(
            "registered-models/search", {"max_results": 100}, "registered_models", get=True
        ):
            for each in page:
                tags = _texts(each.get("tags"))
                if tags.get(PROMPT_TAG, "").lower() == "true":
                    continue
                own = sorted(versions.get(each["name"], ()), key=lambda version: version.version)
                aliases = {item["alias"]: int(item["version"]) for item in each.get("aliases", ())}
                yield SourceRegisteredModel(
                    name=each["name"],
                    description=each.get("description") or "",
                    created_at=int(each.get("creation_timestamp") or 0),
                    updated_at=int(each.get("last_updated_timestamp") or 0),
                    tags=tags,
                    aliases=aliases,
                    versions=tuple(own),
                    next_version=max((version.version for version in own), default=0) + 1,
                )

    def root_of(self, kind: Owner, id: str) -> str | None:
        """See `Source.root_of`."""
        try:
            if kind == "runs":
                run = self._get("runs/get", {"run_id": id})["run"]
                return str(run["info"].get("artifact_uri") or "")
            model = self._get(f"logged-models/{id}", {})["model"]
            return str(model["info"].get("artifact_uri") or "")
        except (NotFoundError, InvalidInputError):
            return None

    def files_of_run(self, run: SourceRun) -> Found:
        """See `Source.files_of_run`: what the server does not hand out as its own, it fetches for us."""
        if scheme_of(run.artifacts) == PROXIED:
            return self.files_at(run.artifacts)
        listing, file = f"{API}/artifacts/list", "get-artifact"
        return self._fetched(listing, {"run_id": run.id}, file, {"run_uuid": run.id}, "path")

    def files_of_model(self, model: SourceLoggedModel) -> Found:
        """See `Source.files_of_model`."""
        if scheme_of(model.artifacts) == PROXIED:
            return self.files_at(model.artifacts)
        place = f"mlflow/logged-models/{model.id}/artifacts"
        listing, file = f"api/2.0/{place}/directories", f"ajax-api/2.0/{place}/files"
        return self._fetched(listing, {}, file, {}, "artifact_file_path", listed_by="artifact_directory_path")

    def files_at(self, address: str) -> Found:
        """See `Source.files_at`. Of a path only a server on this machine is believed: elsewhere it is that of
        another machine."""
        if scheme_of(address) == PROXIED:
            root = unquote(urlsplit(address).path).strip("/")
            listing = "api/2.0/mlflow-artifacts/artifacts"
            return self._fetched(listing, {}, listing, {}, None, below=root)
        if local_folder(address, Path.cwd()) is not None and self._host not in _LOOPBACK:
            raise InvalidInputError(
                f"The files at {address} are on the server's machine.",
                hint="Run the import there, or import the version's run as well.",
            )
        return self._places.files_at(address) if address else iter(())

    def left_out(self) -> dict[str, int]:
        """See `Source.left_out`. A server is not asked: it would have to list all that it has."""
        return {}

    def close(self) -> None:
        """See `Source.close`."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    # Artifacts

    def _fetched(
        self,
        listing: str,
        listing_of: Mapping[str, str],
        file: str,
        file_of: Mapping[str, str],
        named: str | None,
        *,
        listed_by: str = "path",
        below: str = "",
    ) -> Found:
        """Fetch files one by one. A file's path goes into the query as `named`, or is part of the address."""
        with tempfile.TemporaryDirectory(prefix="trimtab-import-") as folder:
            place = Path(folder) / "file"
            for path in self._listed(listing, listing_of, listed_by, below, ""):
                if named is None:
                    self._download(f"{file}/{quote(f'{below}/{path}')}", {}, place)
                else:
                    self._download(file, {**file_of, named: path}, place)
                yield path, place
                place.unlink()

    def _listed(self, listing: str, of: Mapping[str, str], by: str, below: str, folder: str) -> Iterator[str]:
        where = f"{below}/{folder}".strip("/") if below else folder
        token = ""
        while True:
            query = {**of, **({by: where} if where else {}), **({"page_token": token} if token else {})}
            answer = self._answer("GET", listing, params=query)
            for each in answer.get("files", ()):
                # Of what it hands out itself, a server tells names below the folder; of a run, paths.
                path = f"{folder}/{each['path']}".lstrip("/") if below else str(each["path"])
                if each.get("is_dir"):
                    yield from self._listed(listing, of, by, below, path)
                else:
                    yield path
            token = answer.get("next_page_token") or ""
            if not token:
                return

    def _download(self, path: str, query: Mapping[str, str], to: Path) -> None:
        def once() -> None:
            with self._client.stream("GET", path, params=dict(query)) as response:
                if response.status_code != 200:
                    response.read()
                    _raise(self.address, path, response)
                with to.open("wb") as file:
                    for chunk in response.iter_bytes(1 << 20):
                        file.write(chunk)

        self._patiently(once)

    # Questions

    def _with_all_inputs(self, page: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The same runs, asked for one by one where there may be models that they read: MLflow's searches do
        not tell of these."""
        if self._has_logged_models is None:
            ids = [each.id for each in self.experiments() if each.lifecycle == "active"]
            try:
                asked = {"experiment_ids": ids, "max_results": 1}
                found = self._post("logged-models/search", asked) if ids else {}
                self._has_logged_models = bool(found.get("models"))
            except NotFoundError:  # a server before version 3
                self._has_logged_models = False
        if not self._has_logged_models:
            return page
        ids = [each["info"].get("run_id") or each["info"]["run_uuid"] for each in page]
        whole = self._pool.map(lambda id: self._get("runs/get", {"run_id": id})["run"], ids)
        return list(whole)

    def _version(self, each: Mapping[str, Any]) -> SourceVersion:
        source = str(each.get("source") or "")
        found = self._get(
            "model-versions/get-download-uri", {"name": each["name"], "version": each["version"]}
        )
        return SourceVersion(
            version=int(each["version"]),
            created_at=int(each.get("creation_timestamp") or 0),
            description=each.get("description") or "",
            user=each.get("user_id") or "",
            stage=each.get("current_stage") or "None",
            source=source,
            content=str(found.get("artifact_uri") or source),
            run=each.get("run_id") or None,
            tags=_texts(each.get("tags")),
        )

    def _history(self, run: str, key: str, token: str) -> _Points:
        query: dict[str, str | int] = {"run_id": run, "metric_key": key, "max_results": POINTS_AT_ONCE}
        if token:
            query["page_token"] = token

        def once() -> _Points:
            response = self._client.get(f"{API}/metrics/get-history", params=query)
            if response.status_code != 200:
                _raise(self.address, "metrics/get-history", response)
            try:
                return msgspec.json.decode(response.content, type=_Points)
            except msgspec.DecodeError:  # some write NaN as it is no JSON
                return msgspec.convert(json.loads(response.content), _Points)

        return self._patiently(once)

    def _pages(
        self, path: str, asked: dict[str, Any], field: str, *, get: bool = False
    ) -> Iterator[list[dict[str, Any]]]:
        token = ""
        while True:
            question = {**asked, "page_token": token} if token else asked
            answer = self._get(path, question) if get else self._post(path, question)
            yield answer.get(field) or []
            token = answer.get("next_page_token") or ""
            if not token:
                return

    def _get(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        return self._answer("GET", f"{API}/{path}", params=dict(query))

    def _post(self, path: str, body: Mapping[str, Any], *, attempts: int = ATTEMPTS) -> dict[str, Any]:
        return self._answer("POST", f"{API}/{path}", json=dict(body), attempts=attempts)

    def _answer(self, method: str, path: str, *, attempts: int = ATTEMPTS, **given: Any) -> dict[str, Any]:
        def once() -> dict[str, Any]:
            response = self._client.request(method, path, **given)
            if response.status_code != 200:
                _raise(self.address, path, response)
            try:
                answer = json.loads(response.content)
            except ValueError:
                raise NotFoundError(f"{self.address} answers {path} with no JSON.") from None
            return answer if isinstance(answer, dict) else {}

        return self._patiently(once, attempts)

    def _patiently(self, once: Callable[[], T], attempts: int = ATTEMPTS) -> T:
        """The answer, asked for again where the server or the way to it may have had a bad moment."""
        for attempt in range(attempts):
            try:
                return once()
            except (httpx.TransportError, UnavailableError) as error:
                if attempt == attempts - 1:
                    if isinstance(error, UnavailableError):
                        raise
                    raise UnavailableError(
                        f"No server answers at {self.address}: {str(error) or type(error).__name__}.",
                        hint="Check that it runs and can be reached, and run the same command again.",
                    ) from error
                time.sleep(0.2 * 3**attempt)
        raise AssertionError("unreachable")


def _raise(address: str, path: str, response: httpx.Response) -> None:
    status = response.status_code
    try:
        told = json.loads(response.content).get("message", "")
    except (ValueError, AttributeError):
        told = ""
    words = f"{address} answered {path} with status {status}{': ' if told else ''}{told:.300}."
    if status in {401, 403}:
        raise UnauthorizedError(
            words, hint="Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    if status in {429, 500, 502, 503, 504}:
        raise UnavailableError(words, hint="See the server's log, and run the same command again.")
    if status in {404, 405, 501}:
        raise NotFoundError(words)
    raise InvalidInputError(words)


def _run(each: Mapping[str, Any]) -> SourceRun:
    info, data = each["info"], each.get("data") or {}
    tags = _texts(data.get("tags"))
    inputs, outputs = each.get("inputs") or {}, each.get("outputs") or {}
    read = [ModelUse(model["model_id"], "in") for model in inputs.get("model_inputs", ())]
    made = [
        ModelUse(model["model_id"], "out", int(model.get("step") or 0))
        for model in outputs.get("model_outputs", ())
    ]
    ended = info.get("end_time")
    return SourceRun(
        id=info.get("run_id") or info["run_uuid"],
        experiment=str(info["experiment_id"]),
        name=info.get("run_name") or tags.get("mlflow.runName", ""),
        status=info.get("status") or "RUNNING",
        lifecycle=_lifecycle(info),
        user=info.get("user_id") or "",
        started_at=int(info.get("start_time") or 0),
        ended_at=None if ended is None else int(ended),
        artifacts=info.get("artifact_uri") or "",
        params=_texts(data.get("params")),
        tags=tags,
        datasets=tuple(_dataset(used) for used in inputs.get("dataset_inputs", ())),
        models=(*read, *made),
        keys=tuple(metric["key"] for metric in data.get("metrics", ())),
    )


def _dataset(used: Mapping[str, Any]) -> RunDataset:
    dataset = used["dataset"]
    return RunDataset(
        name=dataset["name"],
        digest=dataset["digest"],
        source_type=dataset.get("source_type") or "",
        source=dataset.get("source") or "",
        schema=dataset.get("schema"),
        profile=dataset.get("profile"),
        tags=_texts(used.get("tags")),
    )


def _logged_model(each: Mapping[str, Any]) -> SourceLoggedModel:
    info, data = each["info"], each.get("data") or {}
    return SourceLoggedModel(
        id=info["model_id"],
        experiment=str(info["experiment_id"]),
        name=info.get("name") or "",
        type=info.get("model_type") or "",
        status=_STATUSES.get(str(info.get("status")), "PENDING"),
        lifecycle="active",
        run=info.get("source_run_id") or None,
        created_at=int(info.get("creation_timestamp_ms") or 0),
        updated_at=int(info.get("last_updated_timestamp_ms") or 0),
        artifacts=info.get("artifact_uri") or "",
        params=_texts(data.get("params")),
        tags=_texts(info.get("tags")),
        metrics=tuple(
            ModelMetric(
                model=info["model_id"],
                run=metric.get("run_id") or "",
                key=metric["key"],
                value=float(metric.get("value") or 0),
                step=int(metric.get("step") or 0),
                at=int(metric.get("timestamp") or 0) * 1000,
                dataset=metric.get("dataset_name") or "",
                dataset_digest=metric.get("dataset_digest") or "",
            )
            for metric in data.get("metrics", ())
        ),
    )


def _texts(pairs: Any) -> dict[str, str]:
    return {pair["key"]: str(pair.get("value") or "") for pair in pairs or ()}


def _lifecycle(info: Mapping[str, Any]) -> Literal["active", "deleted"]:
    return "deleted" if info.get("lifecycle_stage") == "deleted" else "active"


def _some(keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(keys), KEYS_AT_ONCE):
        yield keys[start : start + KEYS_AT_ONCE]


def _token() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _signing_in() -> httpx.BasicAuth | None:
    name, password = (os.environ.get(f"MLFLOW_TRACKING_{what}") for what in ("USERNAME", "PASSWORD"))
    return httpx.BasicAuth(name, password or "") if name else None
