from __future__ import annotations

import pytest

from trimtab.errors import InvalidInputError
from trimtab.models.signature import Column, Output, Signature

CHAMPION = Signature(
    (
        Column("hour", "number"),
        Column("weather", "category", nullable=True, categories=("clear", "rain")),
    )
)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (CHAMPION.columns, None),
        ((*CHAMPION.columns, Column("casual", "number", nullable=True)), None),
        (CHAMPION.columns[:1], None),
        ((CHAMPION.columns[0], Column("weather", "category", nullable=True, categories=("fog",))), None),
        ((*CHAMPION.columns, Column("casual", "number")), "requires the column 'casual'"),
        ((Column("hour", "boolean"), CHAMPION.columns[1]), "'hour' is a boolean and not a number"),
        ((Column("weather", "category", categories=("clear",)),), "'weather' may no longer be missing"),
        (
            (Column("weather", "category", nullable=True, categories=(1, 2)),),
            "'weather' changed between texts and numbers",
        ),
        (
            (Column("weather", "category", nullable=True, categories=("clear", "rain", "fog"), closed=True),),
            "'weather' refuses values that it does not know",
        ),
    ],
)
def test_a_signature_says_which_requests_to_the_champion_it_would_refuse(
    columns: tuple[Column, ...], reason: str | None
) -> None:
    refusals = list(Signature(columns).refusals_of(CHAMPION))
    assert refusals == [] if reason is None else reason in refusals[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Column("", "number"),
        lambda: Column("weather", "category"),
        lambda: Column("hour", "number", categories=("a",)),
        lambda: Column("weather", "category", categories=("a", "a")),
        lambda: Column("weather", "category", categories=("a", 1)),
        lambda: Signature(()),
        lambda: Signature((Column("hour", "number"), Column("hour", "boolean"))),
        lambda: Output(minimum=2.0, maximum=1.0),
    ],
)
def test_what_makes_no_sense_cannot_be_declared(make: object) -> None:
    with pytest.raises(InvalidInputError):
        make()  # type: ignore[operator]
