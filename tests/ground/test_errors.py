"""One tree: each error has a code of its own, a status, and says what to do."""

from __future__ import annotations

import inspect

from trimtab import errors
from trimtab.errors import InvalidInputError, TrimtabError, unknown

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, TrimtabError)]


def test_codes_are_unique_and_the_tree_on_top_names_every_error() -> None:
    assert len({kind.code for kind in ALL}) == len(ALL)
    assert errors.__doc__ is not None
    for kind in ALL:
        assert kind.__name__ in errors.__doc__


def test_an_unknown_name_comes_with_the_nearest_or_what_there_is() -> None:
    assert "Did you mean 'trips'?" in str(unknown("dataset", "trip", ["trips", "bikes"]))
    assert "There are: bikes, trips." in str(unknown("dataset", "zzz", ["trips", "bikes"]))
    assert "There is no dataset yet." in str(unknown("dataset", "zzz", []))


def test_a_hint_follows_the_message() -> None:
    error = errors.RefusedError("No.", hint="Do this.")
    assert str(error) == "No. Do this."
    assert isinstance(error, PermissionError)


def test_what_no_text_can_hold_is_replaced_in_an_errors_words() -> None:
    error = InvalidInputError("There is no '\ud800 \u00e9'.", hint="Not '\udcff'.")
    assert (error.message, error.hint) == ("There is no '? \u00e9'.", "Not '?'.")
    assert str(error).encode()
