"""Ledgers, a pretend provider and the guarded client for the tests of identity."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
import redis

from identity.connections.registry import rewrite_connection
from identity.connections.secrets import PRIVATE_KEY, add_secret, seal_secret
from identity.http.client import Client
from identity.refresh.coordinator import Coordinator
from identity.secret import Secret
from tests.identity.browser_flow import BrowserFlow
from tests.identity.coordinators import MakeCoordinator
from tests.identity.keys import pem
from tests.identity.peer import Peer
from tests.identity.providers import PretendProvider, pretend_provider
from tests.identity.services import Make, coordinator_of
from tests.identity.stores import EngineStore, open_store
from tests.identity.world import World
from tests.servers.oidc import Oidc
from tests.servers.oidc import oidc as run_oidc
from tests.servers.postgres import Emptied
from tests.servers.valkey import Valkey


@pytest.fixture(scope="session")
def _slow_oidc() -> Iterator[Oidc]:
    with run_oidc(store_latency=timedelta(milliseconds=10)) as server:
        yield server


@pytest.fixture(params=["atomic store", pytest.param("slow store", marks=pytest.mark.slow)])
def oidc(request: pytest.FixtureRequest, oidc: Oidc) -> Oidc:
    """The certified server, and one whose store is not atomic: two uses of one token at once can both succeed."""
    slow: Oidc = request.getfixturevalue("_slow_oidc") if request.param == "slow store" else oidc
    return slow


@pytest.fixture(scope="session")
def _postgres_store(migrated_postgres: Emptied) -> Iterator[EngineStore]:
    """Opened once: a new connection takes longer than most of what is asked of it."""
    opened = open_store(migrated_postgres.url)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def store(ledger_url: str, request: pytest.FixtureRequest) -> Iterator[EngineStore]:
    """An empty ledger on each database."""
    if not (ledger_url.startswith("sqlite") or request.node.get_closest_marker("as_owner")):
        yield request.getfixturevalue("_postgres_store")
        return
    opened = open_store(ledger_url)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def world(store: EngineStore) -> World:
    return World(store=store).build()


@pytest.fixture
def provider() -> Iterator[PretendProvider]:
    with pretend_provider() as pretend:
        yield pretend


@pytest.fixture
def connected(store: EngineStore, provider: PretendProvider) -> World:
    """A world whose provider connection leads to the pretend provider."""
    return World(store=store, url=provider.url).build()


@pytest.fixture
def make_coordinator(connected: World, http: Client) -> MakeCoordinator:
    return MakeCoordinator(connected, http)


@pytest.fixture
def valkey_client(valkey: Valkey) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


@pytest.fixture
def peer(store: EngineStore, oidc: Oidc, http: Client) -> Peer:
    return Peer(World(store=store).build(), oidc, http)


@pytest.fixture
def make(store: EngineStore, provider: PretendProvider, http: Client) -> Make:
    """A world at one provider, with a key, and a coordinator."""

    def build(name: str, **config: str) -> tuple[World, Coordinator]:
        world = World(store=store, url=provider.url, provider=name).build()
        owner = replace(world.owner, config=config)
        key = seal_secret(world.vault, owner, id="key-1", name=PRIVATE_KEY, secret=Secret(pem()), now=world.clock.now)
        store.write(lambda connection: rewrite_connection(connection, owner))
        store.write(lambda connection: add_secret(connection, key))
        return world, coordinator_of(world, http)

    return build


@pytest.fixture
def flow(connected: World, http: Client) -> BrowserFlow:
    return BrowserFlow(world=connected, http=http)
