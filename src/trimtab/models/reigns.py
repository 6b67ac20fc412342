"""The champions that a model could go back to.

Champions stand on one another: a promotion puts one on top, a rollback takes off what stands above its
target, and taking the alias away takes off the top. What was taken off is nothing to go back to: it was
found wanting.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trimtab.models.aliases import AliasEvent, Ground


@dataclass
class Reign:
    """One version's time as champion: from the journal entry `since` until `until` (None: it still is).

    `ground` and `report` are what it was promoted on, `policy` the digest of the policy then in force.
    """

    version: int
    digest: str
    ground: Ground
    report: int | None
    policy: str | None
    since: int
    until: int | None = None

    def vouched(self, event: AliasEvent) -> None:
        """Rest on what this event says from now on."""
        self.ground, self.report, self.policy = event.basis, event.report, event.policy


@dataclass(frozen=True)
class Line:
    """The champions on one another, the present one last. `promoted`: the present one came by promotion, not
    by going back."""

    reigns: tuple[Reign, ...]
    promoted: bool

    @property
    def earlier(self) -> tuple[Reign, ...]:
        """Those below the present champion, the nearest first."""
        return self.reigns[-2::-1]


def line_of(events: Iterable[AliasEvent]) -> Line:
    """The line that a model's champion events, the oldest first, have led to."""
    stack: list[Reign] = []
    promoted = False
    for event in events:
        if event.kind == "renamed":
            continue
        if event.kind == "affirmed":
            stack[-1].vouched(event)
            continue
        if stack:
            stack[-1].until = event.entry
        promoted = event.kind == "set"
        if event.kind == "deleted":
            del stack[-1:]
        elif event.version is not None and event.digest is not None:
            if event.kind == "rolled_back":
                while stack and stack[-1].version != event.version:
                    stack.pop()
                if stack:
                    stack[-1].until = None
                    if event.basis in {"report", "override"}:  # new evidence let it come back
                        stack[-1].vouched(event)
                    continue
            stack.append(
                Reign(event.version, event.digest, event.basis, event.report, event.policy, event.entry)
            )
    return Line(tuple(stack), promoted)
