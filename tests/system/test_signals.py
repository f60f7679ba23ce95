"""Signals end to end: the sandbox's senders, the web process, workers and the receipt, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from identity.model import AccountState, Scope, ScopeKind
from identity.tables import accounts
from pipeline.revocation.tables import revocations
from pipeline.states import JobState, Wait
from pipeline.tables import deliveries
from tests.system.rig import System


def state(system: System, principal: str, connection: str = "github") -> str:
    found = select(accounts.c.state).where(accounts.c.principal_id == principal, accounts.c.connection_id == connection)
    (row,) = system.rows(found)
    return str(row.state)


def newest(system: System) -> Any:
    return system.rows(select(revocations).order_by(revocations.c.number.desc()))[0]


def answer(system: System, revocation: str) -> str | None:
    """What the receipt says of the providers."""
    receipt = system.receipt(revocation)
    return None if receipt is None else str(receipt["provider"]["answer"])


@pytest.mark.timeout(600)
def test_a_suspension_parks_a_replay_and_an_echo_are_told_and_what_came_after_a_revocation_goes_on_once_reconnected(
    system: System,
) -> None:
    """One story, since starting the processes takes longer than all of it."""
    system.connect("acme", "ada")
    where = "installations/9001"

    # Suspended: the job parks at the step that needs the service, and goes on when it is over.
    system.order("github", f"{where}/suspend")
    assert state(system, "acme.service") == AccountState.SUSPENDED
    system.pull("acme/shop", "ada", "bug")
    (parked,) = system.settled()
    assert (parked.state, parked.wait) == (JobState.WAITING, Wait.CONSENT)
    system.order("github", f"{where}/unsuspend")
    system.wait(lambda: system.jobs()[0].state == JobState.DONE, "that the parked job is done")

    # Revoked, reconnected, revoked by the same bytes, which this time are not true.
    system.order("github", "authorizations/revoke", user="ada")
    assert state(system, "acme.ada") == AccountState.REVOKED
    system.pull("acme/shop", "ada", "bug")
    system.wait(lambda: system.jobs()[1].state == JobState.WAITING, "that the later job waits for consent")
    told = newest(system).id
    system.wait(lambda: system.receipt(told) is not None, "the receipt, since GitHub is through with the old consent")
    system.connect("acme", "ada")
    system.wait(lambda: system.jobs()[1].state == JobState.DONE, "that the later job is done after the reconnect")
    system.order("github", "authorizations/revoke", user="ada", signal_only=True)
    assert state(system, "acme.ada") == AccountState.REVOKED
    replayed = newest(system).id
    system.wait(lambda: system.receipt(replayed) is not None, "the receipt of the replayed signal")
    assert newest(system).receipt["doubt"] == "alive"

    # Ended by a request of our own, of all that she has: GitHub echoes it, and only when she has connected again.
    system.order("github", "authorizations/echoes", hold=True)
    system.connect("acme", "ada")
    ended = system.revoke_and_ring(Scope(kind=ScopeKind.USER, key="acme.ada"), "acme")
    system.wait(lambda: answer(system, ended) == "done", "that her credentials have ended at their providers")
    assert state(system, "acme.ada") == AccountState.ACTIVE, "what is revoked above an account leaves its state alone"
    system.connect("acme", "ada")
    (echo,) = [one for one in system.sandbox("github", "deliveries") if one["late"]]
    assert echo["event"] == "github_app_authorization"
    system.order("github", "deliver", delivery=echo["guid"])
    assert state(system, "acme.ada") == AccountState.REVOKED
    echoed = newest(system).id
    system.wait(lambda: system.receipt(echoed) is not None, "the receipt of the echo")
    assert (newest(system).receipt["doubt"], answer(system, echoed)) == ("alive", "not_asked")
    system.order("github", "authorizations/echoes", hold=False)

    # Deleted, and told of only after the app was installed anew.
    held = system.order("github", f"{where}/delete", hold=True)
    system.order("github", f"{where}/reinstall")
    before = system.count(revocations)
    system.order("github", "deliver", delivery=held["deliveries"][0])
    assert system.count(revocations) == before + 1  # the account is still the old installation's here
    system.order("github", "deliver", delivery=held["deliveries"][0])
    assert system.count(revocations) == before + 1

    # Thrown out of a Slack workspace: told twice.
    team = system.world["slack"]["workspaces"][0]["team_id"]
    system.order("slack", "uninstall", team_id=team, reversed=True)
    assert state(system, "acme.service", "slack") == AccountState.REVOKED
    assert system.count(revocations, revocations.c.source.like("slack.%")) == 1

    # Removed from a Linear workspace: ada's account and the service's.
    client = next(one["client_id"] for one in system.world["auth"]["clients"] if one.get("tenant") == "acme")
    system.order("linear", "authorizations/revoke", organization="acme", client_id=client)
    assert {state(system, who, "linear-acme") for who in ("acme.ada", "acme.service")} == {AccountState.REVOKED}
    assert system.count(deliveries, deliveries.c.outcome == "unrecognised") == 0
