"""The arguments of steps in one run: what they are to a cache key, to a process, and to a reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.clock import as_utc
from trimtab.digest import digest_json
from trimtab.errors import InvalidInputError
from trimtab.pipelines.cache import CodeKeys
from trimtab.pipelines.graph import Argument, FromDataset, FromNode, Graph, Group, Literally
from trimtab.pipelines.source import DataRows, DatasetRef
from trimtab.pipelines.step_runs import StepInput
from trimtab.pipelines.values import (
    Packed,
    PackedBranch,
    Stored,
    ValueStore,
    digest_of,
    identity_of,
    pack,
    select,
)
from trimtab.workspace import Workspace

if TYPE_CHECKING:
    from trimtab.data.versions import Dataset, DatasetVersion


class Arguments:
    """Resolves arguments against what is known so far in a run: rows, constants, and results."""

    def __init__(self, rows: Mapping[int, tuple[DataRows, object]], values: ValueStore, folder: Path) -> None:
        self.results: dict[str, Stored] = {}
        """What nodes returned, as they finish."""
        self._rows = rows
        self._values = values
        self._folder = folder
        self._constants: dict[int, Stored] = {}

    def identity(self, argument: Argument) -> object:
        """What a cache key has of an argument."""
        if isinstance(argument, FromDataset):
            return self._rows[id(argument.ref)][1]
        if isinstance(argument, Group):
            return [argument.kind, argument.keys, [self.identity(item) for item in argument.items]]
        stored, rest = self._stored(argument)
        return [identity_of(stored), list(rest)]

    def packed(self, argument: Argument) -> Packed:
        """The argument as a step's process gets it."""
        if isinstance(argument, FromDataset):
            return self._rows[id(argument.ref)][0]
        if isinstance(argument, Group):
            return PackedBranch(
                argument.kind, tuple(self.packed(item) for item in argument.items), argument.keys
            )
        return self._values.supply(*self._stored(argument))

    def described(self, name: str, argument: Argument) -> Iterator[tuple[str, StepInput]]:
        """The argument as a person reads it: part by part, where it is a group."""
        if isinstance(argument, Group):
            labels = argument.keys or tuple(str(place) for place in range(len(argument.items)))
            for label, item in zip(labels, argument.items, strict=True):
                yield from self.described(f"{name}[{label}]", item)
        elif isinstance(argument, FromDataset):
            rows, identity = self._rows[id(argument.ref)]
            yield (
                name,
                StepInput(digest_json(identity), rows.dataset, rows.version, rows.start, rows.end),
            )
        else:
            stored, rest = self._stored(argument)
            digest = digest_of(stored)
            yield name, StepInput(digest_json([digest, list(rest)]) if rest else digest)

    def output(self, argument: FromNode) -> Stored:
        """The part of a result that a pipeline returns; raises InvalidInputError if it has no such part."""
        stored, rest = self._stored(argument)
        if rest:
            raise InvalidInputError(
                f"The pipeline returns a part ({rest}) of what '{argument.node}' returned as a whole.",
                hint="Return the whole value, or let the step return a tuple or dict of separate values.",
            )
        return stored

    def _stored(self, argument: Literally | FromNode) -> tuple[Stored, tuple[str | int, ...]]:
        if isinstance(argument, FromNode):
            return select(self.results[argument.node], argument.path)
        found = self._constants.get(id(argument))
        if found is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            found = self._constants[id(argument)] = self._values.keep(pack(argument.value, self._folder))
        return found, ()


def choose_rows(
    workspace: Workspace,
    graph: Graph,
    versions: Mapping[str, int],
    keys: CodeKeys,
    held_out: Mapping[str, float],
) -> dict[int, tuple[DataRows, object]]:
    """Which rows each dataset reference of a graph stands for, and what a cache key has of them.

    `versions` names versions of datasets; of all others it is the newest, the same for the whole run.
    `held_out` says which share of a dataset's rows the run must not see. Raises NotFoundError for an unknown
    dataset or version, InvalidInputError for a window that the dataset cannot have.
    """
    refs = graph.datasets
    if not refs:
        return {}
    from trimtab.data.datasets import Datasets  # noqa: PLC0415  (loads Polars; most graphs in tests read none)

    datasets = Datasets(workspace)
    chosen = {name: datasets.version(name, versions.get(name)) for name in {ref.name for ref in refs}}
    found = {name: datasets.get(name) for name in chosen}
    return {
        id(ref): _rows(found[ref.name], chosen[ref.name], ref, graph.as_of, keys, held_out.get(ref.name, 0.0))
        for ref in refs
    }


def _rows(
    dataset: Dataset,
    version: DatasetVersion,
    ref: DatasetRef,
    as_of: datetime,
    keys: CodeKeys,
    held_out: float,
) -> tuple[DataRows, object]:
    start, end = ref.bounds(as_of)
    if (start, end) == (None, None) and dataset.time is not None:
        end = as_of  # what a run at that time could know
    if (start, end) != (None, None) and dataset.time is None:
        raise InvalidInputError(
            f"The dataset '{ref.name}' has no event time, so there is no window of it.",
            hint="Use tt.everything(), or name its time column when it is created.",
        )
    contract = _contract(dataset, ref)
    rows = DataRows(
        ref.name,
        version.number,
        version.digest,
        start=_within(start, version.time_min, earlier=True),
        end=_within(end, version.time_max, earlier=False),
        part=ref.part(held_out),
        contract=contract,
    )
    checked = None if contract is None else keys.closure(*contract.split(":")).digest
    return rows, ["rows", rows.dataset, rows.digest, rows.start, rows.end, rows.part, checked]


def _within(bound: datetime | None, last: datetime | None, *, earlier: bool) -> datetime | None:
    """The bound, or None if all rows of the version lie within it: then its exact place changes nothing."""
    if bound is None or last is None:
        return None if bound is None else as_utc(bound)
    excludes_none = bound <= last if earlier else bound > last
    return None if excludes_none else as_utc(bound)


def _contract(dataset: Dataset, ref: DatasetRef) -> str | None:
    """The contract that rows have yet to be checked against, as "module:name"."""
    if ref.contract is None:
        return None
    from trimtab.data.contracts import contract_of  # noqa: PLC0415  (as above)

    spec, checks = contract_of(ref.contract)
    if spec == dataset.contract and not checks:
        return None
    if not isinstance(ref.contract, type) or "<" in ref.contract.__qualname__:
        raise InvalidInputError(
            f"The contract of the dataset '{ref.name}' in the pipeline is not a class of a module.",
            hint="Give a subclass of tt.Contract, defined at the top level of a module.",
        )
    return f"{ref.contract.__module__}:{ref.contract.__qualname__}"
