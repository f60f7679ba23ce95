"""How a session ends before its time: unused, by an operator, or by the word of the provider its person came by."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, func, select, text

from identity.audit import Act
from identity.audit.tables import audit
from identity.console import sessions
from identity.console.roles import Held, Role
from identity.console.sessions import Person, Via
from identity.console.tables import console_sessions
from identity.errors import BadInput, Unavailable
from identity.secret import Secret
from identity.sql.store import Store
from identity.transmitters import Transmitter
from pipeline.deliveries.intake import Intake
from pipeline.model import SecurityEvent
from pipeline.revocation.security_events import accept
from pipeline.signal import Asks, Nobody, People, Signal, Whom
from tests.console.console_app import BASE, ConsoleApp
from tests.waiting import eventually
from tests.webhooks.events import register
from webhooks.app import create_app
from webhooks.client_address import Proxies
from webhooks.settings import WebSettings

T = TypeVar("T")
IDP = "https://login.bank.example"
IDLE = timedelta(hours=1)
TOLD_BY = Transmitter(id="idp", issuer=IDP, audience="us", jwks_url=f"{IDP}/keys", tenant="globex", connection=None)


OWNER = (Held(role=Role.OWNER, tenant=None),)


def _signed_in(
    console: ConsoleApp, subject: str, *, issuer: str | None = IDP, held: tuple[Held, ...] = OWNER
) -> Secret:
    token, now = Secret(secrets.token_urlsafe(32)), console.now()
    via = Via.OPENID if issuer else Via.LINK
    person = Person(subject=subject, name=f"{subject}@bank.example", via=via, held=held, issuer=issuer)
    begin = partial(sessions.begin, token=token, person=person, audit_id=console.house.ids("aud"), now=now)
    console.database.write(partial(begin, lifetime=timedelta(hours=8)))
    return token


def _browser(console: ConsoleApp, token: Secret, app: Flask | None = None) -> FlaskClient:
    client = (app or console.app).test_client()
    client.set_cookie("aswhom-console", token.reveal())
    return client


def _is_in(client: FlaskClient, **headers: str) -> bool:
    with client.get("/console/jobs", headers=headers) as answer:  # what follows the answer is done when it is closed
        return answer.status_code == 200


def _left(console: ConsoleApp) -> set[str]:
    return {row.subject for row in console.rows(select(console_sessions))}


def _idle(console: ConsoleApp, store: Store | None = None) -> Flask:
    return create_app(
        WebSettings(base_url=BASE, proxies=Proxies(hops=1)),
        Intake(console.database, console.house.vault, console.house.ids, clock=console.now),
        console.workflows,
        console.ring,
        console=replace(console.parts, idle=IDLE, store=store or console.database),
        clock=console.now,
    )


def test_a_session_that_its_person_does_not_use_ends_and_one_that_is_used_goes_on(console: ConsoleApp) -> None:
    browser = _browser(console, _signed_in(console, "ada"), _idle(console))
    for minutes in (50, 100):
        console.ahead = timedelta(minutes=minutes)
        assert _is_in(browser)
    console.ahead = timedelta(minutes=161)
    assert not _is_in(browser)
    assert _is_in(_browser(console, _signed_in(console, "bob")))


def test_a_page_that_keeps_itself_up_to_date_is_no_person(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    browser = _browser(console, _signed_in(console, "ada"), _idle(console))
    for minutes in (20, 40, 59):
        console.ahead = timedelta(minutes=minutes)
        assert _is_in(browser, **{"Aswhom-Live": "1"})
    console.ahead = timedelta(minutes=61)
    assert not _is_in(browser)


class Full:
    """A ledger that can be read alone."""

    def __init__(self, console: ConsoleApp) -> None:
        self.read = console.database.read

    def write(self, work: Callable[[Connection], T]) -> T:
        raise Unavailable("disk full")


def test_pages_are_shown_though_it_cannot_be_noted_that_somebody_is_there(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    browser = _browser(console, _signed_in(console, "ada"), _idle(console, Full(console)))
    console.ahead = timedelta(minutes=30)
    assert _is_in(browser)


def test_an_operator_ends_one_persons_sessions_and_no_others(console: ConsoleApp) -> None:
    ada, again, bob = (_signed_in(console, who) for who in ("ada", "ada", "bob"))
    live = console.database.read(partial(sessions.live, now=console.now(), idle=IDLE))
    assert [(row["subject"], row["issuer"], row["roles"]) for row in live] == [
        ("bob", IDP, ["owner"]),
        ("ada", IDP, ["owner"]),
        ("ada", IDP, ["owner"]),
    ]
    act = Act(audit_id="a1", by="cli:root", now=console.now())
    assert console.database.write(lambda c: sessions.end_of(c, "ada", act)).sessions == 2
    assert [_is_in(_browser(console, token)) for token in (ada, again, bob)] == [False, False, True]
    with pytest.raises(BadInput, match="nobody is signed in as ada: `aswhom console sessions`"):
        console.database.write(lambda c: sessions.end_of(c, "ada", act))
    (row,) = console.rows(select(audit).where(audit.c.kind == "console.session_ended"))
    assert (row.reason, row.detail) == ("by cli:root", {"subject": "ada", "sessions": 2, "links": 0})


def _tell(
    console: ConsoleApp,
    *,
    asks: Asks = Asks.REVOKE,
    whom: Whom,
    ago: timedelta = timedelta(),
    of_account: bool = False,
    told_by: Transmitter = TOLD_BY,
) -> str:
    at = console.now() - ago
    signal = Signal(
        source="caep.session-revoked",
        asks=asks,
        whom=(whom,),
        reason="it was revoked",
        happened_at=at,
        of_account=of_account,
    )
    jti = console.house.ids("jti")
    event = SecurityEvent(transmitter=told_by.id, jti=jti, events=("type",), signals=(signal,), note="", token=b"token")
    take = partial(accept, event=event, transmitter=told_by, id=console.house.ids("rev"), now=console.now())
    return console.database.write(take).reason


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)  # on SQLite one write follows the other
def test_two_senders_that_withdraw_one_person_at_once_leave_her_no_role(console: ConsoleApp) -> None:
    of_both = tuple(Held(role=Role.OPERATOR, tenant=tenant) for tenant in ("acme", "globex"))
    _signed_in(console, "00u-ada", held=of_both)
    of_acme = _withdraw(console, "acme")
    waiting = select(func.count()).select_from(text("pg_locks")).where(text("not granted"))
    with ThreadPoolExecutor(1) as pool:

        def both(connection: Connection) -> Future[sessions.Withdrawn]:
            assert _withdraw(console, "globex")(connection).narrowed == 1
            second = pool.submit(console.database.write, of_acme)
            eventually(lambda: console.rows(waiting)[0][0] > 0 or second.done())
            return second

        assert console.database.write(both).result().ended == 1
    assert _left(console) == set()


def _withdraw(console: ConsoleApp, tenant: str) -> Callable[[Connection], sessions.Withdrawn]:
    return partial(
        sessions.end_at_providers_word,
        issuer=IDP,
        subjects=["00u-ada"],
        within=tenant,
        before=None,
        audit_id=console.house.ids("aud"),
        by=f"transmitter:{tenant}",
        reason="it was revoked",
        now=console.now(),
    )


def test_whom_their_provider_withdraws_is_signed_out_and_nobody_else(console: ConsoleApp) -> None:
    console.database.write(lambda c: register(c, TOLD_BY, now=console.now()))
    ada = _browser(console, _signed_in(console, "00u-ada"))
    _signed_in(console, "00u-bob")
    _signed_in(console, "00u-eve", issuer="https://other.example")
    _signed_in(console, "cli:root", issuer=None)
    assert _is_in(ada)
    everybody = People(ids=frozenset({"00u-ada", "00u-eve", "cli:root"}))
    assert "1 console session(s) ended" in _tell(console, whom=everybody)
    assert not _is_in(ada)
    assert _left(console) == {"00u-bob", "00u-eve", "cli:root"}
    (row,) = console.rows(select(audit).where(audit.c.kind == "console.session_ended"))
    assert row.reason == "it was revoked, by transmitter:idp"
    assert (row.detail["issuer"], row.detail["sessions"]) == (IDP, 1)


def test_what_revokes_nobody_or_tells_of_an_earlier_session_ends_none(sqlite_console: ConsoleApp) -> None:
    console = sqlite_console
    console.database.write(lambda c: register(c, TOLD_BY, now=console.now()))
    _signed_in(console, "00u-ada")
    ada = People(ids=frozenset({"00u-ada"}))
    _tell(console, asks=Asks.RENEW, whom=ada)
    _tell(console, whom=Nobody(why="an address"))
    assert "1 console session(s) of a later sign-in go on" in _tell(console, whom=ada, ago=timedelta(minutes=5))
    assert _left(console) == {"00u-ada"}
    _tell(console, whom=ada, ago=timedelta(seconds=30))  # their clock may be that much behind
    assert _left(console) == set()


def test_whose_account_was_disabled_is_signed_out_whenever_that_was_and_they_signed_in(
    sqlite_console: ConsoleApp,
) -> None:
    """As of the day that HR has set."""
    console = sqlite_console
    console.database.write(lambda c: register(c, TOLD_BY, now=console.now()))
    _signed_in(console, "00u-ada")
    said = _tell(console, whom=People(ids=frozenset({"00u-ada"})), ago=timedelta(days=1), of_account=True)
    assert "1 console session(s) ended" in said
    assert _left(console) == set()


def test_a_tenants_hub_ends_the_sessions_of_its_tenant_alone(sqlite_console: ConsoleApp) -> None:
    """Its keys are the tenant's, though the people that it tells of are of a provider that the platform has, too."""
    console = sqlite_console
    hub = replace(TOLD_BY, id="hub", issuer="https://hub.globex.example", subject_issuer=IDP)
    console.database.write(lambda c: register(c, hub, now=console.now()))
    for_globex = Held(role=Role.AUDITOR, tenant="globex")
    _signed_in(console, "00u-owner")
    _signed_in(console, "00u-both", held=(for_globex, Held(role=Role.AUDITOR, tenant="acme")))
    _signed_in(console, "00u-globex", held=(for_globex,))
    said = _tell(console, whom=People(ids=frozenset({"00u-owner", "00u-both", "00u-globex"})), told_by=hub)
    told = ["ended", "go on without its tenant's roles", "of others than its tenant's go on"]
    assert ", ".join(f"1 console session(s) {one}" for one in told) in said
    assert _left(console) == {"00u-owner", "00u-both"}
    (both,) = console.rows(select(console_sessions.c.roles).where(console_sessions.c.subject == "00u-both"))
    assert both.roles == [["auditor", "acme"]], "its own tenant's word takes nothing of another's, and all of its own"


def test_where_somebody_signed_in_and_acted_from_is_in_the_audit_and_in_the_log(
    sqlite_console: ConsoleApp, caplog: pytest.LogCaptureFixture
) -> None:
    console, link = sqlite_console, secrets.token_urlsafe(32)
    act = Act(audit_id=console.house.ids("aud"), by="cli:root", now=console.now())
    console.database.write(lambda c: sessions.make_link(c, Secret(link), act))
    browser = _idle(console).test_client()
    hops = {"X-Forwarded-For": "192.0.2.66, 198.51.100.7", "User-Agent": "canary"}
    with caplog.at_level("INFO"):
        assert browser.post("/console/link/nothing", headers=hops).status_code == 404
        assert browser.post(f"/console/link/{link}", headers=hops).status_code == 303
        assert browser.post("/console/revoke", headers=hops).status_code == 400
    told = {vars(one)["action"]: vars(one).get("from") for one in caplog.records if "action" in vars(one)}
    assert told == dict.fromkeys(("console.refused", "console.signed_in", "console.act"), "198.51.100.7")
    (row,) = console.rows(select(audit).where(audit.c.kind == "console.signed_in"))
    assert row.detail["from"] == "198.51.100.7"
    assert "canary" not in caplog.text + str(row.detail)
