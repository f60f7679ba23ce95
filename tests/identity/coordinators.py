"""Coordinators, each as a process of its own has one, and what they leave in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis
from sqlalchemy import Connection, select

from identity.http.client import Client
from identity.keys.vault import Vault
from identity.model import AccountKey
from identity.providers import PROFILES
from identity.providers.profile import Profile
from identity.refresh.coordinator import Coordinator
from identity.refresh.lock import RefreshLock
from identity.refresh.parts import RefreshParts
from identity.refresh.tables import refresh_intents
from identity.sql.store import Store
from identity.token_endpoint.budget import RefreshBudget
from identity.token_endpoint.endpoint import TokenEndpoint
from identity.token_endpoint.gate import Gate
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


def put_together(
    store: Store,
    vault: Vault,
    http: Client,
    lock: RefreshLock,
    profiles: Mapping[str, Profile],
    *,
    clock: Callable[[], datetime],
    budget: RefreshBudget | None = None,
    gate: Gate | None = None,
    restored: Callable[[Connection, AccountKey], None] = lambda connection, key: None,
    **more: Any,
) -> Coordinator:
    """A coordinator over these, as a process has one; without *gate*, one of its own by the same clock."""
    budget = budget or RefreshBudget()
    gate = gate or Gate(None, monotonic=lambda: clock().timestamp())
    endpoint = TokenEndpoint(client=http, budget=budget.http, gate=gate)
    parts = RefreshParts(
        store=store,
        vault=vault,
        endpoint=endpoint,
        profiles=profiles,
        clock=clock,
        budget=budget,
        restored=restored,
        **more,
    )
    return Coordinator(parts, lock)


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
        gate: Gate | None = None,
        sleep: Callable[[float], None] = time.sleep,
        profiles: Mapping[str, Profile] = PROFILES,
    ) -> Coordinator:
        """*client* None: without a lock that others know of; *profile* stands for GitHub's among *profiles*."""

        def dies(point: str) -> None:
            if point == die_at:
                raise Killed(point)

        world = self.world
        return put_together(
            store or world.store,
            world.vault,
            self.http,
            RefreshLock(client, ttl=budget.lock_ttl, token=world.id),
            dict(profiles) | ({"github": profile} if profile else {}),
            clock=world.clock,
            ids=world.id,
            budget=budget,
            reached=reached or dies,
            restored=restored,
            monotonic=monotonic,
            gate=gate,
            sleep=sleep,
        )


def intents(world: World) -> list[Any]:
    """The ledger's rows of refreshes, in the order of generations."""
    statement = select(refresh_intents).order_by(refresh_intents.c.generation)
    return list(world.store.read(lambda connection: connection.execute(statement).all()))
