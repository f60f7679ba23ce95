"""Token answers as a table: what real providers sent, and what must never lose or kill a grant."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from identity.http.client import Answer, NoAnswer, NotSent, Outcome
from identity.model import TokenAnswer
from identity.oauth.answers import (
    ClientRefused,
    Dead,
    Granted,
    Meaning,
    RateLimited,
    Transient,
    Unknown,
    Withheld,
    read_outcome,
)
from identity.providers import PROFILES
from identity.secret import Secret

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)  # Date counts whole ones
FAR_YEAR, FAR_ZONE = "Mon, 01 Jan 99999999999 00:00:00 GMT", "Tue, 24 Nov 2026 12:02:00 +99999999999999999"
LAST_SECOND = "Fri, 31 Dec 9999 23:59:59 GMT"


def meaning(
    body: Any, status: int = 200, *, provider: str = "github", lifetime: timedelta | None = None, **headers: str
) -> Meaning:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = Answer(status=status, headers=named, body=raw, elapsed=timedelta())
    return read(answer, provider=provider, lifetime=lifetime)


def read(outcome: Outcome, *, provider: str = "github", lifetime: timedelta | None = None) -> Meaning:
    return read_outcome(outcome, PROFILES[provider], started_at=START, scopes=("asked",), lifetime=lifetime)


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
    "token", ["canary ", " canary", "canary canary", "canary\n", "canary\tcanary", "canary\x00", "canaryé"]
)
def test_an_access_token_that_no_header_can_hold_is_none_and_is_not_quoted(token: str) -> None:
    outcome = meaning({"access_token": token, "refresh_token": "r"})
    assert isinstance(outcome, Unknown)
    assert "canary" not in outcome.reason


def test_a_refresh_token_may_hold_a_space_and_no_control_character() -> None:
    assert granted({"access_token": "a", "refresh_token": "r 1"}).refresh_token == Secret("r 1")
    assert granted({"access_token": "a", "refresh_token": "r\n1"}).refresh_token is None


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
    assert granted(body, provider="slack").access_token == Secret("xoxb-1")


@pytest.mark.parametrize(
    ("said", "provider", "kept"),
    [
        (None, "oidc", "bearer"),
        ("Bearer", "oidc", "bearer"),
        ("BEARER", "oidc", "bearer"),
        ("bot", "slack", "bearer"),
        ("user", "slack", "bearer"),
        ("bot", "oidc", "unsupported bot"),
        ("DPoP", "oidc", "unsupported DPoP"),
        ("N_A", "oidc", "unsupported N_A"),
        ("key", "oidc", "unsupported key"),  # no answer makes a token a static key
        ("x" * 99, "oidc", "unsupported xxxxxxxxxxx~d0621fdd"),
        ("Bearer ", "oidc", "bearer"),
    ],
)
def test_a_type_of_token_that_is_not_understood_is_kept_and_marked(said: Any, provider: str, kept: str) -> None:
    answer = granted({"access_token": "a", "refresh_token": "r", "token_type": said}, provider=provider)
    assert (answer.token_type, answer.refresh_token) == (kept, Secret("r"))


def test_an_error_code_beside_a_token_loses_no_token() -> None:
    """Okta names refusals so; elsewhere it may stand in every answer."""
    answer = granted({"access_token": "a", "refresh_token": "r", "errorCode": "0"}, provider="oidc")
    assert (answer.access_token, answer.refresh_token) == (Secret("a"), Secret("r"))


def test_an_empty_scope_grants_nothing_but_where_the_provider_means_what_was_asked() -> None:
    assert granted({"access_token": "a", "scope": ""}, provider="oidc").scopes == ()
    assert granted({"access_token": "a", "scope": []}, provider="linear").scopes == ()
    assert granted({"access_token": "a", "scope": ""}, provider="github").scopes == ("asked",)


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
        ({"errorCode": "invalid_client", "errorSummary": "Invalid value for 'client_id' parameter."}, 401, "oidc"),
        (b"", 401, "oidc"),
        (b"<html>who are you?</html>", 401, "oidc"),
        ({"message": "no"}, 401, "github"),
    ],
)
def test_a_client_at_fault_is_the_operators(body: Any, status: int, provider: str) -> None:
    assert isinstance(meaning(body, status, provider=provider), ClientRefused)


@pytest.mark.parametrize(
    ("code", "person"),
    [
        ("interaction_required", True),
        ("login_required", True),
        ("consent_required", True),
        ("invalid_scope", False),
        ("invalid_target", False),
        ("access_denied", False),
    ],
)
def test_what_is_withheld_until_somebody_acts_ends_no_grant(code: str, person: bool) -> None:
    assert meaning({"error": code}, 400, provider="oidc") == Withheld(code=code, person=person)


WHATEVER = [{"error": "invalid_grant"}, b"<html>busy</html>", b"", {"access_token": "a"}]


@pytest.mark.parametrize("status", [408, 500, 501, 502, 503, 505, 520, 599])
@pytest.mark.parametrize("body", WHATEVER, ids=str)
def test_a_busy_status_is_transient_whatever_the_body(status: int, body: Any) -> None:
    outcome = meaning(body, status)
    assert isinstance(outcome, Transient)
    assert outcome.recognised
    assert outcome.sent


@pytest.mark.parametrize("status", [504, 524])
@pytest.mark.parametrize("body", WHATEVER, ids=str)
def test_a_gateway_that_waited_in_vain_knows_no_more_than_we(status: int, body: Any) -> None:
    assert isinstance(meaning(body, status), Unknown)


@pytest.mark.parametrize("body", WHATEVER, ids=str)
def test_too_many_requests_are_no_word_about_the_grant(body: Any) -> None:
    assert meaning(body, 429, retry_after="30") == RateLimited(reason="status 429", retry_after=timedelta(seconds=30))


@pytest.mark.parametrize(
    ("body", "status", "provider"),
    [
        ({"ok": False, "error": "ratelimited"}, 200, "slack"),
        ({"errors": [{"extensions": {"code": "RATELIMITED"}}]}, 400, "linear"),
        ({"error": "slow_down"}, 400, "github"),
        ({"error": "rate_limited"}, 400, "linear"),
        ({"error": "Rate_Limit_Exceeded"}, 403, "linear"),
    ],
)
def test_a_limit_may_come_as_a_code(body: Any, status: int, provider: str) -> None:
    assert isinstance(meaning(body, status, provider=provider), RateLimited)


def test_githubs_limit_comes_as_a_403_that_says_when_it_ends() -> None:
    resets = str(int(START.timestamp()) + 90)
    outcome = meaning({"message": "API rate limit exceeded"}, 403, x_ratelimit_remaining="0", x_ratelimit_reset=resets)
    assert outcome == RateLimited(reason="status 403", retry_after=timedelta(seconds=90))
    assert isinstance(meaning({"message": "no"}, 403, x_ratelimit_remaining="17"), Transient)


def test_what_was_certainly_not_sent_may_be_presented_again() -> None:
    outcome = read(NotSent(reason="127.0.0.1: connection refused"))
    assert isinstance(outcome, Transient)
    assert not outcome.sent
    assert "refused" in outcome.reason


@pytest.mark.parametrize("provider", PROFILES)
def test_what_may_have_been_sent_is_unknown(provider: str) -> None:
    assert read(NoAnswer(reason="timed out"), provider=provider) == Unknown(reason="timed out")


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
    outcome = meaning({}, 503, retry_after=value)
    assert isinstance(outcome, Transient)
    assert outcome.retry_after == wait


def test_a_limit_that_says_no_time_is_left_alone_for_longer_than_a_fault() -> None:
    limited, fault = meaning({}, 429), meaning({}, 503)
    assert isinstance(limited, RateLimited)
    assert isinstance(fault, Transient)
    assert limited.retry_after > fault.retry_after


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
        ({}, 302, "github"),
    ],
)
def test_an_unknown_refusal_is_never_fatal(body: Any, status: int, provider: str) -> None:
    outcome = meaning(body, status, provider=provider)
    assert isinstance(outcome, Transient)
    assert not outcome.recognised


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
    assert isinstance(meaning(body), Unknown)


@pytest.mark.parametrize("body", [b"access_token=ghu_1&refresh_tok", b"access_token=ghu_1", b"access_token="])
def test_a_form_that_may_have_been_cut_holds_no_token(body: bytes) -> None:
    assert isinstance(meaning(body), Unknown)


def test_a_byte_order_mark_is_no_fault() -> None:
    assert granted(b'\xef\xbb\xbf{"access_token": "a"}').access_token == Secret("a")


WHOLE = {"access_token": "ghu_1", "expires_in": "28800", "refresh_token": "ghr_1", "scope": "", "token_type": "bearer"}


@pytest.mark.parametrize("body", [json.dumps(WHOLE).encode(), urlencode(WHOLE).encode()], ids=["json", "form"])
@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_cut_anywhere_gives_whole_tokens_or_none_and_kills_nothing(body: bytes, status: int) -> None:
    for end in range(len(body)):
        outcome = meaning(body[:end], status)
        if isinstance(outcome, Granted):
            assert outcome.answer.access_token == Secret("ghu_1")
            assert outcome.answer.refresh_token == Secret("ghr_1")
        assert isinstance(outcome, Granted | Unknown if status == 200 else Transient), body[:end]


@pytest.mark.parametrize("cut", range(1, 25))
def test_a_refusal_cut_in_the_middle_kills_nothing(cut: int) -> None:
    whole = b'{"error": "invalid_grant"}'
    assert isinstance(meaning(whole[:-cut], 400), Transient)


@pytest.mark.parametrize("ahead", [timedelta(hours=-1), timedelta(0), timedelta(hours=1), timedelta(days=400)], ids=str)
def test_a_moment_is_read_by_the_clock_that_named_it(ahead: timedelta) -> None:
    theirs = START + ahead
    body = {"access_token": "a", "expires_at": (theirs + HOUR).isoformat()}
    assert granted(body, date=format_datetime(theirs, usegmt=True)).expires_at == START + HOUR - SECOND


_headers = st.dictionaries(st.sampled_from(["date", "retry-after", "x-ratelimit-reset"]), st.text(max_size=40))
_answers = st.builds(
    Answer,
    status=st.integers(100, 599),
    headers=_headers,
    body=st.binary(max_size=200)
    | st.builds(json.dumps, st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)).map(str.encode),
    elapsed=st.just(timedelta()),
)
_outcomes = (
    _answers | st.builds(NotSent, reason=st.text(max_size=20)) | st.builds(NoAnswer, reason=st.text(max_size=20))
)


@given(_outcomes, st.sampled_from(sorted(PROFILES)))
@example(
    Answer(status=429, headers={"retry-after": "Tue, 24 Nov 2026 12:02:00 +9999"}, body=b"", elapsed=HOUR), "slack"
)
@example(Answer(status=429, headers={"retry-after": "\u0663"}, body=b"", elapsed=HOUR), "slack")
@example(Answer(status=429, headers={"retry-after": FAR_YEAR}, body=b"", elapsed=HOUR), "slack")
@example(Answer(status=200, headers={"date": FAR_ZONE}, body=b'{"access_token": "a"}', elapsed=HOUR), "github")
@example(Answer(status=200, headers={"date": LAST_SECOND}, body=b'{"access_token": "a"}', elapsed=HOUR), "github")
def test_every_outcome_has_a_meaning(outcome: Outcome, provider: str) -> None:
    found = read(outcome, provider=provider)
    if isinstance(found, Transient | RateLimited):
        assert timedelta(seconds=1) <= found.retry_after <= HOUR


@given(st.integers(300, 599), st.sampled_from(sorted(PROFILES)), st.text(max_size=12))
def test_only_a_success_grants_and_only_a_known_code_kills(status: int, provider: str, code: str) -> None:
    body = {"access_token": "a", "refresh_token": "r"} | ({"error": code} if code else {})
    found = meaning(body, status, provider=provider)
    assert not isinstance(found, Granted)
    if isinstance(found, Dead):
        assert code in PROFILES[provider].dead_codes | {"invalid_grant"}


_leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_names = st.sampled_from(
    ["access_token", "refresh_token", "expires_in", "expires_at", "scope", "token_type", "error", "ok"]
)


@given(
    st.sampled_from([200, 201, 400, 401]),
    st.dictionaries(
        _names, _leaf | st.lists(_leaf, max_size=2) | st.dictionaries(_names, _leaf, max_size=2), max_size=5
    ),
)
@example(200, {"access_token": "a", "expires_in": 1e-10})
@example(200, {"access_token": "a", "token_type": "\ud800", "scope": ["\ud800"]})
@example(200, {"access_token": "a", "token_type": "\x00", "scope": "a\x00"})
def test_no_json_makes_it_raise_or_grants_without_a_token(status: int, document: dict[str, Any]) -> None:
    outcome = meaning(document, status)
    if isinstance(outcome, Granted):
        assert outcome.answer.access_token.reveal() == document["access_token"]
        assert outcome.answer.expires_at is None or outcome.answer.expires_at > START
        assert all(kept.isprintable() for kept in (outcome.answer.token_type, *outcome.answer.scopes))  # a ledger can


def test_no_secret_is_in_a_repr() -> None:
    answer = Answer(status=200, headers={}, body=b'{"access_token": "canary"}', elapsed=timedelta())
    assert "canary" not in repr(answer)
    assert "canary" not in repr(granted({"access_token": "canary"}))
