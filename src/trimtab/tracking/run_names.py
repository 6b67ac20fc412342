"""Names for runs and models that were given none: an adjective, a noun and a number, as in MLflow."""

from __future__ import annotations

import random

ADJECTIVES = (
    "able", "amber", "brisk", "calm", "clever", "crisp", "dapper", "eager", "fair", "fresh", "gentle",
    "grand", "hardy", "keen", "light", "lively", "lucid", "merry", "mild", "neat", "nimble", "patient",
    "plain", "quiet", "rapid", "ready", "sound", "steady", "sturdy", "swift", "tidy", "warm",
)  # fmt: skip
NOUNS = (
    "anchor", "barge", "beacon", "bight", "bow", "breeze", "buoy", "cape", "clipper", "compass", "cutter",
    "deck", "dinghy", "ferry", "gull", "harbor", "heron", "keel", "ketch", "lagoon", "mast", "pilot", "reef",
    "rudder", "sail", "schooner", "skiff", "sloop", "tern", "tide", "tiller", "wake",
)  # fmt: skip


def random_name() -> str:
    """A name such as "brisk-heron-417"; two may be alike."""
    return f"{random.choice(ADJECTIVES)}-{random.choice(NOUNS)}-{random.randint(0, 999)}"  # noqa: S311  (no secret)
