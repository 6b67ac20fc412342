"""Filters and orders by a grammar: most of them mean something, some are wrong on purpose."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

ORDERED = ("=", "!=", "<", "<=", ">", ">=")
TEXTUAL = ("=", "!=", "LIKE", "ILIKE")
ANY = (*ORDERED, "LIKE", "like", "ILIKE", "IN", "NOT IN", "IS NULL", "IS NOT NULL", "==", "~")

NUMBERS = st.sampled_from(["0", "1", "0.5", "-1", "1e3", "1.", "-0.25", "1700000000003"])
WHOLE = st.sampled_from(["0", "1", "1700000000001", "1700000000003", "9999999999999"])
PATTERNS = st.sampled_from(["%", "b%", "B%", "%u%", "_lue", "1", "%[%", "*", "a?", "x\\%", "%ü%", ""])


def joined(conditions: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Nothing, or up to three conditions in a row."""
    sign = st.sampled_from([" AND ", " and ", " And "])
    return st.just("") | st.builds(
        lambda found, sign: sign.join(found), st.lists(conditions, min_size=1, max_size=3), sign
    )


def quoted(values: Sequence[str]) -> st.SearchStrategy[str]:
    """One of these texts, or a pattern, as a literal."""
    return st.builds(
        lambda value, sign: f"{sign}{value}{sign}",
        st.sampled_from(list(values)) | PATTERNS,
        st.sampled_from(["'", "'", "'", '"']),
    )


def listed(values: Sequence[str]) -> st.SearchStrategy[str]:
    """A list of one or two of these texts."""
    items = st.lists(st.sampled_from(list(values)), min_size=1, max_size=2)
    return items.map(lambda found: "(" + ", ".join(f"'{each}'" for each in found) + ")")


def numeric(names: Sequence[str], numbers: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A comparison with a number."""
    return st.builds("{} {} {}".format, st.sampled_from(list(names)), st.sampled_from(ORDERED), numbers)


def textual(names: Sequence[str], values: Sequence[str]) -> st.SearchStrategy[str]:
    """A comparison with a text."""
    return st.builds(
        "{} {} {}".format, st.sampled_from(list(names)), st.sampled_from(TEXTUAL), quoted(values)
    )


def present(names: Sequence[str]) -> st.SearchStrategy[str]:
    """Whether there is something."""
    return st.builds(
        "{} {}".format, st.sampled_from(list(names)), st.sampled_from(["IS NULL", "IS NOT NULL"])
    )


def among(names: Sequence[str], values: Sequence[str]) -> st.SearchStrategy[str]:
    """Whether it is one of some texts."""
    return st.builds(
        "{} {} {}".format, st.sampled_from(list(names)), st.sampled_from(["IN", "NOT IN"]), listed(values)
    )


def wrong(names: Sequence[str], values: Sequence[str]) -> st.SearchStrategy[str]:
    """Any name with any comparison and any value, or with none."""
    value = quoted(values) | NUMBERS | listed(values) | st.sampled_from(["x", "", "NULL", "("])
    return st.builds("{} {} {}".format, st.sampled_from(list(names)), st.sampled_from(ANY), value)


def orders(names: Sequence[str]) -> st.SearchStrategy[list[str]]:
    """Up to two keys to order by."""
    clause = st.builds(
        "{}{}".format, st.sampled_from(list(names)), st.sampled_from(["", " ASC", " DESC", " desc"])
    )
    return st.lists(clause, max_size=2)
