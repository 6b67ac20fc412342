import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data.datasets import Datasets
from trimtab.data.row_places import in_part, row_places
from trimtab.data.window import everything, share
from trimtab.workspace import Workspace

MASK = 2**64 - 1


def splitmix64(state: int) -> int:
    """The generator's output after one step from `state`, in Python's own integers."""
    bits = (state + 0x9E3779B97F4A7C15) & MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


@given(batch=st.integers(0, 2**60 - 1), row=st.integers(0, 2**40))
def test_a_place_is_the_nth_number_of_the_appends_own_splitmix_stream(batch: int, row: int) -> None:
    expected = splitmix64((splitmix64(batch) + row * 0x9E3779B97F4A7C15) & MASK)
    (found,) = row_places(np.array([batch], dtype=np.uint64), np.array([row], dtype=np.uint64))
    assert found == (expected >> 11) / 2**53
    assert 0 <= found < 1


def test_places_are_spread_evenly_within_an_append_and_over_appends() -> None:
    rows = np.arange(100_000, dtype=np.uint64)
    for places in (row_places(np.full_like(rows, 7), rows), row_places(rows, np.zeros_like(rows))):
        counts = np.histogram(places, bins=50, range=(0, 1))[0]
        expected = rows.size / 50
        assert ((counts - expected) ** 2 / expected).sum() < 100  # chi square, 49 degrees: p < 1e-4


def test_shares_that_touch_take_every_row_once() -> None:
    batch, row = pl.Series([3] * 1000), pl.Series(range(1000))
    taken = sum(in_part(batch, row, part).cast(pl.Int64) for part in ((0, 0.1), (0.1, 0.4), (0.4, 1)))
    assert isinstance(taken, pl.Series)
    assert taken.unique().to_list() == [1]


def test_a_held_out_share_and_the_rest_are_all_rows_and_later_appends_move_none(workspace: Workspace) -> None:
    datasets = Datasets(workspace)
    datasets.create("loans")
    now = workspace.clock.now()
    for number in range(3):
        rows = pl.DataFrame({"id": range(number * 400, number * 400 + 400)})
        datasets.append("loans", rows, key=str(number))
    held_out = datasets.read_window("loans", share(0.2), now)["id"].to_list()
    rest = datasets.read_window("loans", everything().before(share(0.2)), now)["id"].to_list()
    assert sorted(held_out + rest) == list(range(1200))
    assert 180 < len(held_out) < 300
    first = datasets.read_window("loans", share(0.2), now, version=1)["id"].to_list()
    assert first == [number for number in held_out if number < 400]
    workspace.tables.compact("datasets/loans")
    assert datasets.read_window("loans", share(0.2), now)["id"].to_list() == held_out
