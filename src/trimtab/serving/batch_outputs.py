"""Where the answers of a batch job go: one file, a folder of files, or a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import polars as pl

from trimtab.data.datasets import Datasets
from trimtab.errors import AlreadyExistsError, InvalidInputError
from trimtab.serving.batch_inputs import DATASET, dataset_of
from trimtab.serving.batch_worker import part_path, parts_folder
from trimtab.serving.batch_writing import FORMS, Form, joined, sync_folder
from trimtab.workspace import Workspace

_JOINED = "joined"


class Output(Protocol):
    """A place for answers. `beside` is the beginning of the paths of what is told about them, `work` the
    folder in which the job is prepared."""

    title: str
    form: Form
    beside: str
    work: Path

    def stands(self) -> bool:
        """Whether something is there already that must not be touched."""
        ...

    def published(self) -> bool:
        """Whether what is there is what was prepared in `work`."""
        ...

    def publish(self, job: str, numbers: Sequence[int], names: Sequence[str]) -> None:
        """Make finished parts the output. May be repeated after it was cut off, and doubles nothing."""
        ...


class FileOutput:
    """One file, put together in `work` and given its name at the end."""

    def __init__(self, path: Path, form: Form) -> None:
        self.title = self.beside = str(path)
        self.form = form
        self._path = path
        self.work = path.with_name(f".{path.name}.partial")

    def stands(self) -> bool:
        """See `Output.stands`."""
        return os.path.lexists(self._path)

    def published(self) -> bool:
        """See `Output.published`."""
        made = self.work / _JOINED
        return made.exists() and self._path.exists() and made.samefile(self._path)

    def publish(self, job: str, numbers: Sequence[int], names: Sequence[str]) -> None:
        """See `Output.publish`. Raises AlreadyExistsError if somebody else made the file meanwhile."""
        made = self.work / _JOINED
        joined([part_path(self.work, number, self.form) for number in numbers], made, self.form, names)
        try:
            os.link(made, self._path)  # which, unlike a rename, replaces nothing
        except FileExistsError:
            raise _exists(self.title) from None
        except OSError:  # a file system without links
            if self.stands():
                raise _exists(self.title) from None
            made.rename(self._path)
        sync_folder(self._path.parent)


class FolderOutput:
    """A folder of Parquet files, one for each part, that gets its name at the end."""

    form: Form = "parquet"

    def __init__(self, path: Path) -> None:
        self.title = self.beside = str(path)
        self._path = path
        self.work = path.with_name(f".{path.name}.partial")

    def stands(self) -> bool:
        """See `Output.stands`."""
        return os.path.lexists(self._path)

    def published(self) -> bool:
        """See `Output.published`."""
        return self._path.is_dir() and self.work.is_dir() and not parts_folder(self.work).exists()

    def publish(self, job: str, numbers: Sequence[int], names: Sequence[str]) -> None:
        """See `Output.publish`."""
        for draft in parts_folder(self.work).glob(".*"):
            draft.unlink()
        sync_folder(parts_folder(self.work))
        if self.stands():
            raise _exists(self.title)
        parts_folder(self.work).rename(self._path)
        sync_folder(self._path.parent)


class DatasetOutput:
    """A dataset, made if need be, that gets one append for each part, in order, once all are computed.

    Each append has a key made from the job, so that a repeat goes on after the last.
    """

    form: Form = "parquet"

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.title = f"{DATASET}{name}"
        self._workspace = workspace
        self._name = name
        self.beside = str(workspace.root / "predictions" / name)
        self.work = workspace.root / "predictions" / f".{name}.partial"

    def stands(self) -> bool:
        """See `Output.stands`. Rows are added to those that are there."""
        return False

    def published(self) -> bool:
        """See `Output.published`. Appends tell by themselves."""
        return False

    def publish(self, job: str, numbers: Sequence[int], names: Sequence[str]) -> None:
        """See `Output.publish`. Raises ContractViolationError for a part that breaks the dataset's contract;
        those before it stay."""
        datasets = Datasets(self._workspace)
        if self._name not in {dataset.name for dataset in datasets.list()}:
            datasets.create(self._name)
        for number, rows in self._parts(numbers):
            datasets.append(self._name, rows, key=f"predict:{job}:{number}")

    def _parts(self, numbers: Sequence[int]) -> Iterator[tuple[int, pl.DataFrame]]:
        for number in numbers:
            rows = pl.read_parquet(part_path(self.work, number, self.form))
            if rows.height:
                yield number, rows


def find_output(given: str, workspace: Workspace | None) -> Output:
    """What an output names. Raises InvalidInputError for what cannot be written."""
    if given.startswith(DATASET):
        name = dataset_of(given)
        if workspace is None or name is None or "@" in given:
            raise InvalidInputError(
                f"'{given}' names no dataset that rows could be added to.",
                hint="Write dataset:NAME, and name the project's folder with --dir.",
            )
        return DatasetOutput(workspace, name)
    path = Path(given)
    if not path.parent.is_dir():
        raise InvalidInputError(f"There is no folder '{path.parent}' to write '{path.name}' into.")
    if path.suffix.lower() in FORMS and not given.endswith("/"):
        return FileOutput(path, FORMS[path.suffix.lower()])
    if path.suffix and not given.endswith("/"):
        raise InvalidInputError(
            f"'{given}' has no suffix that says how to write it.",
            hint=f"Name it {', '.join(FORMS)}, or end it with / for a folder.",
        )
    return FolderOutput(path)


def _exists(title: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"'{title}' exists.", hint="Remove it first, or write to another place.")
