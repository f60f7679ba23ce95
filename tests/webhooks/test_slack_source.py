"""Slack's requests, read without a server."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.secret import Secret
from pipeline.deliveries.intake import ACCEPT_WITHIN
from pipeline.signal import Asks, Bots, People, Workspaces
from tests.servers import shared_data
from tests.webhooks import published
from tests.webhooks.disfigured import TEXTS, assert_sound, bodies
from tests.webhooks.flips import some_flips
from tests.webhooks.parts import FORM, JSON, NOW, SECRET, fault_of, lower, slack_headers
from webhooks.sources.document import Malformed
from webhooks.sources.reading import Challenge, Fault, Reading, Received, Refusal
from webhooks.sources.slack import read, reread

KEYS = (Secret(SECRET),)
BODY = b'{"type":"event_callback","team_id":"T1","event_id":"Ev1","event":{"type":"app_mention"}}'


def _read(body: bytes, *, content_type: str = JSON, at: datetime = NOW) -> Reading:
    return read(lower(slack_headers(body, at=at), content_type=content_type), body, KEYS, NOW)


def _received(body: bytes, *, content_type: str = JSON) -> Received:
    reading = _read(body, content_type=content_type)
    assert isinstance(reading, Received)
    return reading


def test_the_documented_signature_is_accepted_at_its_time_only() -> None:
    vector = published.vectors()["slack"]
    headers = lower(vector["headers"], content_type=FORM)
    keys = (Secret(vector["secret"]),)
    then = datetime.fromtimestamp(vector["clock"], UTC)
    reading = read(headers, vector["body"].encode(), keys, then)
    assert isinstance(reading, Received)
    assert (reading.event, reading.installation) == ("command", "T1DC2JH3J")
    assert reading.document["command"] == "/webhook-collect"
    assert reading.delivery_id == "398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    assert fault_of(read(headers, vector["body"].encode(), keys, NOW)) is Fault.STALE


def _agrees(reading: Received, body: bytes) -> bool:
    """True if the body, stored by a version that could not read it, is read as on arrival."""
    again = reread("unreadable", reading.delivery_id, body)
    return isinstance(again, Received) and replace(again, telling=None) == replace(reading, telling=None)


@pytest.mark.parametrize("path", published.slack(), ids=lambda path: path.name)
def test_every_published_request_is_received_and_none_is_with_a_byte_lost_or_a_bit_flipped(path: Path) -> None:
    body, content_type = published.as_slack_sends(path)
    reading = _read(body, content_type=content_type)
    if path.name.startswith("url_verification"):
        assert isinstance(reading, Challenge)
    else:
        assert isinstance(reading, Received)
        named = "slash_command" if reading.event == "command" else reading.event
        assert path.name.startswith((named, f"event_callback.{named}"))
        assert reading.answered_with_nothing is (content_type == FORM and reading.event != "command")
        assert _agrees(reading, body)
        assert reading.installation
        assert not reading.dedupe_by_body
    headers = lower(slack_headers(body), content_type=content_type)
    for other in (body[:-1], *some_flips(body)):
        assert fault_of(read(headers, other, KEYS, NOW)) is Fault.SIGNATURE


EVENT = {"type": "event_callback", "team_id": "T1", "enterprise_id": "E1", "event_id": "Ev1", "event_time": 1599616881}
PRESSED = {"action_id": "aswhom.deny", "value": f"apr_0123456789abcdef:{'a' * 64}"}
FORESEEN: list[dict[str, Any]] = [
    {**EVENT, "authorizations": [{"is_enterprise_install": True}], "event": {"type": "app_uninstalled"}},
    {**EVENT, "event": {"type": "tokens_revoked", "tokens": {"oauth": ["U1"], "bot": ["B1"]}}},
    {**EVENT, "event": {"type": "team_access_revoked", "team_ids": ["T7"]}},
    {"type": "block_actions", "trigger_id": "1.2.c", "team": {"id": "T1"}, "user": {"id": "U7"}, "actions": [PRESSED]},
    {"type": "url_verification", "challenge": "3eZbrw1a"},
]


@given(body=bodies(*FORESEEN), stamp=st.integers(-400, 400), content_type=st.sampled_from([JSON, FORM]) | TEXTS)
def test_whatever_is_signed_is_a_delivery_with_its_id_or_refused(body: str, stamp: int, content_type: str) -> None:
    for signed in (body.encode(), urlencode({"payload": body}).encode()):
        headers = slack_headers(signed, at=NOW + timedelta(seconds=stamp))
        assert_sound(read(lower(headers, content_type=content_type), signed, KEYS, NOW))


def test_five_minutes_are_tolerated_either_way_and_more_asks_about_the_clock() -> None:
    for away in (timedelta(seconds=300), timedelta(seconds=-300)):
        assert isinstance(_read(BODY, at=NOW + away), Received)
    for away, word in ((timedelta(seconds=301), "future"), (timedelta(seconds=-301), "past")):
        reading = _read(BODY, at=NOW + away)
        assert isinstance(reading, Refusal)
        assert reading.fault is Fault.STALE
        assert word in reading.detail
        assert "clock skew" in reading.detail


def test_who_did_not_sign_learns_nothing_about_the_clock() -> None:
    headers = lower(slack_headers(BODY, secret="guess", at=NOW - timedelta(days=1)))
    reading = read(headers, BODY, KEYS, NOW)
    assert isinstance(reading, Refusal)
    assert "clock" not in reading.detail


def test_a_challenge_is_answered_only_if_it_is_signed() -> None:
    body = b'{"type":"url_verification","challenge":"3eZbrw1a","token":"x"}'
    assert _read(body) == Challenge(answer="3eZbrw1a")
    assert fault_of(read(lower(slack_headers(body, secret="guess")), body, KEYS, NOW)) is Fault.SIGNATURE
    assert _received(b'{"type":"url_verification"}').unrecognised


def test_a_check_of_the_certificate_is_answered_and_is_no_command() -> None:
    assert _read(b"ssl_check=1&token=x", content_type=FORM) == Challenge(answer=None)
    assert _received(b"token=x&team_id=T1", content_type=FORM).unrecognised


def test_a_press_of_a_button_is_known_by_its_trigger_and_belongs_to_its_workspace_or_organization() -> None:
    for team, where in (({"id": "T7"}, "T7"), (None, "E7")):
        pressed = {"type": "block_actions", "trigger_id": "13.37.x", "team": team, "enterprise": {"id": "E7"}}
        body = urlencode({"payload": json.dumps(pressed)}).encode()
        reading = _received(body, content_type=FORM)
        assert (reading.event, reading.delivery_id, reading.installation) == ("block_actions", "13.37.x", where)


def _where(body: bytes, content_type: str = JSON) -> tuple[str | None, str | None]:
    reading = _received(body, content_type=content_type)
    assert _agrees(reading, body), "a replay finds the same"
    return reading.installation, reading.workspace


def test_in_a_shared_channel_it_is_the_installations_and_never_the_workspaces_of_whoever_wrote() -> None:
    shared_data.folder()  # or nothing to read
    outer = {path.name: json.loads(path.read_bytes()) for path in published.slack() if "event_callback" in path.name}
    of_others = [name for name, body in outer.items() if body["team_id"] == "T_SOURCE"]
    assert len(of_others) == 6
    found = {path.name: published.as_slack_sends(path) for path in published.slack()}
    for name in of_others:
        assert _where(*found[name]) == ("T_INSTALLED", None)
    assert _where(*found["event_callback.member_left_channel.3.json"]) == ("E333", None), "T222 is a stranger's"
    assert _where(*found["view_submission.3.json"]) == ("T-installed-workspace", None)
    said = {**EVENT, "team_id": "T_BETA", "event": {"type": "app_mention"}}
    ours = {"team_id": "T_ACME", "enterprise_id": None, "is_enterprise_install": False}
    assert _where(json.dumps({**said, "authorizations": [ours]}).encode()) == ("T_ACME", None)
    empty: list[Any] = [{}, 7]
    for nowhere in empty:
        assert _where(json.dumps({**said, "authorizations": [nowhere]}).encode()) == (None, None)
    assert _where(json.dumps({**said, "authorizations": []}).encode()) == ("T_BETA", None)


def test_a_press_is_of_the_workspace_whose_message_it_is_and_not_of_whoever_pressed() -> None:
    def where(**more: Any) -> tuple[str | None, str | None]:
        pressed = {"type": "block_actions", "team": {"id": "T_BETA"}, "message": {"team": "T_ACME"}, **more}
        return _where(urlencode({"payload": json.dumps(pressed)}).encode(), FORM)

    assert where() == ("T_ACME", None)
    assert where(message={"ts": "1.2"}) == ("T_BETA", None)
    assert where(type="message_action") == ("T_BETA", None), "the message is anybody's"
    of_all = {"enterprise": {"id": "E1"}, "is_enterprise_install": True}
    assert where(**of_all) == ("E1", "T_BETA"), "one of the organization's, or it would not have the app"


def test_an_app_of_a_whole_organization_is_the_organizations_before_it_is_its_workspaces() -> None:
    shared_data.folder()
    found = {path.name: published.as_slack_sends(path) for path in published.slack()}
    for kind in ("app_mention.3", "app_mention.5", "message.1", "app_home_opened.1"):
        assert _where(*found[f"event_callback.{kind}.json"]) == ("E111", "T111")
    team = {"id": "T1", "enterprise_id": "E1"}
    for named in ({"team": team}, {"team": team, "enterprise": {"id": "E1"}}):
        pressed = {"type": "block_actions", **named, "is_enterprise_install": True}
        assert _where(urlencode({"payload": json.dumps(pressed)}).encode(), FORM) == ("E1", "T1")
    nowhere = {"type": "block_actions", "team": None, "enterprise": {"id": "E1"}, "is_enterprise_install": True}
    assert _where(urlencode({"payload": json.dumps(nowhere)}).encode(), FORM) == ("E1", None)
    command = {"token": "x", "team_id": "T1", "enterprise_id": "E1", "command": "/aswhom"}
    assert _where(urlencode({**command, "is_enterprise_install": "true"}).encode(), FORM) == ("E1", "T1")
    assert _where(urlencode({**command, "is_enterprise_install": "false"}).encode(), FORM) == ("T1", None)


def test_a_signed_event_is_no_press_of_a_button_because_a_header_that_nobody_signed_says_so() -> None:
    """What anybody writes in a channel holds a field of a form, whose payload is an approver's yes."""
    pressed = json.dumps({"type": "block_actions", "team": {"id": "T1"}, "user": {"id": "U7"}, "actions": [PRESSED]})
    said = {"type": "app_mention", "text": f"a=b&{urlencode({'payload': pressed})}&c="}
    body = json.dumps({**EVENT, "event": said}).encode()
    assert _received(body).event == "app_mention"
    assert fault_of(_read(body, content_type=FORM)) is Fault.MALFORMED
    form = urlencode({"payload": pressed}).encode()
    assert _received(form, content_type=FORM).answer is not None
    assert fault_of(_read(form)) is Fault.MALFORMED


def test_a_command_is_known_by_whichever_of_its_fields_comes_first() -> None:
    for first in ("token", "team_id", "command"):
        fields = {first: "", "token": "x", "team_id": "T1", "command": "/aswhom", "text": "payload={}", "user_id": "U7"}
        fields[first] = {"token": "x", "team_id": "T1", "command": "/aswhom"}[first]
        body = urlencode(fields).encode()
        reading = _received(body, content_type=FORM)
        assert (reading.event, reading.document) == ("command", fields)
        assert _agrees(reading, body)


def test_a_retry_is_the_same_delivery_and_is_not_dropped() -> None:
    first = _received(BODY)
    later = NOW + timedelta(seconds=60)
    headers = lower({**slack_headers(BODY, at=later), "X-Slack-Retry-Num": "1", "X-Slack-Retry-Reason": "http_timeout"})
    retry = read(headers, BODY, KEYS, later)
    assert retry == first
    assert first.delivery_id == "Ev1"


def test_that_slack_left_out_events_is_noticed_and_no_form_says_so() -> None:
    body = b'{"type":"app_rate_limited","team_id":"T1","minute_rate_limited":1518467820}'
    reading = _received(body)
    assert (reading.withheld, reading.event, reading.installation) == (True, "app_rate_limited", "T1")
    assert "never come" in reading.note
    assert not _received(urlencode({"payload": body.decode()}).encode(), content_type=FORM).withheld
    assert not _received(BODY).withheld


def test_a_request_without_an_id_is_known_by_what_was_signed() -> None:
    body = b'{"type":"app_rate_limited","team_id":"T1","minute_rate_limited":1518467820}'
    assert _received(body).delivery_id == _received(body).delivery_id
    later = NOW + timedelta(seconds=60)
    again = read(lower(slack_headers(body, at=later)), body, KEYS, later)
    assert isinstance(again, Received)
    assert again.delivery_id != _received(body).delivery_id


def _event(event: dict[str, object], **more: object) -> Received:
    document = {"type": "event_callback", "event_id": "Ev2", "team_id": "T1", "event_time": 1599616881, "event": event}
    return _received(json.dumps(document | more).encode())


def test_what_the_published_events_say_of_authority() -> None:
    shared_data.folder()  # or nothing to read
    signals = {
        path.name: _received(path.read_bytes()).signal for path in published.slack() if "event_callback" in path.name
    }
    names = {name.split(".")[1] for name, signal in signals.items() if signal}
    assert names == {"tokens_revoked", "app_uninstalled"}
    for name, signal in signals.items():
        if signal is None:
            continue
        # Those of the first kind have no `authorizations`: it may have been the organization's.
        where, within = ("T111", "E111") if ".1." in name else ("T_INSTALLED", None)
        people = frozenset({"UXXXXXXXX"})
        there: dict[str, Any] = {"workspaces": frozenset({where}), "within": within}
        tokens = (People(ids=people, **there), Bots(ids=people, **there))
        assert signal.whom == (tokens if "tokens" in name else (Workspaces(ids=frozenset({where}), within=within),))
        assert (signal.asks, signal.happened_at) == (Asks.REVOKE, datetime.fromtimestamp(1599616881, UTC))


def test_revoked_tokens_mean_those_who_are_named_and_nobody_else() -> None:
    only = _event({"type": "tokens_revoked", "tokens": {"oauth": ["U1", "U2"]}}).signal
    assert only is not None
    assert only.whom == (People(ids=frozenset({"U1", "U2"}), workspaces=frozenset({"T1"})),)
    bots = _event({"type": "tokens_revoked", "tokens": {"oauth": [], "bot": ["B1"]}}).signal
    assert bots is not None
    assert bots.whom == (Bots(workspaces=frozenset({"T1"}), ids=frozenset({"B1"})),)


def test_an_app_of_the_whole_organization_is_uninstalled_from_all_of_it() -> None:
    wide = [{"enterprise_id": "E1", "team_id": "T1", "user_id": "W1", "is_bot": True, "is_enterprise_install": True}]
    by_itself = [{**wide[0], "is_enterprise_install": False}]
    cases: list[tuple[dict[str, Any], set[str], str | None]] = [
        ({"authorizations": wide}, {"T1", "E1"}, None),
        ({"is_enterprise_install": True}, {"T1", "E1"}, None),
        ({"team_id": None}, {"E1"}, None),
        ({}, {"T1"}, "E1"),  # as published: it may have been either
        ({"authorizations": by_itself}, {"T1"}, None),
        ({"is_enterprise_install": False}, {"T1"}, None),
    ]
    for more, where, within in cases:
        events: list[dict[str, object]] = [
            {"type": "app_uninstalled"},
            {"type": "tokens_revoked", "tokens": {"bot": ["B1"]}},
        ]
        for event in events:
            signal = _event(event, enterprise_id="E1", **more).signal
            assert signal is not None
            (whom,) = signal.whom
            bots = Bots(workspaces=frozenset(where), ids=frozenset({"B1"}), within=within)
            assert whom == (bots if "tokens" in event else Workspaces(ids=frozenset(where), within=within))
    taken = _event({"type": "team_access_revoked", "team_ids": ["T7", "T8"]}, team_id=None, enterprise_id="E1").signal
    assert taken is not None
    assert taken.whom == (Workspaces(ids=frozenset({"T7", "T8"})),)


@pytest.mark.parametrize(
    ("event", "more"),
    [
        ({"type": "tokens_revoked"}, {}),
        ({"type": "tokens_revoked", "tokens": {}}, {}),
        ({"type": "tokens_revoked", "tokens": {"oauth": "U1"}}, {}),
        ({"type": "tokens_revoked", "tokens": {"oauth": [7]}}, {}),
        ({"type": "tokens_revoked", "tokens": {"oauth": ["U1"]}}, {"event_time": None}),
        ({"type": "tokens_revoked", "tokens": {"bot": ["B1"]}}, {"team_id": None}),
        ({"type": "app_uninstalled"}, {"team_id": ""}),
        ({"type": "app_uninstalled"}, {"event_time": 1 << 39}),
        ({"type": "app_uninstalled"}, {"team_id": "T\x001"}),
        ({"type": "team_access_revoked"}, {}),
    ],
)
def test_a_revocation_of_another_shape_is_unrecognised(event: dict[str, object], more: dict[str, object]) -> None:
    reading = _event(event, **more)
    assert reading.signal is None
    assert reading.unrecognised


@pytest.mark.parametrize(
    "body", [b"{}", b'{"type":7}', b'{"type":"event_callback"}', b'{"type":"a b"}', b"[]", b"\xff", b'{"a":1,"a":2}']
)
def test_what_has_no_type_is_kept_and_not_recognised(body: bytes) -> None:
    reading = _received(body)
    assert (reading.event, reading.signal, reading.answer) == ("unreadable", None, None)
    assert reading.unrecognised
    assert fault_of(_read(body, content_type=FORM)) is Fault.MALFORMED, "that header is not signed"


def test_what_cannot_be_read_is_still_its_workspaces() -> None:
    body = json.dumps({**EVENT, "event": {"type": "of another shape"}}).encode()
    reading = _received(body)
    assert (reading.installation, reading.document) == ("T1", json.loads(body))
    with pytest.raises(Malformed):
        reread(reading.event, reading.delivery_id, body)
    form = _received(b"payload=%7B%7D", content_type=FORM)
    assert form.answered_with_nothing, "Slack would show it to the person"


def test_a_button_of_an_approval_is_an_answer_and_one_that_cannot_be_read_is_looked_at() -> None:
    value = f"apr_0123456789abcdef:{'a' * 64}"
    button = {"type": "button", "action_id": "aswhom.deny", "value": value}
    payload: dict[str, Any] = {
        "type": "block_actions",
        "trigger_id": "1.2.c",
        "team": {"id": "T1"},
        "user": {"id": "U7"},
    }

    def read_one(*actions: object, **more: object) -> Received:
        body = urlencode({"payload": json.dumps({**payload, "actions": list(actions), **more})}).encode()
        return _received(body, content_type=FORM)

    answer = read_one(button).answer
    assert answer is not None
    assert (answer.user, answer.approval, answer.yes) == ("U7", "apr_0123456789abcdef", False)
    assert read_one({**button, "action_id": "aswhom.approve"}).answer == replace(answer, yes=True)
    others = read_one({**button, "action_id": "vote"})
    assert (others.answer, others.unrecognised) == (None, "")
    for wrong in (read_one({**button, "value": "x"}), read_one(button, button), read_one(button, user={})):
        assert wrong.answer is None
        assert "button of an approval" in wrong.unrecognised


def test_a_command_is_refused_before_slack_gives_up_on_it() -> None:
    """Slack waits 3 s. That nothing is stored after it is held by the system, in `tests/faults/test_lateness.py`."""
    assert ACCEPT_WITHIN.total_seconds() <= 2.5
