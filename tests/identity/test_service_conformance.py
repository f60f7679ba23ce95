"""The other half of `test_provider_conformance`: every way in which a provider gives a service its tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from identity.accounts.grants import REFRESH, Grant, token_binding
from identity.accounts.states import Account
from identity.connections.authorization import KEY, authorization
from identity.connections.secrets import PRIVATE_KEY, authenticator, seal_secret
from identity.http.client import Answer, Client, HttpRequest
from identity.keys.vault import Vault
from identity.model import AccountKey, AccountState, Credential, ProviderConnection
from identity.oauth.answers import ClientRefused, Dead, Granted, Meaning, RateLimited, Transient
from identity.providers import PROFILES
from identity.providers.profile import Profile
from identity.refresh.requests import AssertionRefused, read_token, token_request
from identity.refresh.situation import Situation
from identity.secret import Secret
from tests.identity.keys import pem
from tests.identity.published_providers import Asked, Server, server
from tests.identity.published_services import KEYS, SERVICES, Service
from tests.identity.world import START

KEY_OF_ROBOT = AccountKey(tenant="acme", connection="forge", principal="robot")
CLIENT = ("the-client", "s:e/c r+t")
SIGNERS = (Credential.INSTALLATION, Credential.JWT_BEARER)


@dataclass
class Minting:
    """A service's account at the server that plays its provider."""

    service: Service
    server: Server
    http: Client
    vault: Vault = field(default_factory=lambda: Vault({1: bytes(32)}, os.urandom))

    @property
    def profile(self) -> Profile:
        return PROFILES[self.service.provider]

    @property
    def situation(self) -> Situation:
        service = self.service
        owner = connection(service.provider, self.server.url, service.config)
        binding = token_binding("acme", "acc-1", service.provider, REFRESH, 1)
        name = authenticator(owner, service.credential)
        assert name is not None
        secret = Secret(pem() if name == PRIVATE_KEY else CLIENT[1])
        rotating = service.credential is Credential.ROTATING
        return Situation(
            account=Account(
                id="acc-1",
                key=KEY_OF_ROBOT,
                provider=service.provider,
                credential=service.credential,
                state=AccountState.ACTIVE,
                reason=None,
                external_id=service.external_id,
                external_login=None,
                resources=service.resources,
            ),
            grant=Grant(
                account="acc-1",
                generation=1,
                consented=1,
                access_sealed=None,
                refresh_sealed=self.vault.seal(Secret("rt-1"), binding) if rotating else None,
                token_type="bearer",
                scopes=service.scopes,
                obtained_at=START,
                expires_at=None,
            ),
            connection=owner,
            paused=None,
            secrets=(seal_secret(self.vault, owner, id="secret-1", name=name, secret=secret, now=START),),
            intent=None,
            ruled_out=None,
        )

    def request(self) -> HttpRequest:
        request = token_request(self.situation, self.profile, self.vault, now=START, jti="never-again")
        assert request is not None
        return request

    def ask(self, said: tuple[int, object]) -> tuple[Asked, Meaning | AssertionRefused]:
        self.server.say(*said)  # type: ignore[arg-type]
        answer = self.http.send(self.request(), within=timedelta(seconds=30))
        assert isinstance(answer, Answer), answer
        scopes = self.service.scopes
        return self.server.asked[-1], read_token(self.situation, self.profile, answer, started_at=START, scopes=scopes)


def connection(provider: str, base: str, config: Mapping[str, str]) -> ProviderConnection:
    return ProviderConnection(
        id="forge",
        tenant=None,
        provider=provider,
        client_id=CLIENT[0],
        scopes=("a", "b"),
        api_url=f"{base}/api",
        authorize_url=f"{base}/authorize",
        token_url=f"{base}/token",
        config=dict(config),
    )


@pytest.fixture(scope="module")
def playing() -> Iterator[Server]:
    with server() as playing:
        yield playing


@pytest.fixture(params=SERVICES, ids=str)
def minting(request: pytest.FixtureRequest, playing: Server, http: Client) -> Minting:
    return Minting(service=request.param, server=playing, http=http)


def test_it_is_asked_for_a_token_in_its_own_way_and_gives_one(minting: Minting) -> None:
    service = minting.service
    asked, granted = minting.ask((service.answered, service.answer))
    assert (asked.method, asked.path) == ("POST", service.path)
    assert isinstance(granted, Granted)
    assert granted.answer.access_token.reveal() == "at-2"
    assert granted.answer.scopes == (service.granted or service.scopes)
    if service.document is not None:
        assert json.loads(asked.body) == service.document
    if service.form is not None:
        assert {name: asked.form.get(name) for name in service.form} == service.form
        proof = {"client_id", "client_secret"} if service.credential is not Credential.JWT_BEARER else {"assertion"}
        assert set(asked.form) - set(service.form) <= proof
        assert asked.client() == (CLIENT if service.credential is not Credential.JWT_BEARER else ("", ""))
    # What ends must have an end here, said or not; and what it did not send again is not taken for gone.
    assert granted.answer.expires_at is not None
    said = service.answer.get("refresh_token")
    assert (granted.answer.refresh_token and granted.answer.refresh_token.reveal()) == said


@pytest.mark.parametrize("minting", [one for one in SERVICES if one.credential in SIGNERS], indirect=True, ids=str)
def test_what_is_signed_says_what_it_wants_and_lives_no_longer_than_it_allows(minting: Minting) -> None:
    service = minting.service
    asked, _ = minting.ask((service.answered, service.answer))
    signed = asked.form.get("assertion") or asked.headers["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(signed, RSAKey.import_key(pem()), algorithms=["RS256"]).claims
    wanted = {name: str(value).replace("{base}", minting.server.url) for name, value in service.claims.items()}
    assert wanted.items() <= claims.items()
    assert not service.unclaimed & claims.keys()
    now = START.timestamp()
    assert claims["iat"] <= now < claims["exp"] <= now + service.longest


@pytest.mark.parametrize("minting", [one for one in SERVICES if one.refused], indirect=True, ids=str)
def test_what_it_says_of_a_consent_that_is_gone_means_dead(minting: Minting) -> None:
    assert minting.service.refused is not None
    assert isinstance(minting.ask(minting.service.refused)[1], Dead)


@pytest.mark.parametrize("minting", [one for one in SERVICES if one.assertion_refused], indirect=True, ids=str)
def test_what_it_says_of_an_assertion_costs_no_account(minting: Minting) -> None:
    for said in minting.service.assertion_refused:
        assert isinstance(minting.ask(said)[1], AssertionRefused)


def test_what_it_says_of_our_client_costs_no_account(minting: Minting) -> None:
    meaning = minting.ask(minting.service.bad_client)[1]
    assert isinstance(meaning, ClientRefused | Transient), meaning


INSTALLATIONS = [one for one in SERVICES if one.credential is Credential.INSTALLATION]


@pytest.mark.parametrize("minting", INSTALLATIONS, indirect=True, ids=str)
def test_a_token_with_nothing_of_what_was_asked_is_none(minting: Minting) -> None:
    _, meaning = minting.ask((201, dict(minting.service.answer) | {"permissions": {"metadata": "read"}}))
    assert isinstance(meaning, Transient)
    assert not meaning.recognised


@pytest.mark.parametrize("said", [(503, None), (429, None), (400, {"error": "we_made_this_up"})], ids=lambda s: s[0])
def test_what_is_away_busy_or_unknown_costs_nothing(minting: Minting, said: tuple[int, object]) -> None:
    assert isinstance(minting.ask(said)[1], Transient | RateLimited)


def test_no_secret_is_seen_by_whoever_looks_at_a_request(minting: Minting) -> None:
    request = minting.request()
    for seen in (repr(request), request.url):
        assert CLIENT[1] not in seen
        assert "rt-1" not in seen


@pytest.mark.parametrize(("provider", "config", "header"), KEYS)
def test_a_key_that_nothing_renews_is_shown_as_the_provider_wants_it(
    provider: str, config: Mapping[str, str], header: tuple[str, str]
) -> None:
    owner = connection(provider, "http://127.0.0.1:9", config)
    assert authenticator(owner, Credential.STATIC) is None
    assert authorization(owner, Secret("key-1"), token_type=KEY) == header


def test_every_way_of_a_service_has_a_published_counterpart() -> None:
    ways = {service.credential for service in SERVICES} | {Credential.STATIC}
    assert ways == set(Credential) - {Credential.AUTHORIZATION_CODE}
    signers = {service.provider for service in SERVICES if service.credential is Credential.JWT_BEARER}
    assert {service.credential for service in SERVICES if service.assertion_refused} == {Credential.JWT_BEARER}
    assert signers == {name for name, profile in PROFILES.items() if profile.assertion is not None}
