"""Keys: published before they sign, and until what they signed has expired; a withdrawn one is believed no more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import delete

from identity.capability import keys
from identity.capability.keys import AHEAD, BEHIND, KeyState, NewKey
from identity.capability.model import Algorithm
from identity.capability.tables import keys as keys_table
from identity.errors import BadInput, Misconfigured
from identity.secret import Secret
from tests.capability.capability_ledger import CapabilityLedger
from tests.ledger.acts import until_awaited

ON_POSTGRESQL = pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)  # SQLite has one writer anyway


def rotate(ledger: CapabilityLedger, algorithm: Algorithm = Algorithm.ED25519) -> NewKey:
    pair = NewKey.make(algorithm, ledger.vault)
    ledger.database.write(partial(keys.rotate, new=pair, now=ledger.now()))
    ledger.ahead += keys_are_read_again()
    return pair


def keys_are_read_again() -> timedelta:
    return timedelta(seconds=6)


def states(ledger: CapabilityLedger) -> dict[str, KeyState]:
    return keys.states(ledger.database.read(keys.load), ledger.now())


def kid_of(ledger: CapabilityLedger, token: Secret) -> str:
    from joserfc import jws

    return str(jws.extract_compact(token.reveal().encode()).headers()["kid"])


def published(ledger: CapabilityLedger) -> set[str]:
    return {key["kid"] for key in ledger.issuer.key_set()["keys"]}


def test_a_new_key_is_published_before_it_signs_and_the_old_one_after(ledger: CapabilityLedger) -> None:
    old = kid_of(ledger, ledger.token())
    new = rotate(ledger)
    assert {old, new.kid} <= published(ledger)
    assert kid_of(ledger, ledger.token()) == old
    ledger.ahead += AHEAD
    assert kid_of(ledger, ledger.token()) == new.kid
    assert {old, new.kid} <= published(ledger)
    ledger.ahead += BEHIND
    assert old not in published(ledger)
    assert states(ledger)[old] is KeyState.GONE


def test_a_token_that_is_under_way_while_the_key_rotates_is_still_spent(ledger: CapabilityLedger) -> None:
    rotate(ledger)
    ledger.ahead = AHEAD - timedelta(seconds=1)
    under_way = ledger.token()
    signed_by = kid_of(ledger, under_way)
    ledger.ahead = AHEAD + timedelta(seconds=30)
    assert kid_of(ledger, ledger.token()) != signed_by
    assert ledger.spend(under_way)["spend"] == "first"


def test_a_second_rotation_waits_for_the_first(ledger_on_sqlite: CapabilityLedger) -> None:
    new = rotate(ledger_on_sqlite)
    with pytest.raises(BadInput, match=new.kid):
        rotate(ledger_on_sqlite)
    rotate(ledger_on_sqlite, Algorithm.ES256)


def _beside(ledger: CapabilityLedger, first: Callable[..., object], second: Callable[..., object]) -> list[str]:
    """What is refused of two acts, of which the second begins before the first is committed."""
    refused = []

    def act() -> None:
        try:
            ledger.database.write(second)
        except BadInput as error:
            refused.append(str(error))

    until_awaited(ledger.database, first, by=threading.Thread(target=act))
    return refused


@ON_POSTGRESQL
def test_of_two_rotations_at_once_one_is_refused(ledger: CapabilityLedger) -> None:
    one, other = (NewKey.make(Algorithm.ED25519, ledger.vault) for _ in range(2))
    rotations = (partial(keys.rotate, new=pair, now=ledger.now()) for pair in (one, other))
    (refused,) = _beside(ledger, *rotations)
    assert one.kid in refused
    assert other.kid not in states(ledger)


@ON_POSTGRESQL
def test_of_two_withdrawals_of_a_key_at_once_one_has_a_successor(ledger: CapabilityLedger) -> None:
    old = kid_of(ledger, ledger.token())
    one, other = (NewKey.make(Algorithm.ED25519, ledger.vault) for _ in range(2))
    withdrawals = (partial(keys.withdraw, kid=old, new=pair, now=ledger.now()) for pair in (one, other))
    (refused,) = _beside(ledger, *withdrawals)
    assert old in refused
    assert other.kid not in states(ledger)


@ON_POSTGRESQL
def test_two_audiences_that_are_added_at_once_have_one_first_key(ledger: CapabilityLedger) -> None:
    ledger.database.write(lambda c: c.execute(delete(keys_table)).rowcount)
    pairs = [NewKey.make(Algorithm.ED25519, ledger.vault) for _ in range(2)]
    assert _beside(ledger, *(partial(keys.ensure, new=pair, now=ledger.now()) for pair in pairs)) == []
    assert states(ledger) == {pairs[0].kid: KeyState.SIGNING}


def test_a_withdrawn_key_is_neither_published_nor_believed_and_another_signs_at_once(ledger: CapabilityLedger) -> None:
    token = ledger.token()
    old = kid_of(ledger, token)
    pair = NewKey.make(Algorithm.ED25519, ledger.vault)
    assert ledger.database.write(partial(keys.withdraw, kid=old, new=pair, now=ledger.now()))
    ledger.ahead += keys_are_read_again()
    assert old not in published(ledger)
    assert ledger.spend(token) == {"active": False, "reason": "key"}
    assert kid_of(ledger, ledger.token()) == pair.kid
    with pytest.raises(BadInput):
        ledger.database.write(partial(keys.withdraw, kid=old, new=pair, now=ledger.now()))


def test_a_key_that_waited_may_be_withdrawn_without_a_successor(ledger_on_sqlite: CapabilityLedger) -> None:
    waiting = rotate(ledger_on_sqlite)
    spare = NewKey.make(Algorithm.ED25519, ledger_on_sqlite.vault)
    withdraw = partial(keys.withdraw, kid=waiting.kid, new=spare, now=ledger_on_sqlite.now())
    assert not ledger_on_sqlite.database.write(withdraw)
    assert spare.kid not in states(ledger_on_sqlite)


def test_a_withdrawal_brings_no_former_key_back(ledger: CapabilityLedger) -> None:
    """Whoever found an old key somewhere signs nothing with it, though its successor is withdrawn."""
    first = kid_of(ledger, ledger.token())
    second = rotate(ledger)
    ledger.ahead += AHEAD
    forged = ledger.token()
    ledger.ahead += BEHIND
    assert states(ledger)[first] is KeyState.GONE
    third = NewKey.make(Algorithm.ED25519, ledger.vault)
    assert ledger.database.write(partial(keys.withdraw, kid=second.kid, new=third, now=ledger.now()))
    ledger.ahead += keys_are_read_again()
    told = states(ledger)
    assert (told[first], told[second.kid], told[third.kid]) == (KeyState.GONE, KeyState.WITHDRAWN, KeyState.SIGNING)
    assert not {first, second.kid} & published(ledger)
    assert ledger.spend(forged) == {"active": False, "reason": "key"}


def test_a_key_that_was_withdrawn_before_it_signed_ends_no_other(ledger_on_sqlite: CapabilityLedger) -> None:
    first = kid_of(ledger_on_sqlite, ledger_on_sqlite.token())
    waiting = rotate(ledger_on_sqlite)
    spare = NewKey.make(Algorithm.ED25519, ledger_on_sqlite.vault)
    ledger_on_sqlite.database.write(partial(keys.withdraw, kid=waiting.kid, new=spare, now=ledger_on_sqlite.now()))
    ledger_on_sqlite.ahead += AHEAD + BEHIND
    assert states(ledger_on_sqlite)[first] is KeyState.SIGNING


def test_no_private_part_is_published_and_none_is_readable_in_the_ledger(ledger_on_sqlite: CapabilityLedger) -> None:
    assert all(not key.keys() & {"d", "p", "q", "k"} for key in ledger_on_sqlite.issuer.key_set()["keys"])
    for key in ledger_on_sqlite.database.read(keys.load):
        assert b'"d"' not in key.sealed


def test_without_a_key_nothing_is_signed_and_the_next_command_is_named(ledger_on_sqlite: CapabilityLedger) -> None:
    capability = ledger_on_sqlite.issue()
    for key in ledger_on_sqlite.database.read(keys.load):
        if key.algorithm is Algorithm.ES256:
            pair = NewKey.make(Algorithm.ED25519, ledger_on_sqlite.vault)
            ledger_on_sqlite.database.write(partial(keys.withdraw, kid=key.kid, new=pair, now=ledger_on_sqlite.now()))
    ledger_on_sqlite.ahead += keys_are_read_again()
    with pytest.raises(Misconfigured, match="capability keys rotate"):
        ledger_on_sqlite.token(capability, Algorithm.ES256)
