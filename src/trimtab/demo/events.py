"""Journal entries as lines that a person follows the demo by."""

from __future__ import annotations

from trimtab.store.journal import Entry

_QUIET = frozenset({"proposed", "triggered", "training", "gating"})


def line(entry: Entry) -> str | None:
    """What an entry means, in one line; None for those that only a search would look for."""
    match entry.action:
        case "cycle.started":
            words = f"cycle started: {entry.reason}"
        case "cycle.moved":
            to = str(entry.details.get("to", ""))
            if to in _QUIET:
                return None
            candidate = entry.details.get("candidate")
            version = "" if candidate is None else f" (version {candidate})"
            words = f"{to.replace('_', ' ')}{version}: {entry.reason}"
        case "alert.opened" | "alert.raised":
            words = f"alert: {entry.reason}"
        case "alert.resolved":
            words = f"alert over: {entry.reason}"
        case _:
            return None
    return f"{entry.at:%Y-%m-%d %H:%M}  {entry.name:<24} {words}"
