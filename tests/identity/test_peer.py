"""Connecting and refreshing against a certified authorization server that rotates and detects reuse."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
import redis
from sqlalchemy import Connection

from identity.addresses import AddressPolicy
from identity.connect.connector import Connect, Connected, ConnectRefused, Outcome
from identity.connection_secrets import CLIENT_SECRET, add_secret, live_secrets, retire_secret, seal_secret
from identity.connections import add_connection
from identity.errors import Misconfigured, ReauthRequired
from identity.grants import ACCESS, REFRESH
from identity.http import Client
from identity.model import AccountKey, AccountState, ProviderConnection
from identity.providers.profile import ClientAuth, Profile
from identity.refresh.coordinator import Coordinator, RefreshBudget
from identity.refresh.lock import RefreshLock
from identity.secret import Secret
from identity.signing import Signer
from tests.identity.stores import EngineStore
from tests.identity.world import World
from tests.ledgers import MOSTLY_SQLITE
from tests.servers.oidc import Oidc

pytestmark = MOSTLY_SQLITE

KEY = AccountKey(tenant="acme", connection="peer", principal="anna")
PROFILE = Profile(
    name="peer",
    title="Peer",
    api_url="",
    authorize_url="",
    token_url="",
    client_auth=ClientAuth.BASIC,
    rotates=True,
    sends_iss=True,
)
PROFILES = {"peer": PROFILE}


class Peer:
    """Our side of the peer: its registration, and a person with a browser."""

    def __init__(self, world: World, oidc: Oidc, http: Client) -> None:
        self.world, self.oidc, self.http = world, oidc, http
        self.owner = ProviderConnection(
            id="peer",
            tenant=None,
            provider="peer",
            client_id=oidc.client_id,
            scopes=("openid", "api"),
            api_url=oidc.issuer,
            authorize_url=oidc.authorization_url,
            token_url=oidc.token_url,
            config={"issuer": oidc.issuer},
        )
        world.store.write(lambda connection: add_connection(connection, self.owner, now=world.clock.now))
        self.set_secret(oidc.client_secret)

    def set_secret(self, text: str) -> None:
        now = self.world.clock.now
        self.world.clock.advance(timedelta(seconds=1))
        secret = seal_secret(
            self.world.vault, self.owner, id=self.world.id(), name=CLIENT_SECRET, secret=Secret(text), now=now
        )
        self.world.store.write(lambda connection: add_secret(connection, secret))

    def retire_secrets(self) -> None:
        def retire(connection: Connection) -> None:
            for secret in live_secrets(connection, "peer", CLIENT_SECRET):
                retire_secret(connection, secret.id, at=self.world.clock.now)

        self.world.store.write(retire)

    def connect(self, *, refuse: bool = False) -> Outcome:
        world = self.world
        flow = Connect(
            world.store,
            world.vault,
            self.http,
            PROFILES,
            Signer.from_seed(bytes(32)),
            redirect_uri=lambda connection: self.oidc.redirect_uri,
            ids=world.id,
            token=lambda: secrets.token_urlsafe(32),
        )
        link = flow.start(KEY, now=world.clock.now)
        url = flow.authorize(link.text, browser="cookie", now=world.clock.now)
        assert isinstance(url, str)
        callback = self.oidc.consent(url, login=secrets.token_hex(4), refuse=refuse)
        params = dict(parse_qsl(urlsplit(callback).query))
        return flow.finish(
            params,
            browser="cookie",
            connection_id="peer",
            now=world.clock.now,
            also=lambda connection, key: None,
        )

    def coordinator(self, client: redis.Redis | None = None) -> Coordinator:
        budget = RefreshBudget(poll=timedelta(milliseconds=20))
        lock = RefreshLock(client, ttl=budget.lock_ttl, token=lambda: secrets.token_hex(8), prefix=f"{id(self)}:")
        world = self.world
        return Coordinator(
            world.store, world.vault, self.http, lock, PROFILES, clock=world.clock, ids=world.id, budget=budget
        )

    def token(self, name: str) -> str:
        return self.world.token(KEY, name)


@pytest.fixture
def peer(store: EngineStore, oidc: Oidc) -> Iterator[Peer]:
    world = World(store=store).build()
    policy = AddressPolicy(allow_hosts=frozenset({"127.0.0.1", "localhost"}))
    with Client(policy=policy, pool_size=32) as http:
        yield Peer(world, oidc, http)


def test_a_person_connects_and_the_tokens_are_good(peer: Peer, oidc: Oidc) -> None:
    outcome = peer.connect()
    assert isinstance(outcome, Connected)
    assert outcome.missing_scopes == ()
    assert oidc.is_active(peer.token(ACCESS))
    assert oidc.is_active(peer.token(REFRESH))


def test_declining_stores_nothing(peer: Peer) -> None:
    outcome = peer.connect(refuse=True)
    assert isinstance(outcome, ConnectRefused)
    assert "declined" in outcome.reason
    assert peer.world.generation(KEY) == 0


@pytest.mark.parametrize("with_redis", [True, False])
def test_sixteen_threads_rotate_an_expired_grant_once(
    peer: Peer, oidc: Oidc, valkey_client: redis.Redis, with_redis: bool
) -> None:
    connected = peer.connect()
    assert isinstance(connected, Connected)
    coordinators = [peer.coordinator(valkey_client if with_redis else None) for _ in range(16)]
    for generation in range(1, 3):
        presented = peer.token(REFRESH)
        with ThreadPoolExecutor(16) as pool:
            refreshed = [
                pool.submit(coordinator.refresh, connected.account, after_generation=generation)
                for coordinator in coordinators
            ]
            assert {each.result() for each in refreshed} == {generation + 1}
        assert [shown.outcome for shown in oidc.log(presented)] == ["ok"]
    assert oidc.is_active(peer.token(ACCESS))
    assert oidc.is_active(peer.token(REFRESH))


def test_a_grant_that_died_at_the_provider_waits_for_a_person(peer: Peer, oidc: Oidc) -> None:
    connected = peer.connect()
    assert isinstance(connected, Connected)
    stolen = peer.token(REFRESH)
    oidc.refresh(stolen)
    with pytest.raises(ReauthRequired, match="invalid_grant"):
        peer.coordinator().refresh(connected.account, after_generation=1)
    assert peer.world.state(KEY) is AccountState.NEEDS_RECONNECT
    assert isinstance(peer.connect(), Connected)
    assert peer.coordinator().refresh(connected.account, after_generation=3) == 4


def test_a_wrong_client_secret_costs_no_grant(peer: Peer, oidc: Oidc) -> None:
    connected = peer.connect()
    assert isinstance(connected, Connected)
    peer.retire_secrets()
    peer.set_secret("not the secret")
    with pytest.raises(Misconfigured):
        peer.coordinator().refresh(connected.account, after_generation=1)
    assert peer.world.state(KEY) is AccountState.ACTIVE
    peer.set_secret(oidc.client_secret)
    assert peer.coordinator().refresh(connected.account, after_generation=1) == 2
    assert oidc.is_active(peer.token(ACCESS))
