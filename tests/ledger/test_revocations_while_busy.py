"""A revocation reaches a ledger on PostgreSQL while all ordinary connections of its process are in use."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256

import pytest
from sqlalchemy import Connection, select

from identity.agents.api_keys import Role
from identity.connections.registry import get_connection
from identity.connections.secrets import WEBHOOK_SECRET, add_secret, seal_secret
from identity.console.roles import Role as ConsoleRole
from identity.secret import Secret
from pipeline.db.database import Database
from pipeline.db.postgresql import PostgresqlDatabase
from pipeline.revocation.tables import revocations
from tests.api.agents_api import AgentsApi
from tests.console.console_app import ConsoleApp
from tests.ledger.house import House

pytestmark = [pytest.mark.as_owner, pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)]

_CONNECTIONS, _ORDINARY = 4, 2


@pytest.fixture
def few(ledger_url: str) -> Iterator[Database]:
    with closing(
        PostgresqlDatabase(ledger_url, connections=_CONNECTIONS, turn_timeout=timedelta(seconds=0.5))
    ) as opened:
        yield opened


@contextmanager
def busy(database: Database, *, looks: int = 0) -> Iterator[None]:
    """Slow reads hold every ordinary connection meanwhile, and *looks* more want to go ahead of them."""
    within, let_go = threading.Semaphore(0), threading.Event()

    def stay(_: Connection) -> None:
        within.release()
        let_go.wait(60)

    with ThreadPoolExecutor(_ORDINARY + looks) as pool:
        for _ in range(_ORDINARY):
            pool.submit(database.read, stay)  # the server may end it for standing still: its place is kept all the same
        try:
            for _ in range(_ORDINARY):
                assert within.acquire(timeout=60)
            for _ in range(looks):
                pool.submit(database.read, stay, ahead=True)
            assert not looks or within.acquire(timeout=60)
            yield
        finally:
            let_go.set()


def test_the_api_takes_a_revocation(few: Database) -> None:
    with closing(AgentsApi(few)) as api:
        admin = api.keys["acme", Role.ADMIN]
        with busy(few):
            body = {"kind": "user", "key": "ada", "reason": "she left"}
            made = api.ask("POST", "/v1/revocations", admin, json=body)
            listed = api.ask("GET", "/v1/revocations", admin)
        assert (made.status_code, made.json["state"]) == (201, "effective"), made.json
        assert listed.status_code == 503  # it waits its turn, so no ordinary connection was free


def test_what_is_read_of_anybodys_request_leaves_a_revocation_its_connection(few: Database) -> None:
    """The secrets for a delivery that may be forged, the holder of a key that may be made up."""
    with busy(few, looks=_CONNECTIONS):
        assert few.write(lambda c: "revoked", ahead=True) == "revoked"


def test_a_signed_signal_is_followed(few: Database) -> None:
    secret = Secret("it's a secret")
    with closing(AgentsApi(few)) as api:
        few.write(partial(_sign_with, house=api.house, secret=secret))
        body = json.dumps({"action": "revoked", "sender": {"id": 1001}}).encode()
        headers = {
            "X-GitHub-Event": "github_app_authorization",
            "X-GitHub-Delivery": "1",
            "X-Hub-Signature-256": "sha256=" + hmac.digest(secret.reveal().encode(), body, sha256).hex(),
            "Content-Type": "application/json",
        }
        with busy(few):
            answer = api.client.post("/webhooks/github/gh", data=body, headers=headers)
        assert answer.status_code == 202, answer.data
        assert answer.json is not None
        assert answer.json["outcome"] == "signal"
        assert set(answer.json["revocations"]) == set(few.read(lambda c: c.execute(select(revocations.c.id)).scalars()))
        assert answer.json["revocations"]


def test_the_console_shows_the_form_without_a_preview_and_revokes(few: Database) -> None:
    with closing(ConsoleApp(few)) as console:
        operator, id = console.at(ConsoleRole.OPERATOR), console.house.ids("rev")
        with busy(few):
            form = operator.client.get("/console/revoke?kind=user&key=acme.ada")
            made = operator.sends("/console/revoke", kind="user", key="acme.ada", id=id, typed="acme.ada")
            others = operator.client.get("/console/revocations")
        assert form.status_code == 200
        assert made.headers["Location"] == f"/console/revocations/{id}?done=revoked"
        assert others.status_code == 503


def _sign_with(c: Connection, *, house: House, secret: Secret) -> None:
    owner, now = get_connection(c, "gh"), datetime.now(UTC)
    add_secret(c, seal_secret(house.vault, owner, id="sec_hook", name=WEBHOOK_SECRET, secret=secret, now=now))
