"""Coordinators, each as a process of its own has one, and what they leave in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import redis
from sqlalchemy import Connection, select

from identity.http import Client
from identity.model import AccountKey
from identity.providers import PROFILES
from identity.providers.profile import Profile
from identity.refresh.coordinator import Coordinator, RefreshBudget
from identity.refresh.lock import RefreshLock
from identity.store import Store
from identity.tables import refresh_intents
from tests.identity.world import World

# Whatever of it runs out by the wall clock has to outlast a busy machine.
BUDGET = RefreshBudget(
    send=timedelta(seconds=20),
    http=timedelta(seconds=20),
    store=timedelta(seconds=30),
    wait=timedelta(seconds=60),
    poll=timedelta(milliseconds=20),
)
# After so long a refresh that is open is taken for abandoned.
ABANDONED_AFTER = BUDGET.send + BUDGET.http + timedelta(seconds=1)


class Killed(BaseException):
    """The process dies at a crash point."""


@dataclass(frozen=True)
class MakeCoordinator:
    """Each call makes another process's."""

    world: World
    http: Client

    def __call__(
        self,
        *,
        client: redis.Redis | None = None,
        profile: Profile | None = None,
        die_at: str | None = None,
        budget: RefreshBudget = BUDGET,
        reached: Callable[[str], None] | None = None,
        restored: Callable[[Connection, AccountKey], None] = lambda connection, key: None,
        store: Store | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Coordinator:
        """*client* None: without a lock that others know of; *profile* is what there is known of GitHub."""

        def dies(point: str) -> None:
            if point == die_at:
                raise Killed(point)

        world = self.world
        return Coordinator(
            store or world.store,
            world.vault,
            self.http,
            RefreshLock(client, ttl=budget.lock_ttl, token=world.id),
            dict(PROFILES) | ({"github": profile} if profile else {}),
            clock=world.clock,
            ids=world.id,
            budget=budget,
            reached=reached or dies,
            restored=restored,
            monotonic=monotonic,
        )


def intents(world: World) -> list[Any]:
    """The ledger's rows of refreshes, in the order of generations."""
    statement = select(refresh_intents).order_by(refresh_intents.c.generation)
    return list(world.store.read(lambda connection: connection.execute(statement).all()))
