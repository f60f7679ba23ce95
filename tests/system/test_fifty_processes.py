"""Fifty processes at one expired token, against a certified authorization server that detects reuse."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from identity.accounts.grants import ACCESS, REFRESH
from identity.connect.flow import Connected
from identity.http.client import Client
from pipeline.db.database import Database, DatabaseSettings
from pipeline.migrations import upgrade_at
from tests.identity.peer import Peer
from tests.identity.world import World
from tests.ledgers import open_ledger
from tests.servers.oidc import Oidc
from tests.servers.valkey import Valkey
from tests.system.rig import ROOT
from tests.waiting import PATIENCE

PROCESSES = 50


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    upgrade_at(DatabaseSettings(url=database_url))
    opened = open_ledger(database_url)
    yield opened
    opened.close()


@pytest.fixture
def peer(database: Database, oidc: Oidc, http: Client) -> Peer:
    return Peer(World(store=database).build(), oidc, http)  # type: ignore[arg-type]  # any Store serves


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize("with_redis", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_fifty_processes_rotate_an_expired_grant_once(
    peer: Peer, oidc: Oidc, own_valkey: Valkey, database_url: str, with_redis: bool
) -> None:
    connected = peer.connect()
    assert isinstance(connected, Connected)
    presented = peer.token(REFRESH)
    asked = {
        "database": database_url,
        "redis": own_valkey.url if with_redis else None,
        "account": connected.account,
        "generation": 1,
        "processes": PROCESSES,
    }
    command = [sys.executable, "-m", "tests.system.fifty", json.dumps(asked)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.split() == ["2"] * PROCESSES
    assert [shown.outcome for shown in oidc.log(presented)] == ["ok"]
    assert oidc.is_active(peer.token(ACCESS))
