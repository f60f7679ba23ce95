"""The JSON and forms of strangers."""

from __future__ import annotations

import json
import time
import traceback
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webhooks.sources.document import MAX_DEPTH, Malformed, from_form, from_json

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@settings(max_examples=25)
@given(document=st.dictionaries(st.text(), _VALUES))
def test_any_json_object_is_read_as_it_was_written(document: dict[str, Any]) -> None:
    assert from_json(json.dumps(document).encode()) == document
    assert from_json(json.dumps(document, ensure_ascii=False).encode()) == document


@given(body=st.binary())
def test_any_bytes_are_an_object_or_malformed(body: bytes) -> None:
    for read in (from_json, from_form):
        with suppress(Malformed):
            assert isinstance(read(body), dict)


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 100_000, 1_000_000])
def test_deep_nesting_is_malformed_and_quick(opening: bytes, depth: int) -> None:
    started = time.thread_time()
    closing = b"}" if opening.startswith(b"{") else b"]"
    for body in (opening * depth + b"1" + closing * depth, opening * depth):
        with pytest.raises(Malformed):
            from_json(b'{"x":' + body + b"}")
    assert time.thread_time() - started < 5


def test_sixty_four_levels_are_read() -> None:
    assert from_json(b'{"a":' * (MAX_DEPTH - 1) + b"{}" + b"}" * (MAX_DEPTH - 1))
    with pytest.raises(Malformed, match="deeper"):
        from_json(b'{"a":' * MAX_DEPTH + b"{}" + b"}" * MAX_DEPTH)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":1,"a":1}',
        b'{"b":{"a":1,"a":2}}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\xc3"}',
        b'{"a":1} {"b":2}',
    ],
    ids=lambda body: repr(body[:16]),
)
def test_what_is_not_one_plain_object_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        from_json(body)


def test_a_message_never_quotes_the_body() -> None:
    for body in (b'{"a":"canary"', b"canary", b'{"canary":1,"canary":1}', b'{"canary":NaN}'):
        with pytest.raises(Malformed) as caught:
            from_json(body)
        assert "canary" not in str(caught.value)
        assert "canary" not in "".join(traceback.format_exception(caught.value)).partition("Malformed")[2]
        assert caught.value.__cause__ is None  # a decoder's error holds the document


def test_a_form_is_read_once_and_a_repeated_field_is_malformed() -> None:
    assert from_form(b"a=1&b=%C3%A9&c=") == {"a": "1", "b": "é", "c": ""}
    for form in (b"a=1&a=2", b"a", "a=é".encode(), b"&".join(b"f%d=1" % number for number in range(200))):
        with pytest.raises(Malformed):
            from_form(form)
