"""One turn of a loop: its states, which arrows are lawful, and the record of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec


class State(StrEnum):
    """Where a cycle stands. The last five are final."""

    PROPOSED = "proposed"
    TRIGGERED = "triggered"
    TRAINING = "training"
    GATING = "gating"
    AWAITING_APPROVAL = "awaiting_approval"
    SHADOW = "shadow"
    CANARY = "canary"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    SUPERSEDED = "superseded"

    @property
    def final(self) -> bool:
        """Whether a cycle never leaves this state."""
        return self in FINAL

    @property
    def rolling_out(self) -> bool:
        """Whether a challenger is on the route in this state."""
        return self in (State.SHADOW, State.CANARY)


FINAL = frozenset({State.PROMOTED, State.REJECTED, State.ROLLED_BACK, State.FAILED, State.SUPERSEDED})

_ROLLOUT = frozenset({State.SHADOW, State.CANARY, State.PROMOTED})
ARROWS: dict[State, frozenset[State]] = {
    State.PROPOSED: frozenset({State.TRIGGERED, State.SUPERSEDED}),
    State.TRIGGERED: frozenset({State.TRAINING, State.FAILED, State.SUPERSEDED}),
    State.TRAINING: frozenset({State.GATING, State.FAILED, State.SUPERSEDED}),
    State.GATING: _ROLLOUT | {State.AWAITING_APPROVAL, State.REJECTED, State.FAILED, State.SUPERSEDED},
    State.AWAITING_APPROVAL: _ROLLOUT | {State.SUPERSEDED},
    State.SHADOW: _ROLLOUT | {State.ROLLED_BACK, State.SUPERSEDED},
    State.CANARY: frozenset({State.CANARY, State.PROMOTED, State.ROLLED_BACK, State.SUPERSEDED}),
} | {state: frozenset() for state in FINAL}
"""Which states may follow which."""


class Cycle(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a cycle.

    `id` is the loop's name and the cycle's `number`. `baseline` is the champion that it sets out to
    replace (None for the first). `params` override the training pipeline's. When training starts, `datasets`
    pins the versions that it reads, and `as_of` the event time up to which; `rows` counts the rows of the
    loop's own dataset in them. `digest` is the candidate's, `profile` that of the profile of what it was
    trained on. `stage` counts the rollout's stages from 0; `stage_since` is the event time
    at which all live gateways were seen on the stage's route, from which its dwell counts. `look_at` is the
    event time of the next look at the rollout, `measure` what the last one found.
    """

    id: str
    loop: str
    number: int
    declaration: int
    state: State
    trigger: str
    reason: str
    actor: str
    baseline: int | None
    params: dict[str, object]
    triggered_at: datetime
    moved_at: datetime
    moves: int = 0
    approved_by: str = ""
    datasets: dict[str, int] = {}
    as_of: datetime | None = None
    rows: int = 0
    run_id: str = ""
    digest: str = ""
    profile: str = ""
    candidate: int | None = None
    stage: int = 0
    route_generation: int = 0
    rollout_started: datetime | None = None
    stage_since: datetime | None = None
    look_at: datetime | None = None
    measure: object = None
    finished_at: datetime | None = None


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """One arrow that a cycle took: when, by whom, why, and the numbers it was decided on."""

    cycle: str
    sequence: int
    from_state: str
    to_state: str
    at: datetime
    actor: str
    reason: str
    evidence: object
