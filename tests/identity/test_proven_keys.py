"""A vault whose keys are not the ledger's seals nothing, whoever came first."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
from sqlalchemy import Connection, update

from identity.connections.secrets import CLIENT_SECRET, SealedSecret, add_secret, live_secrets, seal_secret
from identity.errors import Misconfigured, Unavailable
from identity.keys.vault import Vault
from identity.sealed.proven_keys import prove, proves
from identity.secret import Secret
from identity.sql.store import Store
from identity.tables import connection_secrets
from tests.identity.world import World

T = TypeVar("T")
ONE, TWO, THREE = b"1" * 32, b"2" * 32, b"3" * 32


def vault(world: World, keys: dict[int, bytes]) -> Vault:
    """A process's, started now."""
    return Vault(keys, os.urandom, proves=partial(proves, world.store))


def sealed(world: World, by: Vault, *, id: str) -> SealedSecret:
    return seal_secret(by, world.owner, id=id, name=CLIENT_SECRET, secret=Secret("canary"), now=world.clock())


def seal(world: World, by: Vault, *, id: str) -> None:
    secret = sealed(world, by, id=id)
    world.store.write(lambda c: add_secret(c, secret))


@pytest.fixture
def world(world: World) -> World:
    """One in which nothing is sealed."""
    world.store.write(lambda c: c.execute(connection_secrets.delete()))
    return world


def test_of_two_hosts_with_keys_of_their_own_the_first_that_sealed_is_the_ledgers(world: World) -> None:
    early, late = vault(world, {1: ONE}), vault(world, {1: TWO})
    sealed(world, late, id="sec-0")  # and never written: it found nothing that speaks against it
    seal(world, early, id="sec-1")
    with pytest.raises(Misconfigured, match="vault key 1 is not the ledger's"):
        seal(world, late, id="sec-2")
    seal(world, early, id="sec-3")


def test_a_second_key_that_two_hosts_made_each_is_the_first_ones(world: World) -> None:
    seal(world, vault(world, {1: ONE}), id="sec-1")
    early, late = vault(world, {1: ONE, 2: TWO}), vault(world, {1: ONE, 2: THREE})
    seal(world, early, id="sec-2")
    with pytest.raises(Misconfigured, match="vault key 2 is not the ledger's"):
        seal(world, late, id="sec-3")


def test_it_is_found_when_a_secret_is_opened_before_anything_is_asked_of_a_provider(world: World) -> None:
    seal(world, vault(world, {1: ONE}), id="sec-1")
    seal(world, vault(world, {1: ONE, 2: TWO}), id="sec-2")
    found = {one.id: one for one in world.store.read(lambda c: live_secrets(c, "forge", CLIENT_SECRET))}
    with pytest.raises(Misconfigured, match="vault key 2 is not the ledger's"):
        found["sec-1"].open(vault(world, {1: ONE, 2: THREE}))


def test_one_secret_that_was_altered_does_not_stop_the_others(world: World) -> None:
    for number in (1, 2):
        seal(world, vault(world, {1: ONE}), id=f"sec-{number}")
    head = vault(world, {1: ONE}).heads()[1]
    altered = update(connection_secrets).where(connection_secrets.c.id == "sec-1").values(sealed=head + bytes(100))
    world.store.write(lambda c: c.execute(altered))
    seal(world, vault(world, {1: ONE}), id="sec-3")


def test_a_ledger_that_is_away_takes_nothing_from_who_has_the_right_key(world: World) -> None:
    class Away:
        """The ledger, away once."""

        asked = 0

        def write(self, fn: Callable[[Connection], T]) -> T:
            return world.store.write(fn)

        def read(self, fn: Callable[[Connection], T]) -> T:
            self.asked += 1
            if self.asked == 1:
                raise Unavailable("away")
            return world.store.read(fn)

    seal(world, vault(world, {1: ONE}), id="sec-1")
    store: Store = Away()
    seal(world, Vault({1: ONE}, os.urandom, proves=partial(proves, store)), id="sec-2")
    other = Vault({1: TWO}, os.urandom, proves=partial(proves, store))
    with pytest.raises(Misconfigured, match="vault key 1 is not the ledger's"):
        seal(world, other, id="sec-3")


def test_as_a_process_begins_few_are_looked_through_unless_that_shows_nothing(world: World) -> None:
    """The later ones are another key's: to find that none of the first is would take a look through all."""
    early, late = vault(world, {1: ONE}), vault(world, {2: TWO})
    seal(world, early, id="sec-1")
    seal(world, vault(world, {1: ONE, 2: TWO}), id="sec-2")
    at_start = partial(prove, among=1)
    assert not world.store.read(partial(at_start, vault=vault(world, {1: ONE, 2: THREE}))), "not seen so soon"
    with pytest.raises(Misconfigured, match="vault key 1 is not the ledger's"):
        world.store.read(partial(at_start, vault=vault(world, {1: THREE, 2: TWO})))
    assert world.store.read(partial(at_start, vault=late)), "all are looked through"
