"""Which models are served in a process of their own, and what such a process may use."""

from __future__ import annotations

import fnmatch

import msgspec

from trimtab.config import Settings


class Confinement(msgspec.Struct, frozen=True):
    """`models`: names, or patterns of them, of the models that are served so; no other model's code is run.
    `memory_mb` bounds the process's address space, `timeout_ms` the time for one call."""

    models: tuple[str, ...] = ()
    memory_mb: int = 4096
    timeout_ms: int = 10_000

    @classmethod
    def of(cls, settings: Settings) -> Confinement:
        """As the settings have it."""
        return cls(tuple(settings.confined_models), settings.confined_memory_mb, settings.confined_timeout_ms)

    def permits(self, model: str) -> bool:
        """Whether this model's own code may be run, in a process beside the one that serves it."""
        return any(fnmatch.fnmatchcase(model, pattern) for pattern in self.models)


NOTHING = Confinement()
"""No model's own code is run."""
