"""Connecting and refreshing against a certified authorization server that rotates and detects reuse."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from identity.accounts.grants import ACCESS, REFRESH
from identity.connect.flow import Connected, ConnectRefused
from identity.errors import Misconfigured, ReauthRequired
from identity.model import AccountState
from tests.identity.peer import KEY, Peer
from tests.ledgers import MOSTLY_SQLITE
from tests.servers.oidc import Oidc

pytestmark = MOSTLY_SQLITE


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
