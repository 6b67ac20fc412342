"""What an import did, as it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec


class Counts(msgspec.Struct, kw_only=True):
    """How much of each kind."""

    experiments: int = 0
    runs: int = 0
    metric_points: int = 0
    params: int = 0
    tags: int = 0
    datasets: int = 0
    logged_models: int = 0
    artifacts: int = 0
    artifact_bytes: int = 0
    registered_models: int = 0
    model_versions: int = 0
    aliases: int = 0


class MappedExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """Where an experiment went; `id` is None where a dry run made none."""

    source_id: str
    id: int | None
    name: str
    how: Literal["new", "already there"]


class ImportReport(msgspec.Struct, kw_only=True):
    """What an import did. `here` was there already and left as it is; `problems` could not be copied;
    `differences` is what a verification found, None if there was none. `seconds` is what copying took,
    `verified_seconds` what comparing took."""

    source: str
    dry_run: bool
    experiments: list[MappedExperiment] = []
    copied: Counts = msgspec.field(default_factory=Counts)
    here: Counts = msgspec.field(default_factory=Counts)
    left_out: dict[str, int] = {}
    notes: list[str] = []
    problems: list[str] = []
    differences: list[str] | None = None
    verified: Counts = msgspec.field(default_factory=Counts)
    seconds: float = 0.0
    verified_seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether all that was to be copied is here, and the same where that was asked."""
        return not self.problems and not self.differences


Tell = Callable[[str, Counts], None]
"""Is told what goes on, and the counts so far."""
