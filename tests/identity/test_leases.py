"""Leases: the rule with every scope before and after, then state, scopes and freshness."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Connection

from identity.accounts.leases import open_token
from identity.accounts.scopes import remember_stop
from identity.accounts.states import find_account, move_account
from identity.model import (
    AccountKey,
    AccountState,
    Credential,
    Leased,
    NeedsConsent,
    NeedsRefresh,
    RuledOut,
    Scope,
    ScopeKind,
)
from identity.providers import PROFILES
from tests.identity.stores import EngineStore
from tests.identity.world import ANNA, ROBOT, World
from tests.ledgers import ONLY_SQLITE

SCOPES = {
    "tenant": Scope(kind=ScopeKind.TENANT, key="acme"),
    "connection": Scope(kind=ScopeKind.CONNECTION, key="forge"),
    "agent": Scope(kind=ScopeKind.AGENT, key="bot"),
    "user": Scope(kind=ScopeKind.USER, key="anna"),
    "account": Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA)),
}
every_scope = pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)


def test_a_fresh_token_is_the_lease(world: World) -> None:
    account = world.consent()
    leased = world.examine()
    assert isinstance(leased, Leased)
    assert (leased.account, leased.generation) == (account, 1)
    assert open_token(world.vault, "acme", leased).reveal() == "access-0"


@every_scope
def test_a_job_accepted_before_a_revocation_is_ruled_out_for_good(world: World, scope: Scope) -> None:
    world.consent()
    accepted = world.number()
    world.revoke(scope)
    assert isinstance(world.examine(accepted=accepted), RuledOut)
    world.consent()
    ruled_out = world.examine(accepted=accepted)
    assert isinstance(ruled_out, RuledOut)
    assert ruled_out.scope == scope


@every_scope
def test_a_job_accepted_after_it_waits_for_a_new_consent(world: World, scope: Scope) -> None:
    world.consent()
    world.revoke(scope)
    accepted = world.number()
    outcome = world.examine(accepted=accepted)
    if scope.kind is ScopeKind.AGENT:  # a grant does not depend on an agent
        assert isinstance(outcome, Leased)
        return
    assert isinstance(outcome, NeedsConsent)
    assert outcome.state is AccountState.REVOKED
    world.consent()
    assert isinstance(world.examine(accepted=accepted), Leased)


@every_scope
def test_a_revocation_before_everything_hinders_nothing(world: World, scope: Scope) -> None:
    world.revoke(scope)
    world.consent()
    assert isinstance(world.examine(), Leased)


@every_scope
def test_a_stop_rules_out_until_it_is_undone(world: World, scope: Scope) -> None:
    world.consent()
    accepted = world.number()
    world.store.write(lambda connection: remember_stop(connection, scope, stopped=True))
    ruled_out = world.examine(accepted=accepted)
    assert isinstance(ruled_out, RuledOut)
    assert "stopped" in ruled_out.reason
    world.store.write(lambda connection: remember_stop(connection, scope, stopped=False))
    assert isinstance(world.examine(accepted=accepted), Leased)


@every_scope
def test_opening_a_stopped_scope_keeps_its_revocation(world: World, scope: Scope) -> None:
    world.consent()
    accepted = world.number()
    world.revoke(scope)
    world.store.write(lambda connection: remember_stop(connection, scope, stopped=True))
    world.store.write(lambda connection: remember_stop(connection, scope, stopped=False))
    assert isinstance(world.examine(accepted=accepted), RuledOut)


@every_scope
def test_someone_elses_revocation_hinders_nothing(world: World, scope: Scope) -> None:
    world.consent()
    accepted = world.number()
    world.revoke(Scope(kind=scope.kind, key="another/forge/one" if scope.kind is ScopeKind.ACCOUNT else "another"))
    assert isinstance(world.examine(accepted=accepted), Leased)


def test_a_late_revocation_with_a_smaller_number_takes_nothing_back(world: World) -> None:
    from identity.accounts.scopes import revoke_scope

    user = SCOPES["user"]
    early = world.number()
    later = world.revoke(user)
    world.store.write(lambda connection: revoke_scope(connection, user, early, reason="late", now=world.clock.now))
    world.consent()
    assert isinstance(world.examine(accepted=later), RuledOut)


def test_an_account_nobody_connected_needs_consent(world: World) -> None:
    outcome = world.examine(
        AccountKey(tenant="acme", connection="forge", principal="nobody"), scopes=frozenset({"read"})
    )
    assert outcome == NeedsConsent(account=None, state=AccountState.PENDING, missing_scopes=("read",))


@pytest.mark.parametrize("state", [AccountState.NEEDS_RECONNECT, AccountState.SUSPENDED])
def test_an_account_that_is_not_active_needs_consent(world: World, state: AccountState) -> None:
    account = world.consent()
    world.store.write(lambda connection: move_account(connection, account, to=state, reason="so", now=world.clock.now))
    assert world.examine() == NeedsConsent(account=account, state=state, missing_scopes=())


def test_a_scope_that_was_not_granted_is_named(world: World) -> None:
    account = world.consent()
    outcome = world.examine(scopes=frozenset({"read", "admin"}))
    assert outcome == NeedsConsent(account=account, state=AccountState.ACTIVE, missing_scopes=("admin",))


def test_a_token_near_its_end_needs_a_refresh(world: World) -> None:
    account = world.consent()
    world.clock.advance(timedelta(minutes=49))
    assert isinstance(world.examine(), Leased)
    world.clock.advance(timedelta(minutes=1))  # GitHub's row says ten minutes
    assert world.examine() == NeedsRefresh(account=account, generation=1)
    assert isinstance(world.examine(refresh_early=False), Leased)
    world.clock.advance(timedelta(minutes=10))
    assert world.examine(refresh_early=False) == NeedsRefresh(account=account, generation=1)


@ONLY_SQLITE
@pytest.mark.parametrize("provider", PROFILES)
def test_each_provider_says_how_far_ahead_its_tokens_are_renewed(store: EngineStore, provider: str) -> None:
    world, ahead = World(store=store, provider=provider).build(), PROFILES[provider].min_ttl
    world.consent(lifetime=timedelta(hours=8))
    world.clock.advance(timedelta(hours=8) - ahead - timedelta(seconds=1))
    assert isinstance(world.examine(), Leased)
    world.clock.advance(timedelta(seconds=1))
    assert isinstance(world.examine(), NeedsRefresh)


def test_a_token_that_never_lives_as_long_as_wanted_is_fresh_for_half_its_life(world: World) -> None:
    world.consent(lifetime=timedelta(seconds=60))
    assert isinstance(world.examine(), Leased)
    world.clock.advance(timedelta(seconds=31))
    assert isinstance(world.examine(), NeedsRefresh)


def test_a_token_refused_upstream_needs_a_refresh_once(world: World) -> None:
    account = world.consent()
    assert world.examine(after_generation=1) == NeedsRefresh(account=account, generation=1)
    world.consent()
    assert isinstance(world.examine(after_generation=1), Leased)


def test_a_token_without_an_end_is_fresh(world: World) -> None:
    world.consent(lifetime=None)
    world.clock.advance(timedelta(days=1000))
    assert isinstance(world.examine(), Leased)


def test_a_service_that_mints_needs_no_consent_but_a_token(world: World) -> None:
    account = world.service(Credential.CLIENT_CREDENTIALS)
    assert world.examine(ROBOT) == NeedsRefresh(account=account, generation=1)


def test_a_coarse_scope_covers_the_finer_ones_it_implies() -> None:
    assert PROFILES["linear"].covered(("read", "write")) >= {"issues:create", "comments:create", "write"}
    assert "issues:read" in PROFILES["github"].covered(("issues:write",))
    assert PROFILES["linear"].covered(("read",)) == {"read"}


def test_what_follows_a_services_consent_is_in_its_commit(world: World) -> None:
    def fail(connection: Connection, key: AccountKey) -> None:
        raise RuntimeError(f"nobody can be woken for {key}")

    with pytest.raises(RuntimeError, match="nobody can be woken"):
        world.service(Credential.CLIENT_CREDENTIALS, also=fail)
    assert world.store.read(lambda connection: find_account(connection, ROBOT)) is None
