"""What a source is asked for, whatever it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from trimtab.models.migration.entities import (
    Owner,
    SourceExperiment,
    SourceLoggedModel,
    SourcePoints,
    SourceRegisteredModel,
    SourceRun,
)

Found = Iterator[tuple[str, Path]]
"""Files by their path, and where each can be read until the next is asked for."""


class Source(Protocol):
    """An MLflow store that is only read. Whatever is asked may raise UnavailableError."""

    address: str
    """Its address, without secrets."""

    damaged: list[str]
    """What was found so far that cannot be read, in words."""

    def experiments(self) -> list[SourceExperiment]:
        """All experiments, deleted ones too."""
        ...

    def runs(self, experiment: str) -> Iterator[list[SourceRun]]:
        """All runs of an experiment, deleted ones too, some at a time."""
        ...

    def points(self, run: SourceRun) -> Iterator[SourcePoints]:
        """All points of a run: one key after the other, each in one or more pieces."""
        ...

    def logged_models(self, experiment: str) -> Iterator[SourceLoggedModel]:
        """The logged models of an experiment."""
        ...

    def registered_models(self) -> Iterator[SourceRegisteredModel]:
        """All registered models that are no prompts."""
        ...

    def root_of(self, kind: Owner, id: str) -> str | None:
        """The address of the artifacts of a run or a logged model, or None if there is none of that id."""
        ...

    def files_of_run(self, run: SourceRun) -> Found:
        """The artifacts of a run."""
        ...

    def files_of_model(self, model: SourceLoggedModel) -> Found:
        """The artifacts of a logged model."""
        ...

    def files_at(self, address: str) -> Found:
        """What is at an address elsewhere, as the version of a registered model may have it."""
        ...

    def left_out(self) -> dict[str, int]:
        """What is there and has no place in Trimtab: how many of each kind."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
