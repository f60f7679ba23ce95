"""Discovery, service credentials and revocation against a certified authorization server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from joserfc.jwk import ECKey

from identity.audit import Act
from identity.connect.consents import connect_service
from identity.connections.discovery import discover
from identity.connections.registration import Registration, register
from identity.connections.registry import add_connection
from identity.connections.secrets import CLIENT_SECRET, PRIVATE_KEY, add_secret, seal_secret
from identity.errors import Misconfigured
from identity.http.client import Answer, Client
from identity.minting.service_credential import ServiceCredential
from identity.model import AccountKey, AccountState, Credential, ProviderConnection
from identity.oauth.requests import Client as OAuthClient
from identity.providers import PROFILES
from identity.refresh.lock import RefreshLock
from identity.secret import Secret
from identity.withdrawals.token_revocation import REFRESH, has_ended, revoke_request
from tests.identity.coordinators import BUDGET, put_together
from tests.identity.keys import pem
from tests.identity.stores import EngineStore
from tests.identity.world import World
from tests.servers.oidc import Oidc, oidc

ROBOT = AccountKey(tenant="acme", connection="peer", principal="robot")
WITHIN = timedelta(seconds=10)


@pytest.fixture(
    scope="module", params=[0, pytest.param(10, marks=pytest.mark.slow)], ids=["atomic store", "slow store"]
)
def signing(request: pytest.FixtureRequest) -> Iterator[Oidc]:
    """A server whose client signs and has no secret."""
    key = ECKey.import_key(pem("ES256"), {"kid": "k1", "use": "sig", "alg": "ES256"})
    jwks = {"keys": [key.as_dict(private=False)]}
    latency = timedelta(milliseconds=request.param)
    with oidc(client_authentication="private_key_jwt", client_jwks=jwks, store_latency=latency) as running:
        yield running


def registered(server: Oidc, http: Client, *, has_key: bool = False, **config: str) -> ProviderConnection:
    given = Registration(id="peer", tenant=None, client_id=server.client_id, scopes=("api",), config=config)
    return register(
        given,
        PROFILES["oidc"],
        http.policy,
        metadata=discover(http, server.issuer),
        has_secret=not has_key,
        has_key=has_key,
    )


class Robot:
    """The tenant's service at the server, with a clock that goes: the server looks at it."""

    def __init__(self, store: EngineStore, http: Client, owner: ProviderConnection, name: str, secret: str) -> None:
        self.world = World(store=store).build()
        now = datetime.now(UTC)
        sealed = seal_secret(self.world.vault, owner, id="secret-9", name=name, secret=Secret(secret), now=now)
        store.write(lambda connection: add_connection(connection, owner, now=now))
        store.write(lambda connection: add_secret(connection, sealed))
        lock = RefreshLock(None, ttl=BUDGET.lock_ttl, token=self.world.id)
        self.coordinator = put_together(
            store,
            self.world.vault,
            http,
            lock,
            PROFILES,
            clock=lambda: datetime.now(UTC),
            ids=lambda: secrets.token_hex(8),
            budget=BUDGET,
        )
        self.account = connect_service(
            store,
            self.world.vault,
            ROBOT,
            ServiceCredential(kind=Credential.CLIENT_CREDENTIALS),
            Act(audit_id=self.world.id(), by="admin:eve", now=now),
            id=self.world.id(),
            provider="oidc",
            scopes=("api",),
            also=lambda connection, key: None,
        ).account


def test_a_server_is_found_by_its_issuer(oidc: Oidc, http: Client) -> None:
    owner = registered(oidc, http)
    assert (owner.authorize_url, owner.token_url) == (oidc.authorization_url, oidc.token_url)
    assert owner.config["revocation_url"] == oidc.revocation_url
    assert owner.config["client_auth"] == "client_secret_basic"
    assert owner.config["sends_iss"] == "true"


def test_a_service_gets_its_token_by_the_clients_secret(store: EngineStore, oidc: Oidc, http: Client) -> None:
    robot = Robot(store, http, registered(oidc, http), CLIENT_SECRET, oidc.client_secret)
    assert robot.coordinator.refresh(robot.account, after_generation=1) == 2
    assert oidc.is_active(robot.world.token(ROBOT))


def test_a_service_gets_its_token_by_the_clients_key(store: EngineStore, signing: Oidc, http: Client) -> None:
    owner = registered(signing, http, has_key=True, key_id="k1")
    assert owner.config["client_auth"] == "private_key_jwt"
    robot = Robot(store, http, owner, PRIVATE_KEY, pem("ES256"))
    assert robot.coordinator.refresh(robot.account, after_generation=1) == 2
    # A second assertion: an id that was used is refused.
    assert robot.coordinator.refresh(robot.account, after_generation=2) == 3


def test_another_key_is_the_operators_fault(store: EngineStore, signing: Oidc, http: Client) -> None:
    robot = Robot(store, http, registered(signing, http, has_key=True), PRIVATE_KEY, pem("RS256"))
    with pytest.raises(Misconfigured, match="invalid_client"):
        robot.coordinator.refresh(robot.account, after_generation=1)
    assert robot.world.state(ROBOT) is AccountState.ACTIVE


def test_a_revoked_token_has_ended(oidc: Oidc, http: Client) -> None:
    owner = registered(oidc, http)
    tokens = oidc.grant()
    client = OAuthClient(
        connection=owner,
        profile=PROFILES["oidc"],
        secret=Secret(oidc.client_secret),
        now=datetime.now(UTC),
        jti=secrets.token_hex(8),
    )
    request = revoke_request(
        client, credential=Credential.AUTHORIZATION_CODE, token=Secret(tokens["refresh_token"]), hint=REFRESH
    )
    assert request is not None
    for _ in range(2):  # twice: what had ended before has ended
        answer = http.send(request, within=WITHIN)
        assert isinstance(answer, Answer)
        assert has_ended(PROFILES["oidc"], answer, credential=Credential.AUTHORIZATION_CODE)
    assert not oidc.is_active(tokens["access_token"])
    assert not oidc.is_active(tokens["refresh_token"])
    wrong = replace(client, secret=Secret("not the secret"))
    request = revoke_request(wrong, credential=Credential.AUTHORIZATION_CODE, token=Secret("t"), hint=REFRESH)
    assert request is not None
    answer = http.send(request, within=WITHIN)
    assert isinstance(answer, Answer)
    assert not has_ended(PROFILES["oidc"], answer, credential=Credential.AUTHORIZATION_CODE)
