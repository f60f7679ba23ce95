"""A consent, a revocation or a death comes while a refresh is on the wire: what its answer is worth then."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from identity.accounts.inferred_death import infer_death
from identity.errors import GrantRevoked
from identity.model import AccountKey, AccountState, Scope, ScopeKind
from identity.refresh.intents import store_answer
from identity.refresh.late_answers import kept_answers
from identity.token_endpoint.gate import Gate
from tests.identity.coordinators import ABANDONED_AFTER, MakeCoordinator, intents
from tests.identity.providers import PretendProvider, reply
from tests.identity.world import ANNA, World

ACCOUNT = Scope(kind=ScopeKind.ACCOUNT, key=str(ANNA))


def test_a_loser_never_kills_the_winner(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()

    def reconnected_meanwhile(form: dict[str, str]) -> Any:
        connected.consent()
        return reply({"error": "invalid_grant"})

    provider.answer = reconnected_meanwhile
    assert make_coordinator().refresh(account, after_generation=1) == 2
    assert connected.state() is AccountState.ACTIVE
    assert connected.token() == "access-0"


def test_an_answer_after_a_consent_is_shredded(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()

    def reconnected_meanwhile(form: dict[str, str]) -> Any:
        connected.consent()
        return provider.rotate(form)

    provider.answer = reconnected_meanwhile
    assert make_coordinator().refresh(account, after_generation=1) == 2
    assert connected.token() == "access-0"
    assert [(row.state, row.answer_sealed) for row in intents(connected)] == [("discarded", None)]


@pytest.mark.parametrize(
    "scope",
    [
        Scope(kind=ScopeKind.TENANT, key="acme"),
        Scope(kind=ScopeKind.CONNECTION, key="forge"),
        Scope(kind=ScopeKind.USER, key="anna"),
        ACCOUNT,
    ],
    ids=str,
)
def test_an_answer_after_a_revocation_is_kept_only_to_be_revoked(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, scope: Scope
) -> None:
    account = connected.consent()

    def revoked_meanwhile(form: dict[str, str]) -> Any:
        connected.revoke(scope)
        return provider.rotate(form)

    provider.answer = revoked_meanwhile
    with pytest.raises(GrantRevoked):
        make_coordinator().refresh(account, after_generation=1)
    assert connected.generation() == 1
    (kept,) = connected.store.read(lambda connection: kept_answers(connection, account))
    assert kept.answer_sealed is not None
    assert b"access-1" not in kept.answer_sealed


def test_an_answer_after_a_revocation_is_kept_to_be_revoked_though_a_consent_followed(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()

    def revoked_and_connected_anew(form: dict[str, str]) -> Any:
        connected.revoke(ACCOUNT)
        connected.consent()
        return provider.rotate(form)

    provider.answer = revoked_and_connected_anew
    assert make_coordinator().refresh(account, after_generation=1) == 2
    assert connected.token() == "access-0"  # the new consent's
    (kept,) = connected.store.read(lambda connection: kept_answers(connection, account))
    assert (kept.generation, kept.answer_sealed is not None) == (1, True)


def test_an_answer_that_comes_after_its_refresh_was_taken_for_abandoned_and_discarded_is_kept_to_be_revoked(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()

    def revoked_and_given_up(form: dict[str, str]) -> Any:
        connected.revoke(ACCOUNT)
        connected.clock.advance(ABANDONED_AFTER)
        assert make_coordinator().settle_abandoned() == 1
        assert [(row.state, row.answer_sealed) for row in intents(connected)] == [("discarded", None)]
        return provider.rotate(form)

    provider.answer = revoked_and_given_up
    with pytest.raises(GrantRevoked):
        make_coordinator().refresh(account, after_generation=1)
    (kept,) = connected.store.read(lambda connection: kept_answers(connection, account))
    assert (kept.generation, kept.answer_sealed is not None) == (1, True)
    assert connected.store.write(lambda c: store_answer(c, kept.id, b"another")) is False
    assert connected.store.read(lambda connection: kept_answers(connection, account)) == [kept]


def test_nothing_is_presented_after_a_revocation(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()
    connected.revoke(Scope(kind=ScopeKind.USER, key="anna"))
    with pytest.raises(GrantRevoked):
        make_coordinator().refresh(account, after_generation=1)
    assert provider.presented.total() == 0


def test_one_that_was_held_back_while_its_consent_was_revoked_has_lost_no_answer(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its receipt would say for ever that a newer token may live."""
    account = connected.consent()

    def holds_back(*_args: object, **_more: object) -> timedelta:
        connected.revoke(ACCOUNT)
        return timedelta(minutes=1)

    monkeypatch.setattr(Gate, "enter", holds_back)
    with pytest.raises(GrantRevoked):
        make_coordinator().refresh(account, after_generation=1)
    assert [(row.state, row.presented) for row in intents(connected)] == [("discarded", 0)]
    assert provider.presented.total() == 0


def test_a_refresh_without_effect_does_not_undo_a_death_that_was_inferred_meanwhile(
    connected: World, make_coordinator: MakeCoordinator, provider: PretendProvider
) -> None:
    account = connected.consent()

    def refused_meanwhile(form: dict[str, str]) -> Any:
        audit_id, now = connected.id(), connected.clock.now
        assert connected.store.write(
            lambda connection: infer_death(connection, account, generation=1, audit_id=audit_id, now=now)
        )
        return reply({}, 503)

    provider.answer = refused_meanwhile
    woken: list[AccountKey] = []
    make_coordinator(restored=lambda connection, key: woken.append(key)).refresh(account, after_generation=1)
    assert (connected.state(), woken) == (AccountState.NEEDS_RECONNECT, [])
