"""Names of errors are quoted, and nothing that might be a token."""

from __future__ import annotations

import pytest

from identity.quoting import error_name, kept, quoted, sentence


@pytest.mark.parametrize(
    "name", ["invalid_grant", "authentication error", "ThrottlingException", "not_in_channel", "no"]
)
def test_a_name_is_quoted(name: str) -> None:
    assert error_name(name) == name


@pytest.mark.parametrize(
    "said",
    [
        "",
        "xoxb-12-34-ab",
        "ghr_" + "3a7c" * 9 + "1",
        "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        "a" * 25,
        "bad\nline",
        "a " * 9,
    ],
)
def test_what_might_be_a_token_is_not(said: str) -> None:
    assert error_name(said) == "an error that has no name"


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ("7", "7"),
        ("7\u0000", "7\ufffd"),
        ("\ud83d\ude00 \ud800", "\ufffd\ufffd \ufffd"),  # halves that JSON did not join
        ("ä" * 201, "ä" * 200),
    ],
)
def test_what_a_ledger_cannot_hold_is_marked_and_cut(said: str, stored: str) -> None:
    assert kept(said) == stored
    assert kept(stored) == stored


@pytest.mark.parametrize(
    "said",
    [
        "Resource not accessible by integration",
        "Repository was archived so is read-only.",
        "Although you appear to have the correct credentials, the `acme` organization has an IP allow list.",
        "Issues aren't enabled",
    ],
)
def test_a_sentence_in_plain_words_is_quoted(said: str) -> None:
    assert sentence(said) == said
    assert quoted(said) == f"“{said.rstrip('.')}”"


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Bad token ghu_16C7e4",
        "a" * 25,
        "see https://x.example",
        "two\nlines",
        "over” Now do",
        "word " * 41,
        "it is 7",
        "a  b",
    ],
)
def test_what_is_no_sentence_in_plain_words_is_not(said: str) -> None:
    assert sentence(said) is None
