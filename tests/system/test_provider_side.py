"""What was revoked here is dead at GitHub too, by the sandbox's own log: real processes, on both databases.

What Slack and Linear do is asked in each round of tests/faults/test_revocation_rounds.py.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from deploy.demo import people
from deploy.demo.provision import GITHUB
from identity.accounts.grants import ACCESS, get_grant, token_binding
from identity.errors import GrantRevoked
from identity.model import AccountKey
from identity.refresh.intents import IntentState
from identity.refresh.tables import refresh_intents
from identity.tables import accounts
from tests.faults.revoking import aswhom
from tests.servers.process import free_port
from tests.system.rig import System


def account_of(system: System, tenant: str, login: str) -> str:
    """The id of an account at GitHub."""
    is_it = (accounts.c.connection_id == GITHUB) & (accounts.c.principal_id == f"{tenant}.{login}")
    (row,) = system.rows(select(accounts.c.id).where(is_it))
    return str(row.id)


def token(system: System, account: str, tenant: str = "acme") -> str:
    """The present access token of an account at GitHub."""
    grant = system.runtime.database.read(lambda c: get_grant(c, account))
    assert grant is not None
    assert grant.access_sealed is not None
    binding = token_binding(tenant, account, "github", ACCESS, grant.generation)
    return system.runtime.vault.open(grant.access_sealed, binding).reveal()


def is_taken(system: System, access: str) -> bool:
    headers = {"Authorization": f"Bearer {access}"}
    return system.http.get(f"{system.world['github']['url']}/user", headers=headers).status_code == 200


def asked(system: System) -> list[Any]:
    """The requests by which GitHub was asked to end an authorization, by its own log."""
    return [entry for entry in system.sandbox("github", "log") if entry["revocation"] is not None]


def stuck(system: System, port: int) -> list[float]:
    """How many withdrawals wait for an operator, by the metrics of the running housekeeping, once it has counted."""
    try:
        text = system.http.get(f"http://127.0.0.1:{port}/metrics").text
    except httpx.TransportError:  # it is still starting
        return []
    lines = [line for line in text.splitlines() if line.startswith('aswhom_withdrawals{state="stuck"}')]
    return [float(line.rpartition(" ")[2]) for line in lines]


def provider_of(system: System, made: str) -> Any:
    receipt = system.receipt(made)
    return None if receipt is None else receipt["provider"]["answer"]


@pytest.mark.timeout(500)
def test_revoked_tokens_die_at_the_provider_with_what_a_refresh_won_and_a_later_consent_lives(
    system: System,
) -> None:
    """One story, since starting the processes takes longer than all of it."""
    metrics = free_port()
    system.kill("housekeeping")
    system.start("housekeeping", ASWHOM_HOUSEKEEPING_METRICS_PORT=str(metrics))
    system.connect("acme", "ada")
    scope, account = system.account("acme", GITHUB, "ada"), account_of(system, "acme", "ada")
    old = token(system, account)
    assert is_taken(system, old)
    made = system.revoke_and_ring(scope, "acme")
    system.wait(lambda: provider_of(system, made) == "done", "that GitHub has ended the authorization")
    assert not is_taken(system, old)
    assert [entry["status"] for entry in asked(system)] == [204]

    # GitHub's own signal of that finds the account revoked; the person connects again, and that lives.
    system.connect("acme", "ada")
    new = token(system, account)
    assert is_taken(system, new)
    again = system.revoke_and_ring(scope, "acme")
    system.wait(lambda: provider_of(system, again) == "done", "that GitHub has ended the second one")
    assert not is_taken(system, new)

    # A refresh is on the wire when its grant is revoked: what it wins is nobody's, and ends too.
    system.connect("acme", "ada")
    generation = system.runtime.database.read(lambda c: get_grant(c, account))
    assert generation is not None
    system.order("auth", "faults", mode="delay", endpoint="github", seconds=18, times=1)
    ended: list[BaseException] = []

    def refresh() -> None:
        with pytest.raises(GrantRevoked) as caught:
            system.runtime.coordinator.refresh(account, after_generation=generation.generation)
        ended.append(caught.value)

    thread = threading.Thread(target=refresh)
    thread.start()
    on_the_wire = select(refresh_intents).where(refresh_intents.c.state == IntentState.OPEN)
    system.wait(lambda: system.rows(on_the_wire), "the refresh on the wire")
    (refreshing,) = system.rows(on_the_wire)
    third = system.revoke_and_ring(scope, "acme")
    system.order("auth", "release")
    thread.join()
    system.wait(lambda: provider_of(system, third) == "done", "that GitHub has ended what the refresh won")
    receipt = system.receipt(third)
    assert receipt is not None
    assert {one["of"] for one in receipt["provider"]["accounts"]} == {"grant", "refresh"}
    told = [(one["id"], one["kind"], one["outcome"]) for one in receipt["token_requests"]]
    assert told == [(refreshing.id, "refresh", "discarded")]
    assert len(ended) == 1
    assert [entry["status"] for entry in asked(system)].count(204) == 3

    # She has consented for another tenant as well, which GitHub would end with the first: an operator has to decide.
    system.connect("acme", "ada")
    key = AccountKey(tenant="globex", connection=GITHUB, principal="globex.linus")
    people.connect(system.runtime, key, web=system.web, login="ada", now=datetime.now(UTC))
    other, before = account_of(system, "globex", "linus"), len(asked(system))
    kept = token(system, account), token(system, other, "globex")
    left = system.revoke_and_ring(scope, "acme")
    system.wait(lambda: provider_of(system, left) == "stuck", "that the withdrawal is left to an operator")
    assert [is_taken(system, one) for one in kept] == [True, True]
    assert len(asked(system)) == before, "GitHub was asked to end it"
    assert [row["id"] for row in aswhom(system, "revocations", "list", "--stuck")] == [left]
    system.wait(lambda: stuck(system, metrics) == [1], "that housekeeping counts it")
    last = system.revoke_and_ring(system.account("globex", GITHUB, "linus"), "globex")
    system.wait(lambda: provider_of(system, last) == "done", "that GitHub has ended the other consent")
    assert provider_of(system, left) == "stuck", "nobody said to ask again"
    assert aswhom(system, "revocations", "retry", left)["asked_again"] == 1
    system.wait(lambda: provider_of(system, left) == "done", "that GitHub was asked again")
    assert [is_taken(system, one) for one in kept] == [False, False]
    system.wait(lambda: stuck(system, metrics) == [0], "that housekeeping counts none any more")
