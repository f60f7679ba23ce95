"""Every provider's row against a server that answers as the provider's pages say: one suite over all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest

from identity.errors import Misconfigured
from identity.http.client import Answer, HttpRequest
from identity.http.client import Client as HttpClient
from identity.model import Credential, ProviderConnection
from identity.oauth.answers import ClientRefused, Dead, Granted, Meaning, RateLimited, Transient, Withheld, read_outcome
from identity.oauth.requests import Client, authorization_url, exchange_request, refresh_request
from identity.providers import PROFILES
from identity.providers.openid import openid_user
from identity.providers.profile import Profile
from identity.providers.sources import Evidence
from identity.secret import Secret
from identity.withdrawals.token_revocation import REFRESH, has_ended, revoke_request
from tests.identity.published_providers import PUBLISHED, Asked, Published, Server, server
from tests.identity.world import START

WITHIN = timedelta(seconds=30)
SECRET = "s:e/c r+t"


@dataclass
class Exchange:
    """One provider's row, aimed at the server that plays the provider."""

    published: Published
    server: Server
    http: HttpClient

    @property
    def profile(self) -> Profile:
        return PROFILES[self.published.provider]

    @property
    def connection(self) -> ProviderConnection:
        base = self.server.url
        config = {name: value.replace("{base}", base) for name, value in self.published.config.items()}
        return ProviderConnection(
            id="forge",
            tenant=None,
            provider=self.published.provider,
            client_id="the-client",
            scopes=("a", "b"),
            api_url=f"{base}/api",
            authorize_url=f"{base}/authorize",
            token_url=f"{base}/token",
            config={"revocation_url": f"{base}/revoke", **config},
        )

    @property
    def client(self) -> Client:
        return Client(
            connection=self.connection, profile=self.profile, secret=Secret(SECRET), now=START, jti="never-again"
        )

    def send(self, request: HttpRequest, said: tuple[int, object]) -> tuple[Asked, Answer]:
        self.server.say(*said)  # type: ignore[arg-type]
        answer = self.http.send(request, within=WITHIN)
        assert isinstance(answer, Answer), answer
        return self.server.asked[-1], answer

    def read(self, answer: Answer) -> Meaning:
        return read_outcome(answer, self.profile, started_at=START, scopes=("a", "b"), lifetime=None)

    def refresh(self, said: tuple[int, object]) -> tuple[Asked, Meaning]:
        asked, answer = self.send(refresh_request(self.client, refresh_token=Secret("rt-1")), said)
        return asked, self.read(answer)


def those(fitting: Callable[[Published], bool]) -> pytest.MarkDecorator:
    """Only the providers and variants that have what the test is about."""
    chosen = [published for published in PUBLISHED if fitting(published)]
    return pytest.mark.parametrize("exchange", chosen, indirect=True, ids=str)


@pytest.fixture(scope="module")
def playing() -> Iterator[Server]:
    with server() as playing:
        yield playing


@pytest.fixture(params=PUBLISHED, ids=str)
def exchange(request: pytest.FixtureRequest, playing: Server, http: HttpClient) -> Exchange:
    return Exchange(published=request.param, server=playing, http=http)


def test_the_person_is_sent_with_what_the_provider_wants(exchange: Exchange) -> None:
    url = authorization_url(
        exchange.connection,
        exchange.profile,
        redirect_uri="https://a/cb",
        scopes=("a", "b"),
        state="st",
        verifier="v" * 43,
    )
    query = dict(parse_qsl(urlsplit(url).query))
    name, separator = exchange.published.scope_parameter
    assert query[name] == f"a{separator}b"
    assert query["code_challenge_method"] == "S256"
    assert (query["client_id"], query["response_type"], query["state"]) == ("the-client", "code", "st")
    assert exchange.published.authorize.items() <= query.items()
    assert SECRET not in url


def test_a_code_becomes_tokens(exchange: Exchange) -> None:
    request = exchange_request(exchange.client, code="c", verifier="v" * 43, redirect_uri="https://a/cb")
    asked, answer = exchange.send(request, (200, exchange.published.code_answer))
    assert (asked.method, asked.path) == ("POST", "/token")
    assert asked.client() == ("the-client", SECRET)
    assert ("client_secret" in asked.form) is not exchange.published.in_header
    assert (asked.form["grant_type"], asked.form["code"], asked.form["code_verifier"]) == (
        "authorization_code", "c", "v" * 43,
    )  # fmt: skip
    granted = exchange.read(answer)
    assert isinstance(granted, Granted)
    assert granted.answer.access_token.reveal() == "at-1"
    assert (granted.answer.refresh_token is not None) is (exchange.published.refresh_answer is not None)
    assert granted.answer.scopes == ("a", "b")
    # What ends must have an end here, said or not: otherwise nothing would ever renew it.
    assert (granted.answer.expires_at is not None) is exchange.published.expires


@those(lambda published: published.refresh_answer is not None)
def test_a_refresh_token_is_exchanged_for_the_next(exchange: Exchange) -> None:
    assert exchange.published.refresh_answer is not None
    asked, granted = exchange.refresh((200, exchange.published.refresh_answer))
    assert asked.client() == ("the-client", SECRET)
    assert (asked.form["grant_type"], asked.form["refresh_token"]) == ("refresh_token", "rt-1")
    assert "scope" not in asked.form  # it would narrow the grant, or fail
    assert isinstance(granted, Granted)
    assert granted.answer.access_token.reveal() == "at-2"
    assert granted.answer.expires_at is not None
    if (new := granted.answer.refresh_token) is not None:
        assert new.reveal() == "rt-2"
        assert exchange.profile.rotates


def test_what_it_says_of_a_dead_token_means_dead(exchange: Exchange) -> None:
    for said in filter(None, (exchange.published.dead, exchange.published.also_dead)):
        assert isinstance(exchange.refresh(said)[1], Dead), said


def test_what_it_says_of_our_client_costs_no_grant(exchange: Exchange) -> None:
    meaning = exchange.refresh(exchange.published.bad_client)[1]
    assert isinstance(meaning, ClientRefused | Transient | Withheld), meaning


def test_a_provider_that_is_away_costs_nothing(exchange: Exchange) -> None:
    assert isinstance(exchange.refresh(exchange.published.away)[1], Transient | RateLimited)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_error_that_nobody_knows_is_never_fatal(exchange: Exchange, status: int) -> None:
    assert isinstance(exchange.refresh((status, {"error": "we_made_this_up"}))[1], Transient)


@those(lambda published: published.whoami is not None)
def test_it_says_whose_token_it_is(exchange: Exchange) -> None:
    assert exchange.profile.whoami is not None
    assert exchange.published.whoami is not None
    method, path, document = exchange.published.whoami
    request = exchange.profile.whoami.request(exchange.connection, Secret("at-1"))
    assert request is not None
    asked, answer = exchange.send(request, (200, document))
    assert (asked.method, asked.path) == (method, path)
    assert asked.headers["authorization"] == "Bearer at-1"
    who = exchange.profile.whoami.read(exchange.connection, json.loads(answer.body))
    assert who is not None
    assert who.id == (exchange.published.who or "").replace("{base}", exchange.server.url)
    assert who.places == exchange.published.places


@pytest.mark.parametrize("document", [None, [], {}, "x", {"id": None}, {"data": {"viewer": None}}, {"sub": ""}])
def test_an_answer_that_names_nobody_is_nobody(document: object) -> None:
    for profile in PROFILES.values():
        if profile.whoami is None:
            continue  # nobody consents there
        assert profile.whoami.read(_through(profile.name), document) is None


def _through(provider: str) -> ProviderConnection:
    return ProviderConnection(
        id="x",
        tenant=None,
        provider=provider,
        client_id="x",
        scopes=(),
        api_url="https://x",
        authorize_url="https://x",
        token_url="https://x",
    )


@pytest.mark.parametrize("subject", ["7\0", "7\ud800", "7" * 300], ids=["nul", "half-a-character", "too-long"])
def test_a_subject_that_no_ledger_can_hold_is_known_by_its_digest(subject: str) -> None:
    read, connection = openid_user("https://x/userinfo").read, _through("google")
    who, other = read(connection, {"sub": subject}), read(connection, {"sub": f"{subject}1"})
    assert who is not None
    assert other is not None
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", who.id)
    assert who.id != other.id


def test_a_token_of_a_server_of_ones_own_is_not_shown_to_the_public_one(exchange: Exchange) -> None:
    """Nobody said where it revokes: then it is asked where it is, or not at all."""
    own = {name: value for name, value in exchange.connection.config.items() if name != "revocation_url"}
    client = replace(exchange.client, connection=replace(exchange.connection, config=own))
    request = None
    with suppress(Misconfigured):
        request = revoke_request(client, credential=Credential.AUTHORIZATION_CODE, token=Secret("at-1"), hint=REFRESH)
    assert request is None or request.url.startswith(exchange.server.url)


def asked_to_revoke(exchange: Exchange) -> HttpRequest | None:
    by = Credential.AUTHORIZATION_CODE
    return revoke_request(exchange.client, credential=by, token=Secret("at-1"), hint=REFRESH)


@those(lambda published: bool(PROFILES[published.provider].revocation_url))
def test_a_token_of_the_public_server_is_shown_to_that(exchange: Exchange) -> None:
    public = replace(exchange.connection, token_url=exchange.profile.token_url, config={})
    client = replace(exchange.client, connection=public)
    request = revoke_request(client, credential=Credential.AUTHORIZATION_CODE, token=Secret("at-1"), hint=REFRESH)
    assert request is not None
    assert request.url == exchange.profile.revocation_url


@those(lambda published: published.revoke is not None)
def test_it_is_asked_to_revoke_in_its_own_way(exchange: Exchange) -> None:
    request = revoke_request(
        exchange.client, credential=Credential.AUTHORIZATION_CODE, token=Secret("at-1"), hint=REFRESH
    )
    assert request is not None
    for said in (exchange.published.revoked, exchange.published.gone):
        asked, answer = exchange.send(request, said)
        assert (asked.method, asked.path) == exchange.published.revoke
        assert b"at-1" in asked.body or asked.headers["authorization"] == "Bearer at-1"
        assert has_ended(exchange.profile, answer, credential=Credential.AUTHORIZATION_CODE)
    _, answer = exchange.send(request, (503, None))
    assert not has_ended(exchange.profile, answer, credential=Credential.AUTHORIZATION_CODE)


@those(lambda published: published.unclear is not None)
def test_an_answer_with_two_meanings_is_not_taken_for_the_end_and_it_can_be_asked_which(exchange: Exchange) -> None:
    request = revoke_request(
        exchange.client, credential=Credential.AUTHORIZATION_CODE, token=Secret("at-1"), hint=REFRESH
    )
    revocation = exchange.profile.revocation
    assert request is not None
    assert revocation is not None
    assert exchange.published.unclear is not None
    _, answer = exchange.send(request, exchange.published.unclear)
    assert not has_ended(exchange.profile, answer, credential=Credential.AUTHORIZATION_CODE)
    assert answer.status in revocation.unclear_statuses
    assert exchange.profile.liveness is not None


@those(lambda published: published.provider == "atlassian")
def test_a_provider_that_has_no_way_to_revoke_is_not_asked(exchange: Exchange) -> None:
    assert asked_to_revoke(exchange) is None


@those(lambda published: published.revoke is not None)
def test_a_revocation_that_was_refused_has_not_ended_anything(exchange: Exchange) -> None:
    request = revoke_request(
        exchange.client, credential=Credential.AUTHORIZATION_CODE, token=Secret("at-1"), hint=REFRESH
    )
    assert request is not None
    for said in ((401, {"error": "invalid_client"}), (200, {"ok": False, "error": "no_permission"}), (429, None)):
        _, answer = exchange.send(request, said)
        assert not has_ended(exchange.profile, answer, credential=Credential.AUTHORIZATION_CODE)


def test_no_secret_is_seen_by_whoever_looks_at_a_request(exchange: Exchange) -> None:
    client = exchange.client
    requests = [
        exchange_request(client, code="canary", verifier="canary", redirect_uri="https://a/cb"),
        refresh_request(client, refresh_token=Secret("canary")),
        revoke_request(client, credential=Credential.AUTHORIZATION_CODE, token=Secret("canary"), hint=REFRESH),
    ]
    for seen in (client, *requests):
        assert SECRET not in repr(seen)
        assert "canary" not in repr(seen)
        assert "canary" not in getattr(seen, "url", "")


def test_every_row_has_a_published_counterpart() -> None:
    assert {published.provider for published in PUBLISHED} == set(PROFILES)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_a_grace_for_a_second_presentation_was_read(profile: Profile) -> None:
    assert profile.grace_seconds == 0 or profile.sources["grace_seconds"].evidence is Evidence.READ


@those(lambda published: published.tokens_an_hour is not None)
def test_no_hour_sees_more_token_requests_than_its_pages_allow(exchange: Exchange) -> None:
    """`test_no_stretch_of_time_sees_more_than_the_pace_allows` is about the paces themselves."""
    pace, allowed = exchange.profile.token_pace, exchange.published.tokens_an_hour
    assert allowed is not None
    assert pace.requests * (timedelta(hours=1) / pace.per) <= allowed


def test_tokens_of_installations_are_no_token_requests_of_the_client() -> None:
    """They are asked for at the API, so what people's refreshes may ask of the token endpoint does not slow them."""
    github, linear = PROFILES["github"], PROFILES["linear"]
    assert github.pace_of(Credential.INSTALLATION) == github.api_pace != github.token_pace
    assert github.pace_of(Credential.AUTHORIZATION_CODE) == github.token_pace
    assert linear.pace_of(Credential.CLIENT_CREDENTIALS) == linear.token_pace


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_every_value_says_where_it_comes_from(profile: Profile) -> None:
    values = {one.name for one in fields(Profile)} - {"name", "title", "sources"}
    defaults = {
        one.name: one.default_factory() if callable(one.default_factory) else one.default for one in fields(Profile)
    }
    departing = {name for name in values if getattr(profile, name) != defaults[name]}
    assert set(profile.sources) == departing
    assert all(source.where for source in profile.sources.values())
