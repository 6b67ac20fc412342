"""Routes: which versions answer an endpoint, in which role and share, and who gets which.

Keys are placed by weighted rendezvous hashing (Schindelhauer and Schomaker 2005, "Weighted distributed hash
tables", logarithmic method): a key belongs to the arm with the largest -share / ln(hash(salt, version, key)).
So when an arm's share grows under the same salt, keys move to it and none between the others.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
from blake3 import blake3

from trimtab.digest import is_digest
from trimtab.errors import InvalidInputError

Role = Literal["primary", "challenger", "shadow"]


class Arm(msgspec.Struct, frozen=True):
    """One version on a route.

    `share`: percent of keys that it answers. A shadow scores every request and answers none.
    """

    version: int
    digest: str
    role: Role = "primary"
    share: float = 100.0


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The versions of an endpoint. All of them score every request; one of them answers.

    There is one primary; the shares of primary and challengers add up to 100. `salt` belongs to a rollout:
    keep it while shares grow, change it to deal keys anew. `generation` is given by `Endpoints.set_route`.
    """

    model: str
    arms: tuple[Arm, ...]
    salt: str = ""
    generation: int = 0

    def __post_init__(self) -> None:
        if [arm.role for arm in self.arms].count("primary") != 1:
            raise InvalidInputError("A route needs exactly one primary version.")
        versions = [arm.version for arm in self.arms]
        if len(set(versions)) != len(versions):
            raise InvalidInputError("A route names the same version twice.")
        for arm in self.arms:
            if not is_digest(arm.digest):
                raise InvalidInputError(f"'{arm.digest}' is not the digest of a model.")
            if not 0 <= arm.share <= 100 or (arm.role == "shadow") > (arm.share == 0):
                raise InvalidInputError(
                    f"Version {arm.version} cannot have a share of {arm.share} % as {arm.role}.",
                    hint="A share lies between 0 and 100; that of a shadow is 0.",
                )
        total = sum(arm.share for arm in self.arms)
        if not math.isclose(total, 100):
            raise InvalidInputError(f"The shares of this route add up to {total:g} %, and not to 100 %.")

    @property
    def primary(self) -> Arm:
        """The arm of the champion."""
        return next(arm for arm in self.arms if arm.role == "primary")


class Chooser:
    """Says which arm of a route answers a key; the answer depends on nothing but salt, shares and key."""

    def __init__(self, route: Route) -> None:
        answering = [(place, arm) for place, arm in enumerate(route.arms) if arm.share > 0]
        self._only = answering[0][0] if len(answering) == 1 else None
        self._arms = [
            (place, arm.share, f"{route.salt}\0{arm.version}\0".encode()) for place, arm in answering
        ]

    def place(self, key: str) -> int:
        """The position in `route.arms` of the arm that answers `key`."""
        if self._only is not None:
            return self._only
        data = key.encode()
        best, chosen = -1.0, 0
        for place, share, prefix in self._arms:
            number = int.from_bytes(blake3(prefix + data).digest(length=7), "big") >> 3  # 53 bits: exact
            score = share / -math.log((number + 0.5) / 2**53)
            if score > best:
                best, chosen = score, place
        return chosen


def single(model: str, version: int, digest: str) -> Route:
    """The route on which one version answers everything."""
    return Route(model=model, arms=(Arm(version, digest),))
