from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from trimtab.serving.prediction_ids import PredictionIds, row_ids

SECRET = bytes(range(32))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ids = PredictionIds(SECRET)


@given(rows=st.integers(1, 1000), endpoint=st.text(max_size=40))
def test_every_row_of_a_minted_id_is_genuine_for_its_endpoint_alone(rows: int, endpoint: str) -> None:
    base = ids.mint(endpoint, rows)
    for id in row_ids(base, rows):
        assert ids.genuine(endpoint, id)
        assert not ids.genuine(endpoint + "x", id)


@given(rows=st.sampled_from([1, 7]), place=st.integers(0, 27), letter=st.sampled_from(ALPHABET))
def test_an_id_with_one_other_letter_is_forged(rows: int, place: int, letter: str) -> None:
    id = row_ids(ids.mint("rides", rows), rows)[-1]
    changed = id[:place] + letter + id[place + 1 :]
    assert ids.genuine("rides", changed) == (changed == id)


@given(st.text(max_size=40))
def test_no_text_is_taken_for_an_id(text: str) -> None:
    assert not ids.genuine("rides", text)


def test_a_row_that_the_request_did_not_have_is_forged() -> None:
    base = ids.mint("rides", 3)
    assert ids.genuine("rides", f"{base}.2")
    assert not ids.genuine("rides", f"{base}.3")
    assert not ids.genuine("rides", f"{base}.02")
    assert not ids.genuine("rides", base)


def test_ids_of_another_secret_are_forged_and_those_of_a_restarted_gateway_are_not() -> None:
    id = PredictionIds(SECRET).mint("rides")
    assert PredictionIds(SECRET).genuine("rides", id)
    assert not PredictionIds(bytes(32)).genuine("rides", id)


def test_ids_are_unique_and_safe_in_an_address() -> None:
    minters = [PredictionIds(SECRET) for _ in range(10)]
    found = [minter.mint("rides") for _ in range(1000) for minter in minters]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{28}", id) for id in found)
