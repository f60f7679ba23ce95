"""A security event all the way: pushed, verified by the keys its transmitter publishes, and effective for the work."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client import REGISTRY
from sqlalchemy import select

from identity.accounts.grants import get_grant
from identity.accounts.states import find_account
from identity.http.client import Client
from identity.model import AccountKey, AccountState, ScopeKind
from identity.oauth.jwks import KeyRing
from identity.transmitters import silent_streams
from pipeline.db.database import WithTurn
from pipeline.deliveries.security_event_intake import SecurityEventIntake
from pipeline.duties import gauges
from pipeline.jobs.intents import Ended, Opened
from pipeline.revocation.tables import revocations
from pipeline.states import JobState
from tests.identity.providers import pretend_provider
from tests.ledger.acts import open_
from tests.ledger.house import House
from tests.ledger.house import intent_of as intent
from tests.webhooks.events import (
    CAEP,
    ISSUER,
    KEY,
    OTHER,
    RISC,
    SESSION_REVOKED,
    TRANSMITTER,
    claims,
    jwks,
    register,
    sign,
)
from tests.webhooks.parts import MemoryLedger, MemoryRing, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings

_SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
STREAM_UPDATED, VERIFICATION = f"{_SSF}stream-updated", f"{_SSF}verification"
CREDENTIAL_CHANGE = f"{CAEP}credential-change"
TOKENS_REVOKED = "https://schemas.openid.net/secevent/oauth/event-type/tokens-revoked"
ADA = AccountKey(tenant="acme", connection="gh", principal="acme.ada")


@pytest.fixture
def ring() -> MemoryRing:
    return MemoryRing()


@pytest.fixture
def pushed(house: House, ring: MemoryRing, http: Client) -> Iterator[FlaskClient]:
    """The web before the house, with two transmitters that serve a key set.

    `idp` is acme's identity provider and knows ada as u-1; `google` names accounts of the connection `gh`.
    """
    clock = partial(datetime.now, UTC)
    with pretend_provider() as transmitter:
        transmitter.user = json.loads(jwks(KEY))
        served = replace(TRANSMITTER, jwks_url=transmitter.url)
        google = replace(served, id="google", tenant=None, connection="gh")
        house.database.write(lambda c: register(c, served, google, now=clock()))
        intake = SecurityEventIntake(WithTurn(house.database, ahead=True), KeyRing(http), house.ids, clock=clock)
        settings = WebSettings(base_url="https://aswhom.example")
        yield create_app(settings, MemoryLedger(), registry(), ring, security_events=intake).test_client()


def push(client: FlaskClient, token: bytes, *, to: str = "idp") -> int:
    return client.post(f"/events/{to}", data=token, content_type="application/secevent+jwt", buffered=True).status_code


def made(house: House) -> list[tuple[str, str, str]]:
    rows = select(revocations.c.id, revocations.c.kind, revocations.c.key)
    return [(row.id, row.kind, row.key) for row in house.database.read(lambda c: c.execute(rows).all())]


def test_a_session_that_was_revoked_ends_the_work_of_its_user_once(
    house: House, ring: MemoryRing, pushed: FlaskClient
) -> None:
    before = house.claim(house.job())
    said = claims(iat=time.time())
    assert push(pushed, sign(said, OTHER, kid="k1")) == 400
    assert made(house) == []
    assert push(pushed, sign(said)) == 202
    ((revocation, *scope),) = made(house)
    assert (scope, ring.rung) == ([ScopeKind.USER, "acme.ada"], [revocation])
    assert isinstance(open_(house, intent(house, before)), Ended)
    assert house.row(before.id).state == JobState.CANCELLED

    house.connect("acme", "acme.ada")
    assert push(pushed, sign(said)) == 202
    assert (len(made(house)), ring.rung) == (1, [revocation])
    assert isinstance(open_(house, intent(house, house.claim(house.job()))), Opened)


@pytest.mark.parametrize(
    ("kind", "event", "source"),
    [
        (CREDENTIAL_CHANGE, {"change_type": "revoke"}, "caep.credential-change"),
        (CREDENTIAL_CHANGE, {"change_type": "delete"}, "caep.credential-change"),
        (f"{RISC}account-disabled", {"reason": "hijacking"}, "risc.account-disabled"),
        (f"{RISC}account-purged", {}, "risc.account-purged"),
        (f"{RISC}credential-compromise", {"credential_type": "password"}, "risc.credential-compromise"),
        (f"{RISC}sessions-revoked", {}, "risc.sessions-revoked"),
        (TOKENS_REVOKED, {}, "oauth.tokens-revoked"),
    ],
)
def test_each_event_that_withdraws_authority_ends_the_work_of_its_user(
    house: House, pushed: FlaskClient, kind: str, event: dict[str, Any], source: str
) -> None:
    before = house.claim(house.job())
    assert push(pushed, sign(claims(event, kind=kind, iat=time.time()))) == 202
    assert [scope for _, *scope in made(house)] == [[ScopeKind.USER, "acme.ada"]]
    assert house.database.read(lambda c: c.execute(select(revocations.c.source)).scalars().all()) == [source]
    assert isinstance(open_(house, intent(house, before)), Ended)


def test_google_names_the_account_whose_tokens_it_revoked_inside_the_event(house: House, pushed: FlaskClient) -> None:
    before = house.claim(house.job())
    subject = {"subject_type": "iss-sub", "iss": ISSUER, "sub": "1001"}
    said = claims({"subject": subject}, kind=TOKENS_REVOKED, iat=time.time(), sub_id=None)
    assert push(pushed, sign(said), to="google") == 202
    assert [scope for _, *scope in made(house)] == [[ScopeKind.ACCOUNT, str(ADA)]]
    account = house.database.read(partial(find_account, key=ADA))
    assert account is not None
    assert account.state is AccountState.REVOKED
    assert isinstance(open_(house, intent(house, before)), Ended)


def test_a_new_credential_changes_nothing_and_changed_claims_only_discard_the_access_token(
    house: House, pushed: FlaskClient
) -> None:
    before = house.claim(house.job())
    created = claims({"change_type": "create"}, kind=CREDENTIAL_CHANGE, jti="j-1", iat=time.time())
    assert push(pushed, sign(created)) == 202
    assert isinstance(open_(house, intent(house, before)), Opened)
    changed = claims({"claims": {"role": "guest"}}, kind=f"{CAEP}token-claims-change", jti="j-2", iat=time.time())
    assert push(pushed, sign(changed)) == 202
    assert made(house) == []
    account = house.database.read(partial(find_account, key=ADA))
    assert account is not None
    grant = house.database.read(partial(get_grant, account=account.id))
    assert grant is not None
    assert (account.state, grant.access_sealed) == (AccountState.ACTIVE, None)
    assert grant.refresh_sealed is not None


def test_a_stream_that_its_transmitter_paused_is_seen(house: House, pushed: FlaskClient) -> None:
    """Nothing fails then: nobody is told of any more."""
    now = time.time()

    def say(jti: str, at: float, kind: str, **event: str) -> None:
        assert push(pushed, sign(claims(event, kind=kind, jti=jti, iat=at))) == 202

    def silent() -> list[tuple[str, str]]:
        gauges.measure(house.database)
        found = [(one.transmitter, one.status) for one in house.database.read(silent_streams)]
        counted = {
            status: REGISTRY.get_sample_value("aswhom_streams_silent", {"status": status})
            for status in ("paused", "disabled")
        }
        assert counted == {status: sum(one == status for _, one in found) for status in counted}
        return found

    say("j-1", now - 90, STREAM_UPDATED, status="enabled")
    assert silent() == []
    say("j-2", now - 60, STREAM_UPDATED, status="paused")
    assert silent() == [("idp", "paused")]
    say("j-3", now - 70, STREAM_UPDATED, status="enabled")  # said before, and came late
    say("j-4", now - 30, VERIFICATION, state="x")  # which comes by a stream that rests, too
    assert silent() == [("idp", "paused")]
    say("j-5", now - 20, STREAM_UPDATED, status="disabled")
    say("j-6", now - 19, STREAM_UPDATED, status="other")
    assert silent() == [("idp", "disabled")]
    say("j-7", now - 10, SESSION_REVOKED)  # it tells of people again
    assert silent() == []


@pytest.mark.parametrize("first", [(STREAM_UPDATED, {"status": "enabled"}), (SESSION_REVOKED, {})])
def test_a_stream_is_not_silent_by_a_pause_that_is_told_late(
    house: House, pushed: FlaskClient, first: tuple[str, dict[str, str]]
) -> None:
    """Whatever was told first, and however often that it is enabled."""
    now = time.time()
    for jti, at, (kind, event) in [
        ("j-1", now - 90, first),
        ("j-2", now - 100, (STREAM_UPDATED, {"status": "paused"})),
        ("j-3", now - 30, first),
        ("j-4", now - 60, (STREAM_UPDATED, {"status": "paused"})),
    ]:
        assert push(pushed, sign(claims(event, kind=kind, jti=jti, iat=at))) == 202
        assert house.database.read(silent_streams) == [], jti
