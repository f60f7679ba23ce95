"""Consents, revocations and refreshes at once: no token of a consent outlives its revocation."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

from sqlalchemy import select

from identity.audit.tables import audit
from identity.errors import GrantRevoked, ReauthRequired, Unavailable
from identity.http.client import Client
from identity.model import AccountState, Scope, ScopeKind
from identity.refresh.tables import refresh_intents
from identity.token_endpoint.budget import RefreshBudget
from tests.identity.coordinators import MakeCoordinator
from tests.identity.providers import PretendProvider
from tests.identity.world import ANNA, World
from tests.ledgers import MOSTLY_SQLITE

ENOUGH = 1  # committed refresh among the revocations
AT_MOST = 60.0  # seconds, on a busy machine
# Seconds between revocations: some in a row, and now and then long enough for a slow machine to refresh.
PAUSES = (0.0, 0.05, 0.2, 1.0, 2.0)
SCOPES = (Scope(kind=ScopeKind.USER, key="anna"), Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA)))


@MOSTLY_SQLITE
def test_no_refresh_commits_after_a_revocation_of_its_consent(
    connected: World, http: Client, provider: PretendProvider
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    account = connected.consent()
    stop = threading.Event()
    budget = RefreshBudget(poll=timedelta(milliseconds=5), wait=timedelta(seconds=2))

    def consent(number: int) -> None:
        choice = random.Random(seed + number)
        while not stop.is_set():
            with suppress(Unavailable):  # too many rivals for one generation
                connected.try_consent()
            time.sleep(choice.uniform(0, 0.15))

    def revoke(number: int) -> list[int]:
        choice, revoked = random.Random(seed + number), []
        while not stop.is_set():
            revoked.append(connected.revoke(choice.choice(SCOPES)))
            time.sleep(choice.choice(PAUSES))
        return revoked

    def refresh(_number: int) -> None:
        coordinator = MakeCoordinator(connected, http)(budget=budget)
        while not stop.is_set():
            with suppress(GrantRevoked, ReauthRequired, Unavailable):
                coordinator.refresh(account, after_generation=connected.generation())

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(consent, n) for n in (1, 2)] + [pool.submit(refresh, n) for n in (3, 4, 5)]
        revoking = [pool.submit(revoke, n) for n in (6, 7)]
        end = time.monotonic() + AT_MOST
        while connected.audited("grant.refreshed") < ENOUGH and time.monotonic() < end:
            time.sleep(0.1)
        stop.set()
        for each in running:
            each.result()
        revocations = sorted(number for each in revoking for number in each.result())

    committed = connected.store.read(
        lambda connection: connection.execute(
            select(audit.c.number, refresh_intents.c.consented)
            .join(refresh_intents, refresh_intents.c.generation == audit.c.generation - 1)
            .where(audit.c.kind == "grant.refreshed")
        ).all()
    )
    assert committed
    assert revocations
    for at, consented in committed:
        assert not [number for number in revocations if consented < number < at], f"seed {seed}"
    presented = connected.store.read(lambda connection: connection.execute(select(refresh_intents.c.presented)).all())
    assert {count for (count,) in presented} == {1}
    assert provider.presented.total() == len(presented)
    assert connected.state() in (AccountState.ACTIVE, AccountState.REVOKED)
