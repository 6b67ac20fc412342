"""What a step of `rental_steps` uses of another module."""

from __future__ import annotations

PLACES = {"harbour": 1, "station": 2}
PLACES["market"] = 3

UNUSED = [object()]


def place_code(place: str | None) -> int:
    """The number of a place; 0 for one that is not known."""
    return PLACES.get(place or "", 0)


def unused() -> object:
    return UNUSED
