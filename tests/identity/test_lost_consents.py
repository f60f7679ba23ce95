"""A consent whose commit was not confirmed is stored once, whatever became of the commit; or nobody knows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import pytest
from sqlalchemy import Connection, select

from identity.audit.tables import audit
from identity.errors import Unavailable, Unconfirmed
from identity.model import Credential, Scope, ScopeKind
from identity.sql.store import CommitUnknown
from tests.identity.stores import EngineStore, FailingStore
from tests.identity.world import ROBOT, World
from tests.ledger.acts import AWAITED
from tests.waiting import eventually

T = TypeVar("T")


def connect(world: World, faults: dict[int, str]) -> str:
    """The robot's account, connected where these of the writes fail: the first is for a number."""
    failing = World(FailingStore(world.store, faults), vault=world.vault, clock=world.clock)  # type: ignore[arg-type]
    return failing.service(Credential.STATIC, token="t-1")


def connected(world: World) -> list[int]:
    """The generations that the audit says the robot's account was connected at."""
    rows = select(audit.c.generation).where(audit.c.kind == "account.connected")
    return list(world.store.read(lambda c: c.execute(rows).scalars()))


@pytest.mark.parametrize("faults", [{2: "commit unseen"}, {2: "commit lost"}, {2: "commit unseen", 3: "commit unseen"}])
def test_a_consent_whose_commit_was_not_confirmed_is_stored_once(world: World, faults: dict[int, str]) -> None:
    connect(world, faults)
    assert (world.generation(ROBOT), connected(world)) == (1, [1])


def test_a_consent_that_may_be_stored_is_not_called_undone(world: World) -> None:
    with pytest.raises(Unconfirmed):
        connect(world, {2: "commit unseen", 3: "no turn"})
    with pytest.raises(Unconfirmed):
        connect(world, dict.fromkeys(range(2, 10), "commit lost"))
    with pytest.raises(Unavailable) as told:
        connect(world, {2: "no turn"})
    assert not isinstance(told.value, Unconfirmed)


class Underway(EngineStore):
    """Loses sight of its second commit, which is done once another transaction waits for it."""

    writes = 0

    def write(self, fn: Callable[[Connection], T]) -> T:
        self.writes += 1
        if self.writes != 2:
            return super().write(fn)
        connection = self.engine.connect()
        connection.begin()
        fn(connection)
        self.under_way = threading.Thread(target=self._commit, args=(connection,))
        self.under_way.start()
        raise CommitUnknown("the connection broke in COMMIT")

    @staticmethod
    def _commit(connection: Connection) -> None:
        with connection:  # it is rolled back should nobody come
            eventually(lambda: connection.execute(AWAITED).scalar_one(), what="another transaction waits for it")
            connection.commit()


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)  # SQLite has one writer
def test_so_is_one_whose_commit_was_under_way(world: World) -> None:
    store = Underway(world.store.engine)
    try:
        World(store, vault=world.vault, clock=world.clock).service(Credential.STATIC, token="t-1")
    finally:
        store.under_way.join()
    assert (world.generation(ROBOT), connected(world)) == (1, [1])


def test_a_consent_that_was_revoked_before_it_was_confirmed_was_given(world: World) -> None:
    class Revoked(FailingStore):
        def write(self, fn: Callable[[Connection], T]) -> T:
            if self.writes == 2:
                world.revoke(Scope(kind=ScopeKind.TENANT, key="acme"))
            return super().write(fn)

    store = Revoked(world.store, {2: "commit unseen"})
    World(store, vault=world.vault, clock=world.clock).service(Credential.STATIC, token="t-1")  # type: ignore[arg-type]
    assert connected(world) == [1]
