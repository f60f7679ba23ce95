"""Linear's webhooks, read without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLObjectType, GraphQLSchema
from hypothesis import given
from hypothesis import strategies as st

from identity.connections.lateness import MOST, TRIES_FOR
from identity.errors import Misconfigured
from identity.secret import Secret
from pipeline.deliveries.duplicates import BODY_WINDOW
from pipeline.signal import Asks, People, Workspaces
from tests.webhooks import published
from tests.webhooks.disfigured import TEXTS, assert_sound, bodies
from tests.webhooks.flips import flips
from tests.webhooks.parts import NOW, SECRET, fault_of, linear_headers, lower
from webhooks.sources.linear import SOURCE, TOLERANCE, read
from webhooks.sources.reading import Fault, Reading, Received, Refusal

KEYS = (Secret(SECRET),)
ORGANIZATION = "3f2a4c5e-1c47-4a43-8a43-0c3b9d8f6a22"


def stamped(at: datetime = NOW, **fields: Any) -> bytes:
    """A body that Linear sent at that time."""
    sent = {"createdAt": at.isoformat(timespec="milliseconds"), "webhookTimestamp": int(at.timestamp() * 1000)}
    return json.dumps({"action": "create", "type": "Comment", **sent, **fields}).encode()


BODY = stamped(organizationId=ORGANIZATION)
REMOVED: dict[str, Any] = {
    "action": "revoked",
    "type": "OAuthApp",
    "oauthClientId": "app",
    "organizationId": ORGANIZATION,
}


def _read(body: bytes, *, now: datetime = NOW) -> Reading:
    return read(lower(linear_headers(body)), body, KEYS, now)


def _received(body: bytes, *, now: datetime = NOW) -> Received:
    reading = _read(body, now=now)
    assert isinstance(reading, Received), reading
    return reading


def test_the_recomputed_vector_is_accepted_at_its_time_only() -> None:
    vector = published.vectors()["linear"]
    body, keys = vector["body"].encode(), (Secret(vector["secret"]),)
    headers = lower({**linear_headers(b""), **vector["headers"]})
    then = datetime.fromtimestamp(vector["clock_ms"] / 1000, UTC)
    assert isinstance(read(headers, body, keys, then), Received)
    assert fault_of(read(headers, body, keys, then + timedelta(days=1))) is Fault.STALE
    assert fault_of(read(headers, body, KEYS, then)) is Fault.SIGNATURE


@pytest.mark.parametrize("path", published.linear(), ids=lambda path: path.name)
def test_every_published_payload_is_received_and_none_is_with_a_byte_lost_or_a_bit_flipped(path: Path) -> None:
    body = path.read_bytes()
    document = json.loads(body)
    then = datetime.fromtimestamp(document["webhookTimestamp"] / 1000, UTC)
    reading = _received(body, now=then)
    assert (reading.event, reading.document, reading.unrecognised) == (document["type"], document, "")
    for other in (body[:-1], *flips(body)):
        assert fault_of(read(lower(linear_headers(body)), other, KEYS, then)) is Fault.SIGNATURE


FORESEEN: list[dict[str, Any]] = [
    json.loads(stamped(**REMOVED)),
    json.loads(stamped(**{**REMOVED, "type": "OAuthAuthorization", "userId": "u-1", "activeTokensForUser": 0})),
    json.loads(stamped(**{**REMOVED, "type": "PermissionChange", "action": "teamAccessChanged", "removedTeamIds": []})),
]


@given(body=bodies(*FORESEEN), delivery=TEXTS | st.just("d-1"))
def test_whatever_is_signed_is_a_delivery_with_its_id_or_refused(body: str, delivery: str) -> None:
    signed = body.encode()
    assert_sound(read(lower(linear_headers(signed, delivery=delivery)), signed, KEYS, NOW))


@pytest.mark.parametrize("after", [timedelta(minutes=1), timedelta(hours=1, minutes=1), timedelta(hours=7, minutes=1)])
def test_each_of_linears_retries_is_taken_and_known_by_its_body(after: timedelta) -> None:
    # It keeps the bytes, and with them the time of the first try.
    reading = _received(BODY, now=NOW + after)
    assert reading.dedupe_by_body
    assert reading.signal is None


def test_eight_hours_late_or_a_minute_ahead_is_tolerated_and_more_asks_about_the_clock() -> None:
    for away in (timedelta(hours=8), timedelta(seconds=-60)):
        assert isinstance(_read(BODY, now=NOW + away), Received)
    for away, word in ((timedelta(hours=8, seconds=1), "past"), (timedelta(seconds=-61), "future")):
        reading = _read(BODY, now=NOW + away)
        assert isinstance(reading, Refusal)
        assert reading.fault is Fault.STALE
        assert word in reading.detail
        assert "clock skew" in reading.detail


@pytest.mark.parametrize("stamp", [None, "1768467600000", True, 0, -1, 1 << 60])
def test_without_its_time_nothing_is_taken_and_a_header_does_not_replace_it(stamp: object) -> None:
    body = json.dumps({"action": "create", "type": "Comment", "webhookTimestamp": stamp}).encode()
    headers = lower({**linear_headers(body), "Linear-Timestamp": str(int(NOW.timestamp() * 1000))})
    reading = read(headers, body, KEYS, NOW)
    assert fault_of(reading) is Fault.MALFORMED


@pytest.mark.parametrize(("hours", "late"), [("0", TOLERANCE), ("71", timedelta(hours=71))])
def test_how_late_a_delivery_may_come_is_the_connections(hours: str, late: timedelta) -> None:
    source, headers = SOURCE.of({"late_hours": hours}), lower(linear_headers(BODY))
    assert isinstance(source.read(headers, BODY, KEYS, NOW + late), Received)
    assert fault_of(source.read(headers, BODY, KEYS, NOW + late + timedelta(seconds=1))) is Fault.STALE
    assert fault_of(source.read(headers, BODY, KEYS, NOW - timedelta(seconds=61))) is Fault.STALE


def test_no_delivery_may_come_later_than_its_body_is_remembered() -> None:
    # First seen as early as a clock that is behind allows, it is a replay for as long as it is taken at all.
    assert MOST + TOLERANCE < BODY_WINDOW
    assert max(TRIES_FOR.values()) <= MOST
    with pytest.raises(Misconfigured, match="from 0 to 71"):
        SOURCE.of({"late_hours": "72"})


def test_a_late_revocation_is_taken_and_a_late_comment_is_not() -> None:
    later = NOW + timedelta(days=30)
    assert _received(stamped(**REMOVED), now=later).signal is not None
    assert fault_of(_read(BODY, now=later)) is Fault.STALE
    assert fault_of(_read(stamped(**REMOVED), now=NOW - timedelta(hours=1))) is Fault.STALE


def test_the_type_is_the_bodys_the_organization_too_and_bodies_are_deduplicated() -> None:
    reading = read(lower({**linear_headers(BODY), "Linear-Event": "OAuthApp"}), BODY, KEYS, NOW)
    assert isinstance(reading, Received)
    assert (reading.event, reading.installation, reading.dedupe_by_body) == ("Comment", ORGANIZATION, True)


@pytest.mark.parametrize("delivery", ["", "a b", "x" * 201, "é"])
def test_a_delivery_without_its_id_is_malformed(delivery: str) -> None:
    assert fault_of(read(lower(linear_headers(BODY, delivery=delivery)), BODY, KEYS, NOW)) is Fault.MALFORMED


@pytest.mark.parametrize("body", [b"{}", b"[]", b"\xff", b"", b'{"type":7,"webhookTimestamp":1}'])
def test_what_has_no_type_is_malformed(body: bytes) -> None:
    assert fault_of(_read(body)) is Fault.MALFORMED


def test_an_app_that_is_removed_means_its_workspace_and_its_own_client() -> None:
    signal = _received(stamped(**REMOVED)).signal
    assert signal is not None
    assert (signal.asks, signal.whom) == (Asks.REVOKE, (Workspaces(ids=frozenset({ORGANIZATION})),))
    assert (signal.client, signal.happened_at) == ("app", NOW)


def test_a_user_without_an_active_token_is_meant_alone() -> None:
    told = {**REMOVED, "type": "OAuthAuthorization", "userId": "u-1"}
    signal = _received(stamped(**told, activeTokensForUser=0)).signal
    assert signal is not None
    assert (signal.asks, signal.whom) == (Asks.REVOKE, (People(ids=frozenset({"u-1"})),))
    assert _received(stamped(**told, activeTokensForUser=1)).signal is None
    assert _received(stamped(**told)).unrecognised


def test_changed_access_to_teams_is_noted() -> None:
    told = {**REMOVED, "type": "PermissionChange", "action": "teamAccessChanged", "removedTeamIds": ["t-1"]}
    signal = _received(stamped(**told)).signal
    assert signal is not None
    assert signal.asks is Asks.NOTE
    assert "1 taken" in signal.reason


@pytest.mark.parametrize("field", ["oauthClientId", "organizationId", "createdAt"])
def test_a_revocation_of_another_shape_is_unrecognised(field: str) -> None:
    for value in (None, 7, "", "\ud83d"):
        reading = _received(stamped(**{**REMOVED, field: value}))
        assert reading.signal is None
        assert reading.unrecognised


def test_a_time_that_is_no_date_in_utc_is_no_time() -> None:
    assert _received(stamped(**{**REMOVED, "createdAt": "0001-01-01T00:00:00+23:59"})).unrecognised


@pytest.mark.parametrize(
    ("payload", "used"),
    [
        ("OAuthAppWebhookPayload", {"oauthClientId", "organizationId", "createdAt"}),
        ("OAuthAuthorizationWebhookPayload", {"oauthClientId", "organizationId", "userId", "activeTokensForUser"}),
        ("AppUserTeamAccessChangedWebhookPayload", {"oauthClientId", "organizationId", "removedTeamIds"}),
    ],
)
def test_what_is_read_of_a_payload_is_in_the_published_schema(
    linear_schema: GraphQLSchema, payload: str, used: set[str]
) -> None:
    described = linear_schema.type_map[payload]
    assert isinstance(described, GraphQLObjectType)
    assert {*used, "webhookTimestamp", "type", "action"} <= set(described.fields)
    assert all(str(described.fields[field].type).endswith("!") for field in used)
