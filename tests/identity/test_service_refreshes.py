"""Accounts of services: tokens that are minted, and tokens that cannot be renewed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from identity.errors import ReauthRequired
from identity.model import AccountState, Credential, Leased, NeedsRefresh, Scope, ScopeKind
from identity.refresh.endings import Superseded
from identity.refresh.intents import RefreshIntent
from identity.refresh.settlement import Settlement
from identity.refresh.situation import read_situation
from identity.withdrawals.taking import EndedConsents, take_grant
from tests.identity.coordinators import Killed, MakeCoordinator
from tests.identity.providers import PretendProvider
from tests.identity.world import ROBOT, START, World


def test_client_credentials_are_minted_and_minted_again(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.service(Credential.CLIENT_CREDENTIALS)
    needed = connected.examine(ROBOT)
    assert needed == NeedsRefresh(account=account, generation=1)
    assert make_coordinator().refresh(account, after_generation=1) == 2
    assert isinstance(connected.examine(ROBOT), Leased)
    assert provider.forms[0]["scope"] == "read write"
    with pytest.raises(Killed):
        make_coordinator(die_at="after_send").refresh(account, after_generation=2)
    connected.clock.advance(timedelta(minutes=1))
    make_coordinator().settle_abandoned()
    assert connected.state(ROBOT) is AccountState.ACTIVE
    connected.clock.advance(timedelta(minutes=1))
    assert make_coordinator().refresh(account, after_generation=2) == 3


def test_a_static_token_that_is_refused_needs_a_person_and_can_still_be_ended_at_the_provider(
    connected: World, make_coordinator: MakeCoordinator
) -> None:
    account = connected.service(Credential.STATIC, token="xoxb-canary")
    assert isinstance(connected.examine(ROBOT), Leased)
    assert make_coordinator().refresh(account, after_generation=1) == 1  # nobody refused it: it is served
    with pytest.raises(ReauthRequired):
        make_coordinator().refresh(account, after_generation=1, refused=True)
    assert connected.state(ROBOT) is AccountState.NEEDS_RECONNECT
    assert (connected.audited("grant.expired"), connected.audited("grant.dead")) == (1, 0)
    with pytest.raises(ReauthRequired):
        make_coordinator().refresh(account, after_generation=1)  # it lives by its date, and is served no more
    assert connected.token(ROBOT) == "xoxb-canary"
    number = connected.revoke(Scope(kind=ScopeKind.ACCOUNT, key=str(ROBOT)))
    robot, ended, now = connected.account(ROBOT), EndedConsents(upto=number), connected.clock.now
    assert connected.store.write(lambda c: take_grant(c, robot, ended, revocation=None, now=now)) is not None


def test_a_service_token_that_was_replaced_meanwhile_is_not_taken_for_ended(connected: World) -> None:
    account = connected.service(Credential.STATIC, token="xoxb-old")
    older = connected.store.read(lambda c: read_situation(c, account))
    connected.service(Credential.STATIC, token="xoxb-new")
    settlement = Settlement(
        account=older.account,
        intent=RefreshIntent(
            id="ref",
            account=account,
            generation=older.generation,
            consented=older.grant.consented,
            started_at=START,
            send_before=START,
            settled_by=START,
        ),
        now=connected.clock.now,
        ids=connected.id,
        restored=lambda connection, key: None,
    )
    assert connected.generation(ROBOT) == older.generation + 1
    assert connected.store.write(lambda c: settlement.expire(c, "it was refused")) == Superseded()
    assert connected.state(ROBOT) is AccountState.ACTIVE
