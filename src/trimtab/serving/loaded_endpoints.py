"""Endpoints as a gateway holds them: routes with their models loaded, in one immutable table."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from trimtab.errors import ModelCorruptError, NotFoundError, TrimtabError, UnavailableError, unknown
from trimtab.models.confined.confinement import NOTHING, Confinement
from trimtab.models.confined.predictor import check_servable, load_servable, needs_process
from trimtab.models.runtimes.predictor import Predictor
from trimtab.models.signature import Column
from trimtab.serving.frames import ColumnKind, EntryFrame
from trimtab.serving.options import DEFAULT, Options, Sampler
from trimtab.serving.routes import Arm, Chooser, Route

FetchTree = Callable[[str, Path], None]
"""Brings the tree of a digest to a folder, whole or not at all (as `Blobs.fetch_tree`)."""

RETRY_SECONDS = 2.0
"""How long a model that could not be loaded is left alone."""

RETRY_APART_SECONDS = 30.0
"""The same for one that costs a process of its own, which takes seconds to start."""

_refs = itertools.count().__next__


class LoadedEndpoint:
    """A route with all its models in memory. Immutable."""

    def __init__(
        self, name: str, route: Route, predictors: tuple[Predictor, ...], options: Options = DEFAULT
    ) -> None:
        self.name = name
        self.route = route
        self.options = options
        self.sampler = Sampler(options.log_share)
        self.predictors = predictors
        # Whether a version waits for another process, so that no event loop may ask it.
        self.blocking = any(predictor.blocking for predictor in predictors)
        self.chooser = Chooser(route)
        self.versions = tuple(arm.version for arm in route.arms)
        self.primary = next(place for place, arm in enumerate(route.arms) if arm.role == "primary")
        # By which version leads: the order in which they score, the leader first.
        places = range(len(predictors))
        self.order = tuple((lead, *(place for place in places if place != lead)) for lead in places)
        columns: dict[str, Column] = {}
        for place in self.order[self.primary]:
            for column in predictors[place].signature.columns:
                columns.setdefault(column.name, column)
        self.columns = tuple(columns)
        signature = predictors[self.primary].signature
        # Whether the numbers that the primary takes of a row are, in their order, what the log has of it.
        self.primary_row_is_logged_row = (
            self.columns == tuple(signature.names)
            and not options.redact
            and all(column.kind == "number" and not column.nullable for column in signature.columns)
        )
        # What the log leaves out, it has as missing.
        self.logged = tuple(None if column in options.redact else column for column in columns)
        self.accepted = frozenset(columns)
        # Requests name the columns of any version: a newer one may take more than the one that answers.
        self.lenient = self.accepted != frozenset(predictors[self.primary].signature.names)
        self.entry = EntryFrame(
            ref=_refs(),
            endpoint=name,
            generation=route.generation,
            model=route.model,
            versions=self.versions,
            roles=tuple(arm.role for arm in route.arms),
            columns=self.columns,
            kinds=tuple(map(_kind, columns.values())),
        )

    def place_of(self, version: str | None) -> int:
        """The position of a version on the route, by its text, of the primary for None; raises
        NotFoundError."""
        if version is None:
            return self.primary
        for place, number in enumerate(self.versions):
            if str(number) == version:
                return place
        raise unknown(f"version of '{self.name}' on its route", version, map(str, self.versions))


class EndpointTable:
    """All endpoints of a gateway at one moment. Immutable; a change makes another table.

    `failures`: endpoints whose present route could not be loaded, with the reason; such an endpoint is
    served by its last route that could be, if there was one.
    """

    def __init__(self, endpoints: Mapping[str, LoadedEndpoint], failures: Mapping[str, str]) -> None:
        self.endpoints = MappingProxyType(dict(endpoints))
        self.failures = MappingProxyType(dict(failures))

    def get(self, name: str) -> LoadedEndpoint:
        """The endpoint; raises NotFoundError, or UnavailableError if its models could not be loaded."""
        found = self.endpoints.get(name)
        if found is None:
            if name in self.failures:
                raise UnavailableError(
                    f"The endpoint '{name}' has no model that can be served: {self.failures[name]}"
                )
            raise unknown("endpoint", name, {*self.endpoints, *self.failures})
        return found

    @property
    def generations(self) -> dict[str, int]:
        """The generation of the route that each endpoint is served by."""
        return {name: endpoint.route.generation for name, endpoint in self.endpoints.items()}


def _kind(column: Column) -> ColumnKind:
    if column.kind == "category":
        return "text" if isinstance(column.categories[0], str) else "integer"
    return column.kind


EMPTY = EndpointTable({}, {})


@contextlib.contextmanager
def _one_model_failing() -> Iterator[None]:
    """Whatever a package brings about fails its own model, and never those beside it."""
    try:
        yield
    except TrimtabError:
        raise
    except (OSError, MemoryError) as error:  # of this machine, and so perhaps for a while only
        raise UnavailableError(f"The model cannot be loaded now: {type(error).__name__}: {error}") from error
    except Exception as error:
        raise ModelCorruptError(
            f"The model cannot be loaded: {type(error).__name__}: {error!s:.300}"
        ) from error


class ModelShelf:
    """Keeps loaded models by digest, and their folders in a cache on disk."""

    def __init__(self, cache: Path, *, threads: int = 1, confinement: Confinement = NOTHING) -> None:
        self._cache = cache
        self._confinement = confinement
        self._threads = threads
        self._loaded: dict[str, Predictor] = {}
        self._failed: dict[str, tuple[float, TrimtabError]] = {}

    def table(
        self,
        routes: Mapping[str, Route],
        options: Mapping[str, Options],
        before: EndpointTable,
        fetch: FetchTree | None,
    ) -> EndpointTable:
        """The table for these routes. Models that are not in memory are loaded and answer their example
        first, fetched by `fetch` where the cache has them not (None: nothing can be fetched now)."""
        endpoints: dict[str, LoadedEndpoint] = {}
        failures: dict[str, str] = {}
        for name, route in routes.items():
            standing = before.endpoints.get(name)
            chosen = options.get(name, DEFAULT)
            if standing is not None and standing.route == route and standing.options == chosen:
                endpoints[name] = standing
                continue
            try:
                with _one_model_failing():
                    predictors = tuple(self._predictor(route.model, arm, fetch) for arm in route.arms)
                    endpoints[name] = LoadedEndpoint(name, route, predictors, chosen)
            except TrimtabError as error:
                failures[name] = str(error)
                if standing is not None:
                    endpoints[name] = standing
        return EndpointTable(endpoints, failures)

    def forget(self, table: EndpointTable) -> None:
        """Let go of models that `table` does not use; requests that still use them keep them alive."""
        used = {arm.digest for endpoint in table.endpoints.values() for arm in endpoint.route.arms}
        for digest in set(self._loaded) - used:
            del self._loaded[digest]

    def folder(self, digest: str) -> Path:
        """Where the cache has a model's folder."""
        return self._cache / digest.replace(":", "-")

    def _predictor(self, model: str, arm: Arm, fetch: FetchTree | None) -> Predictor:
        found = self._loaded.get(arm.digest)
        if found is not None and found.blocking:  # another model with the same content may not be allowed it
            check_servable(self.folder(arm.digest), model=model, confinement=self._confinement)
        if found is None:
            failed_at, failure = self._failed.get(arm.digest, (0.0, None))
            pause = RETRY_APART_SECONDS if needs_process(self.folder(arm.digest)) else RETRY_SECONDS
            if failure is not None and time.monotonic() - failed_at < pause:
                raise failure
            try:
                with _one_model_failing():
                    found = self._load(model, arm, fetch)
            except TrimtabError as error:
                self._failed[arm.digest] = (time.monotonic(), error)
                raise
            self._failed.pop(arm.digest, None)
            self._loaded[arm.digest] = found
        return found

    def _load(self, model: str, arm: Arm, fetch: FetchTree | None) -> Predictor:
        folder = self.folder(arm.digest)
        if not folder.exists():
            if fetch is None:
                raise UnavailableError(f"Version {arm.version} is not in this gateway's cache.")
            try:
                fetch(arm.digest, folder)
            except NotFoundError as error:
                raise UnavailableError(f"Version {arm.version} cannot be fetched: {error}") from error
        try:
            with _one_model_failing():
                return load_servable(
                    folder, model=model, confinement=self._confinement, threads=self._threads
                )
        except ModelCorruptError:
            # The cache may have been damaged: fetch it anew next time. One is kept, however often that fails.
            damaged = folder.with_name(f".damaged-{folder.name}")
            shutil.rmtree(damaged, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.rename(damaged)
            raise
