"""A security event all the way: pushed, verified by the keys its transmitter publishes, and effective for the work."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from identity.http import Client
from identity.jwks import KeyRing
from identity.model import ScopeKind
from pipeline.database import Ahead
from pipeline.ledger.intents import Ended, Opened
from pipeline.revocation.tables import revocations
from pipeline.security_event_intake import SecurityEventIntake
from pipeline.states import JobState
from tests.identity.providers import pretend_provider
from tests.ledger.acts import open_
from tests.ledger.house import House
from tests.ledger.house import intent_of as intent
from tests.webhooks.events import KEY, OTHER, TRANSMITTER, claims, jwks, register, sign
from tests.webhooks.parts import MemoryLedger, MemoryRing, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings


@pytest.fixture
def ring() -> MemoryRing:
    return MemoryRing()


@pytest.fixture
def pushed(house: House, ring: MemoryRing, http: Client) -> Iterator[FlaskClient]:
    """The web before the house, where a transmitter is registered that knows ada as u-1 and serves its key set."""
    clock = partial(datetime.now, UTC)
    with pretend_provider() as transmitter:
        transmitter.user = json.loads(jwks(KEY))
        served = replace(TRANSMITTER, jwks_url=transmitter.url)
        house.database.write(lambda c: register(c, served, now=clock()))
        intake = SecurityEventIntake(Ahead(database=house.database), KeyRing(http), house.ids, clock=clock)
        settings = WebSettings(base_url="https://aswhom.example")
        yield create_app(settings, MemoryLedger(), registry(), ring, security_events=intake).test_client()


def push(client: FlaskClient, token: bytes) -> int:
    return client.post("/events/idp", data=token, content_type="application/secevent+jwt", buffered=True).status_code


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
