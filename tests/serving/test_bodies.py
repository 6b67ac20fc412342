from __future__ import annotations

import gzip
import zlib

import pytest

from trimtab.errors import MalformedError, TooLargeError
from trimtab.serving.bodies import UnsupportedEncodingError, body_of
from trimtab.serving.http_messages import Message

BODY = b"abc" * 30


def message(body: bytes, encoding: str | None) -> Message:
    made = Message()
    made.body = body
    if encoding is not None:
        made.headers["content-encoding"] = encoding
    return made


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (BODY, None),
        (BODY, "identity"),
        (gzip.compress(BODY), "gzip"),
        (gzip.compress(BODY), "GZip"),
        (zlib.compress(BODY), "deflate"),
    ],
)
def test_a_body_is_unpacked_as_its_header_says(body: bytes, encoding: str | None) -> None:
    assert body_of(message(body, encoding), 100) == BODY


def test_a_body_that_is_too_large_when_unpacked_is_refused() -> None:
    with pytest.raises(TooLargeError):
        body_of(message(gzip.compress(b"x" * 10_000), "gzip"), 100)


@pytest.mark.parametrize("more", [gzip.compress(BODY), b"\0"])
def test_nothing_behind_the_end_of_a_packed_body_is_left_out_silently(more: bytes) -> None:
    with pytest.raises(MalformedError):
        body_of(message(gzip.compress(BODY) + more, "gzip"), 1000)


@pytest.mark.parametrize("body", [gzip.compress(BODY)[:-9], b"abc", b"\x1f\x8b\x08"])
def test_a_body_that_is_not_what_its_header_says_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedError):
        body_of(message(body, "gzip"), 100)


def test_another_encoding_is_refused() -> None:
    with pytest.raises(UnsupportedEncodingError):
        body_of(message(BODY, "br"), 100)
