"""Signing in: at npm's oidc-provider, by a link that is good once, and not by anything that was forged."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, select

from identity.audit import Act
from identity.audit.tables import audit
from identity.console import roles, sessions
from identity.console.roles import Held, Role, roles_of
from identity.console.sessions import Person, Via
from identity.console.sign_in import AT_ONCE, SignIn, SignInSettings
from identity.console.tables import console_sessions
from identity.errors import Unavailable
from identity.http.addresses import AddressPolicy
from identity.http.client import Client, HttpRequest, Outcome
from identity.secret import Secret
from identity.sql.store import Store
from pipeline.deliveries.intake import Intake
from tests.console.console_app import BASE, ConsoleApp
from tests.ledger.acts import until_awaited
from tests.servers.oidc import Oidc
from tests.servers.oidc import oidc as run_oidc
from tests.waiting import PATIENCE
from webhooks.app import create_app
from webhooks.settings import WebSettings

T = TypeVar("T")
CALLBACK = f"{BASE}/console/callback"
LOOPBACK = AddressPolicy(allow_hosts=frozenset({"127.0.0.1"}))


@pytest.fixture(scope="module")
def peer() -> Iterator[Oidc]:
    with run_oidc(redirect_uri=CALLBACK) as server:
        yield server


@pytest.fixture(scope="module")
def http() -> Iterator[Client]:
    with Client(policy=LOOPBACK, pool_size=2) as client:
        yield client


@pytest.fixture
def browser(sqlite_console: ConsoleApp, peer: Oidc, http: Client) -> FlaskClient:
    """A browser before a console whose people sign in at the peer."""
    return _app(sqlite_console, SignIn(_settings(peer), http)).test_client()


def _settings(peer: Oidc) -> SignInSettings:
    return SignInSettings(
        issuer=peer.issuer,
        client_id=peer.client_id,
        client_secret=Secret(peer.client_secret),
        redirect_uri=CALLBACK,
        scopes=("openid", "email", "groups"),
        roles_claim="groups",
    )


def _app(console: ConsoleApp, sign_in: SignIn | None, base_url: str = BASE, *, store: Store | None = None) -> Flask:
    return create_app(
        WebSettings(base_url=base_url),
        Intake(console.database, console.house.vault, console.house.ids, clock=console.now),
        console.workflows,
        console.ring,
        console=replace(console.parts, sign_in=sign_in, store=store or console.database),
        clock=console.now,
    )


def _begin(browser: FlaskClient, next: str = "") -> str:
    page = browser.post("/console/sign-in", data={"next": next})
    assert page.status_code == 200, page.text
    address = page.text.partition('class="button" href="')[2].partition('"')[0]
    return address.replace("&amp;", "&")


def _come_back(browser: FlaskClient, callback: str) -> Any:
    return browser.get(callback.removeprefix(BASE))


def test_whoever_the_provider_gives_a_role_is_in_and_led_where_they_wanted(
    sqlite_console: ConsoleApp, browser: FlaskClient, peer: Oidc
) -> None:
    turned = browser.get("/console/jobs?state=dead")
    assert turned.headers["Location"] == "/console/sign-in?next=/console/jobs?state%3Ddead"
    back = _come_back(browser, peer.consent(_begin(browser, "/console/jobs?state=dead"), login="auditor-1"))
    assert (back.status_code, back.headers["Location"]) == (303, "/console/jobs?state=dead")
    assert browser.get("/console/jobs?state=dead").status_code == 200
    assert browser.get("/console/revoke").status_code == 403
    (row,) = sqlite_console.rows(select(console_sessions))
    assert (row.subject, row.name, row.roles) == ("auditor-1", "auditor-1@example.test", [["auditor", None]])
    (said,) = sqlite_console.rows(select(audit.c.reason).where(audit.c.kind == "console.signed_in"))
    assert said.reason == "auditor-1@example.test, by openid"


def test_a_role_of_the_table_counts_for_its_tenant_and_ends_with_its_row(
    sqlite_console: ConsoleApp, browser: FlaskClient, peer: Oidc
) -> None:
    console, now = sqlite_console, datetime.now(UTC)
    give = partial(roles.allow, claim="email", value="olga@example.test", role=Role.OPERATOR, tenant="acme")
    act = Act(audit_id="a1", by="cli:test", now=now)
    console.database.write(partial(give, act=act, id="rol_1"))
    _come_back(browser, peer.consent(_begin(browser), login="olga"))
    assert browser.get("/console/jobs").status_code == 200
    assert browser.get("/console/jobs?tenant=globex").status_code == 403
    take = partial(roles.disallow, id="rol_1", act=Act(audit_id="a2", by="cli:test", now=now))
    assert console.database.write(take) == 1
    assert browser.get("/console/jobs").status_code == 303


class TakenAway:
    """A ledger in which a role is taken away just before the next transaction."""

    def __init__(self, console: ConsoleApp, role: str) -> None:
        self.read, self._console, self._role = console.database.read, console, role

    def write(self, work: Callable[[Connection], T]) -> T:
        act = Act(audit_id=self._console.house.ids("aud"), by="cli:test", now=self._console.now())
        self._console.database.write(lambda c: roles.disallow(c, self._role, act))
        return self._console.database.write(work)


def test_a_role_that_is_taken_away_during_a_sign_in_is_not_had(
    sqlite_console: ConsoleApp, peer: Oidc, http: Client
) -> None:
    console = sqlite_console
    give = partial(roles.allow, claim="sub", value="olga", role=Role.OPERATOR, tenant="acme")
    act = Act(audit_id="a1", by="cli:test", now=console.now())
    console.database.write(partial(give, act=act, id="rol_1"))
    browser = _app(console, SignIn(_settings(peer), http), store=TakenAway(console, "rol_1")).test_client()
    assert _come_back(browser, peer.consent(_begin(browser), login="olga")).status_code == 403
    assert console.rows(select(console_sessions)) == []


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)  # SQLite has one writer
def test_whoever_takes_a_role_away_waits_for_a_sign_in_by_it_and_ends_it(console: ConsoleApp) -> None:
    now = console.now()
    give = partial(roles.allow, claim="sub", value="olga", role=Role.OPERATOR, tenant="acme")
    act = Act(audit_id="a1", by="cli:test", now=now)
    console.database.write(partial(give, act=act, id="rol_1"))
    take = partial(roles.disallow, id="rol_1", act=Act(audit_id="a2", by="cli:test", now=now))

    def sign_in(c: Connection) -> None:
        held = roles_of(c, {"sub": "olga"}, roles_claim=None)
        person = Person(subject="olga", name="olga", via=Via.OPENID, held=held)
        sessions.begin(c, Secret("x"), person, audit_id="a3", now=now, lifetime=timedelta(hours=8))

    until_awaited(console.database, sign_in, by=threading.Thread(target=console.database.write, args=(take,)))
    assert console.rows(select(console_sessions)) == []


def test_signing_in_again_ends_the_session_before(sqlite_console: ConsoleApp, browser: FlaskClient, peer: Oidc) -> None:
    _come_back(browser, peer.consent(_begin(browser), login="auditor-1"))
    begun = browser.post("/console/sign-in", data={"next": ""})
    assert begun.status_code == 200
    _come_back(browser, peer.consent(_begin(browser), login="auditor-1"))
    assert len(sqlite_console.rows(select(console_sessions))) == 1
    assert browser.post(f"/console/link/{_link(sqlite_console)}").status_code == 303
    (row,) = sqlite_console.rows(select(console_sessions))
    assert row.via == "link"
    said = select(audit.c.kind).where(audit.c.kind.startswith("console.signed_")).order_by(audit.c.number)
    kinds = [row.kind.removeprefix("console.signed_") for row in sqlite_console.rows(said)]
    assert kinds.count("in") == 3
    assert kinds.count("out") == 2


def test_a_name_that_nobody_verified_stands_behind_the_subject(
    sqlite_console: ConsoleApp, browser: FlaskClient, peer: Oidc
) -> None:
    """Or else anybody could act as `console:grace@acme.example` who may write that into their profile."""
    _come_back(browser, peer.consent(_begin(browser), login="auditor-unverified"))
    (row,) = sqlite_console.rows(select(console_sessions))
    assert (row.subject, row.name) == ("auditor-unverified", "auditor-unverified (auditor-unverified@example.test)")


def test_whoever_has_no_role_is_told_so_and_is_not_in(
    sqlite_console: ConsoleApp, browser: FlaskClient, peer: Oidc
) -> None:
    back = _come_back(browser, peer.consent(_begin(browser), login="stranger"))
    assert back.status_code == 403
    assert "stranger@example.test is signed in at the provider, and no role is given to them" in back.text
    assert sqlite_console.rows(select(console_sessions)) == []


def test_an_address_that_nobody_verified_gives_no_role(console: ConsoleApp) -> None:
    give = partial(roles.allow, claim="email", value="ada@x.test", role=Role.OWNER, tenant=None)
    act = Act(audit_id="a1", by="test", now=datetime.now(UTC))
    console.database.write(partial(give, act=act, id="rol_1"))

    def held(**claims: object) -> tuple[Held, ...]:
        return console.database.write(lambda c: roles_of(c, claims, roles_claim="roles"))  # it locks what it reads

    assert held(email="ada@x.test") == ()
    assert held(email="ada@x.test", email_verified="true") == ()
    assert held(email="ada@x.test", email_verified=True) == (Held(role=Role.OWNER, tenant=None),)
    named = held(roles=["operator@acme", "owner@", "king", "auditor", 7, "@acme"])
    assert named == (Held(role=Role.AUDITOR, tenant=None), Held(role=Role.OPERATOR, tenant="acme"))


def test_a_callback_is_believed_only_from_the_browser_that_began(
    sqlite_console: ConsoleApp, browser: FlaskClient, peer: Oidc
) -> None:
    callback = peer.consent(_begin(browser), login="owner")
    other = browser.application.test_client()
    assert _come_back(other, callback).status_code == 403
    _begin(other)
    assert _come_back(other, callback).status_code == 403
    assert sqlite_console.rows(select(console_sessions)) == []
    assert _come_back(browser, callback).status_code == 303
    assert _come_back(browser, callback).status_code == 403, "used"


def test_who_refuses_at_the_provider_is_not_in(browser: FlaskClient, peer: Oidc) -> None:
    assert _come_back(browser, peer.consent(_begin(browser), refuse=True)).status_code == 403


@pytest.mark.parametrize("next", ["https://evil.example", "//evil.example", "/\\evil", "/console/\nx", "/jobs", ""])
def test_signing_in_leads_to_the_console_whatever_was_asked_for(browser: FlaskClient, peer: Oidc, next: str) -> None:
    back = _come_back(browser, peer.consent(_begin(browser, next), login="owner"))
    assert back.headers["Location"] == "/console/"


def test_cookies_are_out_of_reach_of_scripts_and_of_plain_http(
    sqlite_console: ConsoleApp, peer: Oidc, http: Client
) -> None:
    settings = SignInSettings(
        issuer=peer.issuer, client_id="aswhom", client_secret=Secret("x"), redirect_uri="https://aswhom.example/c"
    )
    secure = _app(sqlite_console, SignIn(settings, http), "https://aswhom.example").test_client()
    begun = secure.post("/console/sign-in").headers["Set-Cookie"]
    link = _link(sqlite_console)
    session = secure.post(f"/console/link/{link}").headers["Set-Cookie"]
    for cookie, name in ((begun, "__Host-aswhom-sign-in"), (session, "__Host-aswhom-console")):
        assert cookie.startswith(f"{name}=")
        for flag in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
            assert flag in cookie


class Crowded(Client):
    """A way to a provider that keeps whoever comes with a code waiting."""

    def __init__(self) -> None:
        super().__init__(policy=LOOPBACK, pool_size=AT_ONCE + 1)
        self.asked, self.over = threading.Semaphore(0), threading.Event()

    def send(self, request: HttpRequest, **how: Any) -> Outcome:
        if request.method == "POST":
            self.asked.release()
            assert self.over.wait(PATIENCE)
        return super().send(request, **how)


def test_whoever_comes_while_too_many_sign_in_is_told_so_and_gets_in_with_the_same_answer(
    sqlite_console: ConsoleApp, peer: Oidc
) -> None:
    with Crowded() as held, ThreadPoolExecutor(AT_ONCE) as threads:
        app = _app(sqlite_console, SignIn(_settings(peer), held))

        def comes_with_a_code() -> None:
            one = app.test_client()
            (state,) = parse_qs(urlsplit(_begin(one)).query)["state"]
            assert _come_back(one, f"{CALLBACK}?state={state}&code=x&iss={quote(peer.issuer)}").status_code == 403

        browser = app.test_client()
        answer = peer.consent(_begin(browser), login="owner")
        under_way = [threads.submit(comes_with_a_code) for _ in range(AT_ONCE)]
        assert all(held.asked.acquire(timeout=PATIENCE) for _ in under_way)
        told = _come_back(browser, answer)
        held.over.set()
        assert (told.status_code, told.headers["Retry-After"]) == (503, "1")
        assert "Too many sign-ins are under way: load this page again in a moment." in told.text
        for one in under_way:
            one.result()
        assert _come_back(browser, answer).status_code == 303


# The link


def _link(console: ConsoleApp) -> str:
    token = secrets.token_urlsafe(32)
    act = Act(audit_id=console.house.ids("aud"), by="cli:root", now=console.now())
    console.database.write(lambda c: sessions.make_link(c, Secret(token), act))
    return token


def test_a_link_signs_an_owner_in_once(console: ConsoleApp) -> None:
    browser, link = console.app.test_client(), _link(console)
    for _ in range(2):  # whoever looks ahead uses nothing up
        assert browser.get(f"/console/link/{link}").status_code == 200
    assert browser.post(f"/console/link/{link}").status_code == 303
    assert browser.get("/console/").status_code == 200
    assert console.app.test_client().post(f"/console/link/{link}").status_code == 410
    (row,) = console.rows(select(console_sessions))
    assert (row.name, row.roles, row.via) == ("cli:root", [["owner", None]], "link")
    assert link not in str(console.rows(select(console_sessions)) + console.rows(select(audit)))


class OneWrite:
    """A ledger that is away after one transaction."""

    def __init__(self, store: Store) -> None:
        self.read, self._store, self._written = store.read, store, False

    def write(self, work: Callable[[Connection], T]) -> T:
        if self._written:
            raise Unavailable("disk full")
        self._written = True
        return self._store.write(work)


class Broken:
    """A store with a fault of ours in it."""

    def __init__(self, store: Store) -> None:
        self.read = store.read

    def write(self, work: Callable[[Connection], T]) -> T:
        raise RuntimeError("canary-77")


def test_a_fault_while_signing_in_is_a_page(sqlite_console: ConsoleApp) -> None:
    link = _link(sqlite_console)
    told = sqlite_console.over(Broken(sqlite_console.database)).test_client().post(f"/console/link/{link}")
    assert (told.status_code, told.content_type) == (500, "text/html; charset=utf-8")
    assert "A fault of ours" in told.text
    assert "canary" not in told.text


def test_whoever_signs_in_by_a_link_goes_on_to_the_page_that_they_wanted(sqlite_console: ConsoleApp) -> None:
    job, browser = sqlite_console.done(), sqlite_console.app.test_client()
    wanted = f"/console/jobs/{job}?tenant=acme"
    asked = browser.get(wanted)
    assert f"go on to <code>{wanted}</code>" in browser.get(asked.location).text
    link = _link(sqlite_console)
    assert f"go on to <code>{wanted}</code>" in browser.get(f"/console/link/{link}").text
    assert browser.post(f"/console/link/{link}").location == wanted
    assert browser.get("/console/sign-in").location == "/console/", "and only this once"
    assert browser.post(f"/console/link/{_link(sqlite_console)}").location == "/console/"


@pytest.mark.parametrize(
    "next", ["https://evil.example/", "//evil.example/", "/console/\\evil", "/elsewhere", "/console"]
)
def test_a_link_leads_to_no_other_site(sqlite_console: ConsoleApp, next: str) -> None:
    browser = sqlite_console.app.test_client()
    assert "evil" not in browser.get("/console/sign-in", query_string={"next": next}).text
    assert browser.post(f"/console/link/{_link(sqlite_console)}").location == "/console/"
    browser.set_cookie("aswhom-wanted", next)  # whoever set it
    assert browser.post(f"/console/link/{_link(sqlite_console)}").location == "/console/"


def test_a_link_is_used_up_in_the_transaction_that_signs_in(sqlite_console: ConsoleApp) -> None:
    console, link = sqlite_console, _link(sqlite_console)
    browser = _app(console, None, store=OneWrite(console.database)).test_client()
    assert browser.post(f"/console/link/{link}").status_code == 303
    assert browser.get("/console/").status_code == 200
    assert browser.post(f"/console/link/{link}").status_code == 503


def test_a_link_is_over_after_ten_minutes_and_another_site_cannot_use_it(sqlite_console: ConsoleApp) -> None:
    console, link = sqlite_console, _link(sqlite_console)
    browser = console.app.test_client()
    assert browser.post(f"/console/link/{link}", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 404
    console.ahead = timedelta(minutes=10, seconds=1)
    assert browser.post(f"/console/link/{link}").status_code == 410
    assert browser.post("/console/link/x").status_code == 404
    assert console.rows(select(console_sessions)) == []
