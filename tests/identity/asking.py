"""A provider asked to end what a connect had won."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import select

from identity.http.client import Client
from identity.keys.vault import Vault
from identity.providers.profile import Profile
from identity.token_endpoint.endpoint import TokenEndpoint
from identity.token_endpoint.gate import Gate
from identity.withdrawals.budget import WithdrawalBudget
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawer import Withdrawer
from tests.identity.world import World


def ask(
    world: World,
    http: Client,
    profile: Profile,
    *,
    tries: int = 12,
    vault: Vault | None = None,
    keyless: timedelta = timedelta(days=1),
) -> Any:
    """Ask once about the one withdrawal there is; its row."""
    endpoint = TokenEndpoint(client=http, budget=timedelta(seconds=10), gate=Gate(None))
    withdrawer = Withdrawer(
        world.store,
        vault or world.vault,
        endpoint,
        {profile.name: profile},
        clock=world.clock,
        ids=world.id,
        budget=WithdrawalBudget(tries=tries, keyless=keyless),
    )
    (row,) = world.store.read(lambda c: c.execute(select(withdrawals)).all())
    withdrawer.ask(row.id)
    (row,) = world.store.read(lambda c: c.execute(select(withdrawals)).all())
    return row
