from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.digest import digest_bytes
from trimtab.errors import InvalidInputError
from trimtab.serving.routes import Arm, Chooser, Role, Route

DIGEST = digest_bytes(b"")
KEYS = [f"customer-{number}" for number in range(20_000)]


def canary(share: float, salt: str = "rollout-1") -> Route:
    arms = (Arm(1, DIGEST, "primary", 100 - share), Arm(2, DIGEST, "challenger", share))
    return Route(model="m", arms=arms, salt=salt)


@pytest.mark.parametrize("share", [1, 5, 25, 50, 90])
def test_keys_are_dealt_in_the_shares_of_the_route(share: float) -> None:
    chooser = Chooser(canary(share))
    found = sum(chooser.place(key) for key in KEYS)
    expected = len(KEYS) * share / 100
    deviation = (expected * (1 - share / 100)) ** 0.5
    assert abs(found - expected) < 4 * deviation


@given(st.text(min_size=1), st.floats(0, 100), st.floats(0, 100))
def test_a_key_that_reached_the_challenger_stays_there_as_its_share_grows(
    key: str, one: float, other: float
) -> None:
    small, large = sorted((one, other))
    if Chooser(canary(small)).place(key) == 1:
        assert Chooser(canary(large)).place(key) == 1


def test_the_extremes_are_exact() -> None:
    assert {Chooser(canary(0)).place(key) for key in KEYS} == {0}
    assert {Chooser(canary(100)).place(key) for key in KEYS} == {1}


def test_a_growing_arm_takes_keys_from_the_others_and_moves_none_between_them() -> None:
    def placed(third: float) -> list[int]:
        rest = (100 - third) / 2
        arms = (
            Arm(1, DIGEST, "primary", rest),
            Arm(2, DIGEST, "challenger", rest),
            Arm(3, DIGEST, "challenger", third),
        )
        chooser = Chooser(Route(model="m", arms=arms, salt="s"))
        return [chooser.place(key) for key in KEYS[:5000]]

    for before, after in zip(placed(10), placed(40), strict=True):
        assert after in {before, 2}


def test_another_salt_deals_keys_anew() -> None:
    one, other = Chooser(canary(50, "a")), Chooser(canary(50, "b"))
    agreeing = sum(one.place(key) == other.place(key) for key in KEYS)
    assert abs(agreeing - len(KEYS) / 2) < 4 * (len(KEYS) / 4) ** 0.5


def test_a_shadow_answers_nobody() -> None:
    route = Route(model="m", arms=(Arm(1, DIGEST), Arm(2, DIGEST, "shadow", 0)), salt="s")
    assert {Chooser(route).place(key) for key in KEYS[:1000]} == {0}


@pytest.mark.parametrize(
    "arms",
    [
        [],
        [(1, "challenger", 100)],
        [(1, "primary", 50), (2, "primary", 50)],
        [(1, "primary", 90)],
        [(1, "primary", 100), (1, "shadow", 0)],
        [(1, "primary", 90), (2, "shadow", 10)],
        [(1, "primary", 110), (2, "challenger", -10)],
        [(1, "primary", float("nan")), (2, "challenger", 5)],
    ],
)
def test_a_route_that_makes_no_sense_cannot_be_built(arms: list[tuple[int, Role, float]]) -> None:
    with pytest.raises(InvalidInputError):
        Route(model="m", arms=tuple(Arm(version, DIGEST, role, share) for version, role, share in arms))
