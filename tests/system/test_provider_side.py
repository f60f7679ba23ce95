"""What was revoked here is dead at the sandbox too, by its own log: real processes from the commit to the receipt."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import select

from identity.accounts.grants import ACCESS, get_grant, token_binding
from identity.errors import GrantRevoked
from identity.refresh.intents import IntentState
from identity.refresh.tables import refresh_intents
from identity.tables import accounts
from tests.system.conftest import Start
from tests.system.rig import System


def token(system: System, account: str) -> str:
    """Ada's present access token at GitHub."""
    grant = system.runtime.database.read(lambda c: get_grant(c, account))
    assert grant is not None
    assert grant.access_sealed is not None
    binding = token_binding("acme", account, "github", ACCESS, grant.generation)
    return system.runtime.vault.open(grant.access_sealed, binding).reveal()


def is_taken(system: System, access: str) -> bool:
    headers = {"Authorization": f"Bearer {access}"}
    return system.http.get(f"{system.world['github']['url']}/user", headers=headers).status_code == 200


def asked(system: System) -> list[Any]:
    """The requests by which GitHub was asked to end an authorization, by its own log."""
    return [entry for entry in system.sandbox("github", "log") if entry["revocation"] is not None]


def provider_of(system: System, made: str) -> Any:
    receipt = system.receipt(made)
    return None if receipt is None else receipt["provider"]["answer"]


@pytest.mark.timeout(500)
def test_revoked_tokens_die_at_the_provider_with_what_a_refresh_won_and_a_later_consent_lives(
    start_system: Start,
) -> None:
    """One story, since starting the processes takes longer than all of it."""
    system = start_system()
    system.start("web", "revocations", "housekeeping")
    system.connect("acme", "ada")
    scope = system.account("acme", "github", "ada")
    (account,) = [
        row.id
        for row in system.rows(select(accounts))
        if row.principal_id == "acme.ada" and row.connection_id == "github"
    ]
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
