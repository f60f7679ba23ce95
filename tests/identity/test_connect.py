"""Connecting in the browser: the whole way once, and every callback that must be refused."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from sqlalchemy import Connection, select

from identity.connect import Connect, Connected, ConnectRefused
from identity.connections import CLIENT_SECRET, rotate_secret, seal_secret
from identity.errors import BadInput, PolicyDenied
from identity.http import Client
from identity.model import AccountKey, AccountState, Leased, Scope, ScopeKind
from identity.principals import link_alias, resolve_alias
from identity.providers import PROFILES
from identity.providers.profile import Profile
from identity.scopes import stop_scope
from identity.secret import Secret
from identity.tables import connect_sessions
from tests.identity.providers import PretendProvider, reply
from tests.identity.world import ANNA, World

ANNAS_BROWSER, ANOTHER_BROWSER = "cookie-of-anna", "cookie-of-another"


@dataclass
class Desk:
    """The connect flow with a person at the browser."""

    world: World
    http: Client
    profile: Profile = PROFILES["github"]
    woken: list[AccountKey] = field(default_factory=list)

    @property
    def connect(self) -> Connect:
        return Connect(
            self.world.store,
            self.world.vault,
            self.http,
            {self.profile.name: self.profile},
            redirect_uri=lambda connection: f"https://aswhom.example/connect/{connection}/callback",
            ids=self.world.id,
            token=lambda: secrets.token_urlsafe(32),
        )

    def start(self) -> str:
        return self.connect.start(ANNA, now=self.world.clock.now).id

    def authorize(self, link: str, browser: str = ANNAS_BROWSER) -> dict[str, str]:
        url = self.connect.authorize(link, browser=browser, now=self.world.clock.now)
        return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}

    def finish(
        self, params: dict[str, str], *, browser: str = ANNAS_BROWSER, connection: str = "forge"
    ) -> Connected | ConnectRefused:
        return self.connect.finish(
            params,
            browser=browser,
            connection_id=connection,
            now=self.world.clock.now,
            also=lambda _connection, key: self.woken.append(key),
        )

    def refused(self, params: dict[str, str], **arguments: str) -> str:
        outcome = self.finish(params, **arguments)
        assert isinstance(outcome, ConnectRefused)
        assert outcome.next_step
        assert self.woken == []
        return outcome.reason


@pytest.fixture
def desk(connected: World, http: Client) -> Desk:
    return Desk(world=connected, http=http)


def test_a_person_connects_their_account(desk: Desk, provider: PretendProvider) -> None:
    query = desk.authorize(desk.start())
    assert query["redirect_uri"] == "https://aswhom.example/connect/forge/callback"
    assert (query["scope"], query["code_challenge_method"]) == ("read write", "S256")
    outcome = desk.finish({"code": "code-1", "state": query["state"]})
    assert isinstance(outcome, Connected)
    assert (outcome.key, outcome.generation, outcome.missing_scopes) == (ANNA, 1, ())
    (form,) = provider.forms
    assert (form["grant_type"], form["code"]) == ("authorization_code", "code-1")
    assert create_s256_code_challenge(form["code_verifier"]) == query["code_challenge"]  # type: ignore[no-untyped-call]
    assert isinstance(desk.world.examine(), Leased)
    assert desk.woken == [ANNA]
    account = desk.world.account()
    assert (account.external_id, account.external_login) == ("4711", "mona")
    assert desk.world.store.read(lambda c: resolve_alias(c, "acme", "github", "4711")) == "anna"
    assert desk.world.audited("account.connected") == 1


def test_a_callback_works_once(desk: Desk, provider: PretendProvider) -> None:
    state = desk.authorize(desk.start())["state"]
    desk.finish({"code": "code-1", "state": state})
    desk.woken.clear()
    assert "was used" in desk.refused({"code": "code-1", "state": state})
    assert provider.presented.total() == 1


@pytest.mark.parametrize("params", [{}, {"code": "c"}, {"code": "c", "state": "made-up"}], ids=str)
def test_a_callback_without_one_of_our_states_is_refused(
    desk: Desk, provider: PretendProvider, params: dict[str, str]
) -> None:
    desk.authorize(desk.start())
    assert "belongs to no connect session" in desk.refused(params)
    assert provider.presented.total() == 0


def test_a_callback_in_another_browser_is_refused_and_ends_nothing(desk: Desk, provider: PretendProvider) -> None:
    state = desk.authorize(desk.start())["state"]
    assert "not the browser" in desk.refused({"code": "c", "state": state}, browser=ANOTHER_BROWSER)
    assert provider.presented.total() == 0
    assert isinstance(desk.finish({"code": "c", "state": state}), Connected)


def test_a_link_belongs_to_the_first_browser_that_opens_it(desk: Desk) -> None:
    link = desk.start()
    desk.authorize(link)
    desk.authorize(link)
    with pytest.raises(BadInput, match="another browser"):
        desk.authorize(link, ANOTHER_BROWSER)


def test_a_callback_to_another_connections_address_is_refused(desk: Desk, provider: PretendProvider) -> None:
    state = desk.authorize(desk.start())["state"]
    assert "another provider connection" in desk.refused({"code": "c", "state": state}, connection="other")
    assert provider.presented.total() == 0


def test_an_expired_link_neither_opens_nor_finishes(desk: Desk, provider: PretendProvider) -> None:
    link = desk.start()
    state = desk.authorize(link)["state"]
    desk.world.clock.advance(timedelta(minutes=11))
    assert "expired" in desk.refused({"code": "c", "state": state})
    with pytest.raises(BadInput, match="expired"):
        desk.authorize(link)
    assert provider.presented.total() == 0


def test_declining_is_a_refusal_and_mints_nothing(desk: Desk, provider: PretendProvider) -> None:
    state = desk.authorize(desk.start())["state"]
    assert "declined at github" in desk.refused({"error": "access_denied", "state": state})
    assert provider.presented.total() == 0
    assert desk.world.audited("connect.refused") == 1


def test_an_error_is_quoted_only_if_it_is_a_code(desk: Desk) -> None:
    state = desk.authorize(desk.start())["state"]
    assert desk.refused({"error": "<script>", "state": state}) == "github answered unnamed"


def test_a_callback_without_a_code_is_refused(desk: Desk) -> None:
    state = desk.authorize(desk.start())["state"]
    assert "no code" in desk.refused({"state": state})


@pytest.mark.parametrize("iss", [None, "https://evil.example"])
def test_an_answer_must_come_from_the_right_issuer(desk: Desk, iss: str | None) -> None:
    desk.profile = replace(PROFILES["github"], sends_iss=True)
    state = desk.authorize(desk.start())["state"]
    params = {"code": "c", "state": state} | ({"iss": iss} if iss else {})
    assert "provider" in desk.refused(params)


@pytest.mark.parametrize(
    "scope",
    [
        Scope(kind=ScopeKind.TENANT, key="acme"),
        Scope(kind=ScopeKind.CONNECTION, key="forge"),
        Scope(kind=ScopeKind.USER, key="anna"),
        Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA)),
    ],
    ids=str,
)
def test_a_session_that_began_before_a_revocation_is_refused(desk: Desk, scope: Scope) -> None:
    state = desk.authorize(desk.start())["state"]
    desk.world.revoke(scope)
    assert "revoked after this link" in desk.refused({"code": "c", "state": state})
    again = desk.authorize(desk.start())["state"]
    assert isinstance(desk.finish({"code": "c", "state": again}), Connected)


def test_no_session_begins_under_a_stopped_tenant(desk: Desk) -> None:
    desk.world.store.write(lambda c: stop_scope(c, Scope(kind=ScopeKind.TENANT, key="acme")))
    with pytest.raises(PolicyDenied, match="stopped"):
        desk.start()


def test_somebody_elses_provider_account_is_refused_and_nothing_stays(desk: Desk) -> None:
    def link(connection: Connection) -> bool:
        return link_alias(
            connection,
            tenant="acme",
            provider="github",
            external_id="4711",
            principal="robot",
            login="mona",
            made_by="admin:eve",
            now=desk.world.clock.now,
        )

    desk.world.store.write(link)
    state = desk.authorize(desk.start())["state"]
    assert "linked to someone else" in desk.refused({"code": "c", "state": state})
    assert desk.world.generation() == 0
    assert desk.world.audited("account.connected") == 0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda form: None, "did not answer"),
        (lambda form: reply({"error": "bad_verification_code"}), "gave no token"),
        (lambda form: reply({"error": "invalid_grant"}, 400), "used or has expired"),
        (lambda form: reply({"error": "incorrect_client_credentials"}), "does not accept this installation's client"),
        (lambda form: reply({}), "gave no token"),
        (lambda form: reply({}, 503), "gave no token"),
    ],
)
def test_a_provider_that_gives_no_token_is_named(
    desk: Desk, provider: PretendProvider, answer: Callable[[dict[str, str]], Any], why: str
) -> None:
    provider.answer = answer
    state = desk.authorize(desk.start())["state"]
    assert why in desk.refused({"code": "c", "state": state})


def test_a_code_is_exchanged_by_the_other_secret_where_the_first_is_refused(
    desk: Desk, provider: PretendProvider
) -> None:
    world = desk.world
    sealed = seal_secret(
        world.vault,
        world.owner,
        id="secret-2",
        name=CLIENT_SECRET,
        secret=Secret("new-canary"),
        now=world.clock.now + timedelta(minutes=1),
    )
    world.store.write(lambda connection: rotate_secret(connection, sealed, retire_at=None))

    def answer(form: dict[str, str]) -> Any:
        known = form["client_secret"] == "client-canary"
        return provider.rotate(form) if known else reply({"error": "incorrect_client_credentials"})

    provider.answer = answer
    state = desk.authorize(desk.start())["state"]
    assert isinstance(desk.finish({"code": "c", "state": state}), Connected)
    assert [form["client_secret"] for form in provider.forms] == ["new-canary", "client-canary"]
    assert world.audited("connection.secret_refused") == 1


def test_a_provider_that_does_not_say_who_is_refused(desk: Desk, provider: PretendProvider) -> None:
    provider.user = {"message": "Bad credentials"}
    state = desk.authorize(desk.start())["state"]
    assert "whose account" in desk.refused({"code": "c", "state": state})


def test_scopes_that_were_not_granted_are_named(desk: Desk, provider: PretendProvider) -> None:
    provider.answer = lambda form: reply({"access_token": "a", "refresh_token": "r", "scope": "read"})
    state = desk.authorize(desk.start())["state"]
    outcome = desk.finish({"code": "c", "state": state})
    assert isinstance(outcome, Connected)
    assert outcome.missing_scopes == ("write",)
    assert desk.world.grant().scopes == ("read",)


def test_a_reconnect_revives_a_revoked_account(desk: Desk) -> None:
    desk.world.consent()
    desk.world.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA)))
    assert desk.world.state() is AccountState.REVOKED
    state = desk.authorize(desk.start())["state"]
    outcome = desk.finish({"code": "c", "state": state})
    assert isinstance(outcome, Connected)
    assert (outcome.generation, desk.world.state()) == (2, AccountState.ACTIVE)


def test_neither_state_nor_verifier_nor_cookie_lies_open_in_the_ledger(desk: Desk, provider: PretendProvider) -> None:
    state = desk.authorize(desk.start())["state"]
    desk.finish({"code": "c", "state": state})
    row = desk.world.store.read(lambda c: c.execute(select(connect_sessions)).one())
    stored = repr(tuple(row))
    for secret in (state, provider.forms[0]["code_verifier"], ANNAS_BROWSER):
        assert secret not in stored
