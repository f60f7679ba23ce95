"""Accounts of services, and coordinators that renew their tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from identity.audit import Act
from identity.connect.consents import connect_service
from identity.http.client import Client
from identity.minting.service_credential import ServiceCredential
from identity.model import AccountKey, Credential
from identity.providers import PROFILES
from identity.refresh.coordinator import Coordinator
from identity.refresh.lock import RefreshLock
from tests.identity.coordinators import BUDGET, put_together
from tests.identity.world import ROBOT, World

Make = Callable[..., tuple[World, Coordinator]]


def coordinator_of(world: World, http: Client, client: redis.Redis | None = None) -> Coordinator:
    """One as a process has it: *client* None, without a lock that others know of."""
    lock = RefreshLock(client, ttl=BUDGET.lock_ttl, token=world.id)
    return put_together(world.store, world.vault, http, lock, PROFILES, clock=world.clock, ids=world.id, budget=BUDGET)


def service(
    world: World, credential: Credential, *, key: AccountKey = ROBOT, scopes: tuple[str, ...] = ("a", "b"), **given: Any
) -> str:
    """An admin's consent, with what is *given* as the credential; the account's id."""
    return connect_service(
        world.store,
        world.vault,
        key,
        ServiceCredential(kind=credential, **given),
        Act(audit_id=world.id(), by="admin:eve", now=world.clock.now),
        id=world.id(),
        provider=world.provider,
        scopes=scopes,
        also=lambda connection, key: None,
    ).account
