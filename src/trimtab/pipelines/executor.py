"""Runs a graph: what is cached is taken from the cache, all else runs in child processes, side by side."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from trimtab.errors import InvalidInputError
from trimtab.pipelines import cache
from trimtab.pipelines.address import Address
from trimtab.pipelines.arguments import Arguments
from trimtab.pipelines.attempt import Work, imported_modules, logs_metrics
from trimtab.pipelines.graph import Graph, Node
from trimtab.pipelines.pool import Child, Ended, Pool
from trimtab.pipelines.step_runs import StepInput, StepRun, record
from trimtab.pipelines.task import ENTRY, Reply, Returned, Task
from trimtab.pipelines.values import Stored, ValueStore
from trimtab.store.database import Transaction
from trimtab.workspace import Workspace


@dataclass(frozen=True)
class Failure:
    """The step that ended a run, and why."""

    node: str
    message: str


class Executor:
    """Runs one graph once, in one thread.

    A failed step lets those that are running finish, so that their results are cached, and starts no more.
    """

    def __init__(
        self,
        workspace: Workspace,
        graph: Graph,
        *,
        run_id: str,
        arguments: Arguments,
        values: ValueStore,
        keys: cache.CodeKeys,
        folder: Path,
        pool: Callable[[list[str]], Pool],
    ) -> None:
        self._ws = workspace
        self._graph = graph
        self._run_id = run_id
        self._arguments = arguments
        self._values = values
        self._keys = keys
        self._folder = folder
        self._open_pool = pool
        self._pool: Pool | None = None
        self._address = Address.of(workspace)
        self._memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._pending = dict(graph.nodes)
        self._positions = {name: place for place, name in enumerate(graph.nodes)}
        self._waiting: dict[str, Work] = {}
        self._running: dict[Child, Work] = {}
        self._unwritten: dict[str, StepRun] = {}
        self._uncached: list[tuple[str, Node, Stored, float]] = []
        self._missing: list[str] = []
        self.failure: Failure | None = None

    def run(self) -> None:
        """Run to the end; what came out is in `failure` and in the arguments' results."""
        while True:
            if self.failure is None:
                self._settle_cached()
                self._write()  # what a step builds on is safe before the step can bring anything down
                self._launch()
            self._write()
            if not self._running and (self.failure is not None or not self._waiting):
                return
            self._wait()

    def _settle_cached(self) -> None:
        """Prepare every node whose inputs are known; take from the cache what is there."""
        with self._ws.read() as connection:
            for name, node in list(self._pending.items()):
                if not node.upstream <= self._arguments.results.keys():
                    continue
                work = self._prepare(node)
                if self.failure is not None:
                    return
                del self._pending[name]
                found = cache.lookup(connection, work.cache_key) if node.step.cache else None
                if found is not None and not self._values.has(found):
                    self._missing.append(work.cache_key)
                    found = None
                if found is None:
                    self._waiting[name] = work
                else:
                    self._note(
                        work, work.state(self._run_id, "cached", at=self._ws.clock.now(), output=found)
                    )

    def _prepare(self, node: Node) -> Work:
        function = node.step.function
        place = f"{module_name(function)}:{function.__qualname__}"
        closure = self._keys.closure(*place.split(":"))
        inputs: dict[str, StepInput] = {}
        key = ""
        try:
            for name, argument in node.inputs.items():
                inputs.update(self._arguments.described(name, argument))
            key = cache.cache_key(
                self._keys.code_key(closure),
                place,
                {name: self._arguments.identity(argument) for name, argument in node.inputs.items()},
            )
        except InvalidInputError as error:  # a part that the upstream step did not return
            self.failure = Failure(node.id, f"Step '{node.id}' cannot start: {error}")
        position = self._positions[node.id]
        return Work(
            node=node,
            position=position,
            closure=closure,
            cache_key=key,
            inputs=inputs,
            log=self._folder / f"{position}.log",
            started_at=self._ws.clock.now(),
        )

    def _launch(self) -> None:
        """Start what fits beside what is running."""
        now = time.monotonic()
        for name, work in list(self._waiting.items()):
            if work.not_before > now or not self._fits(work) or self._twin_runs(work):
                continue
            del self._waiting[name]
            work.begin()
            task = self._task(work)
            child = self._children().spawn(ENTRY, msgspec.msgpack.encode(task), log=work.log)
            self._running[child] = work
            self._unwritten[name] = work.state(self._run_id, "running")

    def _fits(self, work: Work) -> bool:
        if not self._running:
            return True
        asked = [other.node.step.resources for other in self._running.values()]
        wanted = work.node.step.resources
        cpu = sum(resources.cpu for resources in asked) + wanted.cpu
        memory = sum(resources.memory_bytes for resources in asked) + wanted.memory_bytes
        return cpu <= self._ws.settings.cpu and (memory <= self._memory or not wanted.memory_bytes)

    def _twin_runs(self, work: Work) -> bool:
        """Whether the same call is running already, so that its result will be in the cache."""
        return work.node.step.cache and any(
            other.cache_key == work.cache_key for other in self._running.values()
        )

    def _children(self) -> Pool:
        if self._pool is None:
            self._pool = self._open_pool(imported_modules(self._waiting.values()))
        return self._pool

    def _task(self, work: Work) -> Task:
        function = work.node.step.function
        node = work.node
        return Task(
            module=module_name(function),
            qualname=function.__qualname__,
            script=script_of(function),
            sys_path=tuple(sys.path),
            positional=tuple(self._arguments.packed(value) for _, value in node.positional),
            keyword={name: self._arguments.packed(value) for name, value in node.keyword},
            folder=str(self._folder / f"{work.position}-{work.attempts}"),
            run_id=self._run_id,
            log_metrics=logs_metrics(work.closure),
            project=self._address.project,
            settings=self._address.settings,
            actor=self._address.actor,
        )

    def _wait(self) -> None:
        """Wait for the next thing to happen, and deal with it."""
        now = time.monotonic()
        times = [work.deadline for work in self._running.values() if work.deadline is not None]
        times.extend(work.not_before for work in self._waiting.values() if work.not_before > now)
        timeout = max(0.0, min(times) - now) if times else None
        if not self._running:
            time.sleep(timeout or 0.0)
            return
        assert self._pool is not None
        for child, event in self._pool.wait(timeout):
            work = self._running[child]
            if isinstance(event, Ended):
                del self._running[child]
                self._settle(work, event)
            else:
                work.reply = msgspec.msgpack.decode(event, type=Reply)
        for child, work in self._running.items():
            if work.deadline is not None and time.monotonic() >= work.deadline and work.reply is None:
                work.timed_out = True
                work.deadline = None
                self._pool.kill(child)

    def _settle(self, work: Work, ended: Ended) -> None:
        """Take in how an attempt ended."""
        reason = work.failure(ended)
        if reason is None:
            assert isinstance(work.reply, Returned)
            output = self._values.keep(work.reply.value)
            state = work.state(
                self._run_id,
                "finished",
                at=self._ws.clock.now(),
                output=output,
                log_digest=self._keep_log(work),
            )
            if work.node.step.cache:
                self._uncached.append((work.cache_key, work.node, output, work.reply.seconds))
            self._note(work, state)
            self._settle_twins(work, output)
        elif work.may_retry and self.failure is None:
            work.pause()
            self._waiting[work.node.id] = work
        else:
            error = work.error(reason)
            self.failure = self.failure or Failure(work.node.id, error)
            self._unwritten[work.node.id] = work.state(
                self._run_id, "failed", at=self._ws.clock.now(), log_digest=self._keep_log(work), error=error
            )

    def _settle_twins(self, done: Work, output: Stored) -> None:
        """Give the result to other nodes that make the very same call."""
        for name, work in list(self._waiting.items()):
            if work.cache_key == done.cache_key and work.node.step.cache:
                del self._waiting[name]
                self._note(work, work.state(self._run_id, "cached", at=self._ws.clock.now(), output=output))

    def _note(self, work: Work, state: StepRun) -> None:
        assert state.output is not None
        self._arguments.results[work.node.id] = state.output
        self._unwritten[work.node.id] = state

    def _keep_log(self, work: Work) -> str | None:
        log = work.kept_log()
        return self._ws.blobs.put(log) if log else None

    def _write(self) -> None:
        """Record all that happened since the last time, in one transaction."""
        if not (self._unwritten or self._uncached or self._missing):
            return
        states, cached, missing = list(self._unwritten.values()), self._uncached, self._missing
        self._unwritten, self._uncached, self._missing = {}, [], []

        def work(tx: Transaction) -> None:
            record(tx, states)
            for key in missing:
                cache.forget(tx, key)
            for key, node, output, seconds in cached:
                cache.remember(tx, key, node.step, output, seconds, self._run_id)

        self._ws.write(work)

    def break_off(self) -> None:
        """Kill what is still running and record it as failed: the run ends before its time."""
        for child, work in self._running.items():
            assert self._pool is not None
            self._pool.kill(child)
            self._unwritten[work.node.id] = work.state(
                self._run_id, "failed", at=self._ws.clock.now(), error="The run was broken off."
            )
        self._running.clear()
        self._write()


def module_name(function: Callable[..., object]) -> str:
    """The module that a step's function is imported from; a script has the name of its file.

    Raises InvalidInputError for a function that no other process could find.
    """
    if "<" in function.__qualname__:
        raise InvalidInputError(
            f"The step '{function.__module__}.{function.__qualname__}' is defined inside a function.",
            hint="Define steps at the top level of a module, where other processes find them.",
        )
    if function.__module__ != "__main__":
        return function.__module__
    return Path(script_of(function) or "").stem


def script_of(function: Callable[..., object]) -> str | None:
    """The file of a function that was defined in the script being run, None for one of a module.

    Raises InvalidInputError for one that was typed in, which is in no file.
    """
    if function.__module__ != "__main__":
        return None
    main = sys.modules["__main__"]
    if main.__spec__ is not None:  # python -m package.module
        raise InvalidInputError(
            f"The step '{function.__qualname__}' is defined in the module that is being run.",
            hint="Move the steps into a module of their own and import it.",
        )
    file = getattr(main, "__file__", None)
    if file is None:
        raise InvalidInputError(
            f"The step '{function.__qualname__}' was typed in, so no other process can find it.",
            hint="Put the steps into a file and import it.",
        )
    return str(Path(file).resolve())
