"""Names of errors are quoted, and nothing that might be a token."""

from __future__ import annotations

import pytest

from identity.quoting import error_name


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
