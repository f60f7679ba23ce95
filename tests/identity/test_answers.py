"""Token answers as a table: what real providers sent, and what must never lose or kill a grant."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from identity.answers import ClientRefused, Dead, Granted, Meaning, Transient, Unreadable, read_answer
from identity.http import Answer
from identity.model import TokenAnswer
from identity.providers import PROFILES
from identity.secret import Secret

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def meaning(
    body: Any, status: int = 200, *, provider: str = "github", lifetime: timedelta | None = None, **headers: str
) -> Meaning:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = Answer(status=status, headers=named, body=raw, elapsed=timedelta())
    return read_answer(answer, PROFILES[provider], started_at=START, scopes=("asked",), lifetime=lifetime)


def granted(body: Any, **arguments: Any) -> TokenAnswer:
    outcome = meaning(body, **arguments)
    assert isinstance(outcome, Granted)
    return outcome.answer


@pytest.mark.parametrize(
    ("lifetime", "expires"),
    [
        ({"expires_in": 28800}, timedelta(hours=8)),
        ({"expires_in": "3600"}, HOUR),
        ({"expires_in": "3600.5"}, timedelta(seconds=3600.5)),
        ({"expires_in": 3600.0}, HOUR),
        ({"expires_at": "2026-11-24T13:00:00Z"}, HOUR),
        ({"expires_at": "2026-11-24T14:00:00+01:00"}, HOUR),
        ({"expires_at": "2026-11-24T13:00:00"}, HOUR),
        ({"expires_at": START.timestamp() + 3600}, HOUR),
        ({"expires_in": "nonsense", "expires_at": "2026-11-24T13:00:00Z"}, HOUR),
        ({"expires_in": 1e300}, timedelta(days=3650)),
        ({"expires_in": 0}, HOUR),  # it says that it ends, not when
        ({"expires_in": -5}, HOUR),
        ({"expires_in": 1e-10}, HOUR),  # above zero, and nothing once it is counted in microseconds
        ({"expires_in": "5e-324"}, HOUR),
        ({"expires_in": ""}, HOUR),
        ({"expires_in": "abc"}, HOUR),
        ({"expires_in": True}, HOUR),
        ({"expires_in": [1]}, HOUR),
        ({"expires_at": "yesterday"}, HOUR),
        ({"expires_at": "2020-01-01T00:00:00Z"}, HOUR),
        ({"expires_in": None}, None),
        ({}, None),
    ],
    ids=str,
)
def test_a_lifetime_is_read_in_every_form(lifetime: dict[str, Any], expires: timedelta | None) -> None:
    answer = granted({"access_token": "a"} | lifetime)
    assert answer.expires_at == (None if expires is None else START + expires)


@pytest.mark.parametrize("absent", [{}, {"expires_in": None}, {"expires_in": 0}, {"expires_in": "abc"}], ids=str)
def test_the_last_known_lifetime_stands_in_for_a_missing_one(absent: dict[str, Any]) -> None:
    answer = granted({"access_token": "a"} | absent, lifetime=timedelta(hours=8))
    assert answer.expires_at == START + timedelta(hours=8)


def test_linears_own_lifetime_stands_in_for_a_first_one() -> None:
    assert granted({"access_token": "a"}, provider="linear").expires_at == START + timedelta(seconds=86399)


@pytest.mark.parametrize("sent", [{}, {"refresh_token": ""}, {"refresh_token": None}, {"refresh_token": 7}], ids=str)
def test_an_absent_or_empty_refresh_token_is_none(sent: dict[str, Any]) -> None:
    assert granted({"access_token": "a"} | sent).refresh_token is None


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({}, ("asked",)),
        ({"scope": ""}, ("asked",)),
        ({"scope": "read write"}, ("read", "write")),
        ({"scope": "read,write"}, ("read", "write")),
        ({"scope": ["read", "write"]}, ("read", "write")),
        ({"scope": 7}, ("asked",)),
    ],
    ids=str,
)
def test_scopes_are_those_of_the_answer(scope: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert granted({"access_token": "a"} | scope).scopes == expected


def test_a_form_is_read_like_json() -> None:
    answer = granted(b"access_token=ghu_1&refresh_token=ghr_1&expires_in=28800&scope=&token_type=bearer")
    assert (answer.access_token, answer.refresh_token) == (Secret("ghu_1"), Secret("ghr_1"))
    assert answer.expires_at == START + timedelta(hours=8)


def test_a_form_may_be_a_refusal() -> None:
    assert meaning(b"error=bad_refresh_token&error_description=gone") == Dead(code="bad_refresh_token")


def test_slacks_person_is_found_inside_the_answer() -> None:
    body = {
        "ok": True,
        "team": {"id": "T1"},
        "authed_user": {"id": "U1", "access_token": "xoxe.xoxp-1", "scope": "a,b"},
    }
    answer = granted(body, provider="slack")
    assert (answer.access_token, answer.scopes) == (Secret("xoxe.xoxp-1"), ("a", "b"))


def test_slacks_bot_is_at_the_top() -> None:
    body = {"ok": True, "access_token": "xoxb-1", "token_type": "bot", "authed_user": {"id": "U1"}}
    assert granted(body, provider="slack").token_type == "bot"


@pytest.mark.parametrize(
    ("body", "status", "provider", "code"),
    [
        ({"error": "invalid_grant"}, 400, "linear", "invalid_grant"),
        ({"error": "invalid_grant"}, 401, "linear", "invalid_grant"),
        ({"error": "invalid_grant"}, 403, "linear", "invalid_grant"),
        ({"error": "bad_refresh_token"}, 200, "github", "bad_refresh_token"),
        ({"ok": False, "error": "invalid_refresh_token"}, 200, "slack", "invalid_refresh_token"),
    ],
)
def test_a_dead_credential_is_named_by_its_code(body: Any, status: int, provider: str, code: str) -> None:
    assert meaning(body, status, provider=provider) == Dead(code=code)


@pytest.mark.parametrize(
    ("body", "status", "provider"),
    [
        ({"error": "invalid_client"}, 401, "linear"),
        ({"error": "unauthorized_client"}, 400, "linear"),
        ({"error": "incorrect_client_credentials"}, 200, "github"),
        ({"ok": False, "error": "bad_client_secret"}, 200, "slack"),
    ],
)
def test_a_client_at_fault_is_the_operators(body: Any, status: int, provider: str) -> None:
    assert isinstance(meaning(body, status, provider=provider), ClientRefused)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [{"error": "invalid_grant"}, b"<html>busy</html>", b"", {"access_token": "a"}])
def test_a_busy_status_is_transient_whatever_the_body(status: int, body: Any) -> None:
    assert isinstance(meaning(body, status), Transient)


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("30", timedelta(seconds=30)),
        ("0", timedelta(seconds=1)),
        ("999999", HOUR),
        ("Tue, 24 Nov 2026 12:02:00 GMT", timedelta(minutes=2)),
        ("Tue, 24 Nov 2020 12:02:00 GMT", timedelta(seconds=1)),
        ("soon", timedelta(seconds=5)),
        ("99999999999999999999", timedelta(seconds=5)),
    ],
)
def test_retry_after_is_read_in_both_forms_within_bounds(value: str, wait: timedelta) -> None:
    outcome = meaning({}, 429, retry_after=value)
    assert isinstance(outcome, Transient)
    assert outcome.retry_after == wait


@pytest.mark.parametrize(
    ("body", "status", "provider"),
    [
        ({"error": "something_new"}, 400, "github"),
        ({"error": "something_new"}, 200, "github"),
        ({"ok": False, "error": "something_new"}, 200, "slack"),
        ({"ok": False}, 200, "slack"),
        ({"error": {"message": "no"}}, 400, "github"),
        ({"errors": ["no"]}, 400, "linear"),
        ({"message": "no"}, 400, "github"),
        ({"access_token": "a"}, 400, "github"),
        (b"<html>no</html>", 403, "github"),
        (b"", 401, "github"),
        ({}, 302, "github"),
    ],
)
def test_an_unknown_refusal_is_never_fatal(body: Any, status: int, provider: str) -> None:
    outcome = meaning(body, status, provider=provider)
    assert isinstance(outcome, Transient)
    assert not outcome.recognised


def test_linears_rate_limit_comes_as_a_400() -> None:
    outcome = meaning({"errors": [{"extensions": {"code": "RATELIMITED"}}]}, 400, provider="linear")
    assert isinstance(outcome, Transient)
    assert outcome.recognised


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ok": True},
        {"access_token": ""},
        {"access_token": None},
        {"access_token": "a\r\nx-evil: 1"},
        [],
        b"<html>hello</html>",
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body)[:30],
)
def test_a_success_without_a_token_is_unknown(body: Any) -> None:
    assert isinstance(meaning(body), Unreadable)


@given(st.integers(100, 599), st.binary(max_size=200))
def test_no_bytes_make_it_raise(status: int, body: bytes) -> None:
    meaning(body, status)


_leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_names = st.sampled_from(["access_token", "refresh_token", "expires_in", "expires_at", "scope", "error", "ok"])


@given(
    st.sampled_from([200, 201, 400, 401]),
    st.dictionaries(
        _names, _leaf | st.lists(_leaf, max_size=2) | st.dictionaries(_names, _leaf, max_size=2), max_size=5
    ),
)
@example(200, {"access_token": "a", "expires_in": 1e-10})
def test_no_json_makes_it_raise_or_grants_without_a_token(status: int, document: dict[str, Any]) -> None:
    outcome = meaning(document, status)
    if isinstance(outcome, Granted):
        assert outcome.answer.access_token.reveal() == document["access_token"]
        assert outcome.answer.expires_at is None or outcome.answer.expires_at > START


def test_no_secret_is_in_a_repr() -> None:
    answer = Answer(status=200, headers={}, body=b'{"access_token": "canary"}', elapsed=timedelta())
    assert "canary" not in repr(answer)
    assert "canary" not in repr(granted({"access_token": "canary"}))
