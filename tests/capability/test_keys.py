"""Keys: published before they sign, and until what they signed has expired; a withdrawn one is believed no more."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest

from identity.capability import keys
from identity.capability.keys import AHEAD, BEHIND, KeyState, NewKey
from identity.capability.model import Algorithm
from identity.errors import BadInput, Misconfigured
from identity.secret import Secret
from tests.capability.court import Court


def rotate(court: Court, algorithm: Algorithm = Algorithm.ED25519) -> NewKey:
    pair = NewKey.make(algorithm, court.vault)
    court.database.write(partial(keys.rotate, new=pair, now=court.now()))
    court.ahead += keys_are_read_again()
    return pair


def keys_are_read_again() -> timedelta:
    return timedelta(seconds=6)


def states(court: Court) -> dict[str, KeyState]:
    return keys.states(court.database.read(keys.load), court.now())


def kid_of(court: Court, token: Secret) -> str:
    from joserfc import jws

    return str(jws.extract_compact(token.reveal().encode()).headers()["kid"])


def published(court: Court) -> set[str]:
    return {key["kid"] for key in court.issuer.key_set()["keys"]}


def test_a_new_key_is_published_before_it_signs_and_the_old_one_after(court: Court) -> None:
    old = kid_of(court, court.token())
    new = rotate(court)
    assert {old, new.kid} <= published(court)
    assert kid_of(court, court.token()) == old
    court.ahead += AHEAD
    assert kid_of(court, court.token()) == new.kid
    assert {old, new.kid} <= published(court)
    court.ahead += BEHIND
    assert old not in published(court)
    assert states(court)[old] is KeyState.GONE


def test_a_token_that_is_under_way_while_the_key_rotates_is_still_spent(court: Court) -> None:
    rotate(court)
    court.ahead = AHEAD - timedelta(seconds=1)
    under_way = court.token()
    signed_by = kid_of(court, under_way)
    court.ahead = AHEAD + timedelta(seconds=30)
    assert kid_of(court, court.token()) != signed_by
    assert court.spend(under_way)["spend"] == "first"


def test_a_second_rotation_waits_for_the_first(court_on_sqlite: Court) -> None:
    new = rotate(court_on_sqlite)
    with pytest.raises(BadInput, match=new.kid):
        rotate(court_on_sqlite)
    rotate(court_on_sqlite, Algorithm.ES256)


def test_a_withdrawn_key_is_neither_published_nor_believed_and_another_signs_at_once(court: Court) -> None:
    token = court.token()
    old = kid_of(court, token)
    pair = NewKey.make(Algorithm.ED25519, court.vault)
    assert court.database.write(partial(keys.withdraw, kid=old, new=pair, now=court.now()))
    court.ahead += keys_are_read_again()
    assert old not in published(court)
    assert court.spend(token) == {"active": False, "reason": "key"}
    assert kid_of(court, court.token()) == pair.kid
    with pytest.raises(BadInput):
        court.database.write(partial(keys.withdraw, kid=old, new=pair, now=court.now()))


def test_a_key_that_waited_may_be_withdrawn_without_a_successor(court_on_sqlite: Court) -> None:
    waiting = rotate(court_on_sqlite)
    spare = NewKey.make(Algorithm.ED25519, court_on_sqlite.vault)
    withdraw = partial(keys.withdraw, kid=waiting.kid, new=spare, now=court_on_sqlite.now())
    assert not court_on_sqlite.database.write(withdraw)
    assert spare.kid not in states(court_on_sqlite)


def test_a_withdrawal_brings_no_former_key_back(court: Court) -> None:
    """Whoever found an old key somewhere signs nothing with it, though its successor is withdrawn."""
    first = kid_of(court, court.token())
    second = rotate(court)
    court.ahead += AHEAD
    forged = court.token()
    court.ahead += BEHIND
    assert states(court)[first] is KeyState.GONE
    third = NewKey.make(Algorithm.ED25519, court.vault)
    assert court.database.write(partial(keys.withdraw, kid=second.kid, new=third, now=court.now()))
    court.ahead += keys_are_read_again()
    told = states(court)
    assert (told[first], told[second.kid], told[third.kid]) == (KeyState.GONE, KeyState.WITHDRAWN, KeyState.SIGNING)
    assert not {first, second.kid} & published(court)
    assert court.spend(forged) == {"active": False, "reason": "key"}


def test_a_key_that_was_withdrawn_before_it_signed_ends_no_other(court_on_sqlite: Court) -> None:
    first = kid_of(court_on_sqlite, court_on_sqlite.token())
    waiting = rotate(court_on_sqlite)
    spare = NewKey.make(Algorithm.ED25519, court_on_sqlite.vault)
    court_on_sqlite.database.write(partial(keys.withdraw, kid=waiting.kid, new=spare, now=court_on_sqlite.now()))
    court_on_sqlite.ahead += AHEAD + BEHIND
    assert states(court_on_sqlite)[first] is KeyState.SIGNING


def test_no_private_part_is_published_and_none_is_readable_in_the_ledger(court_on_sqlite: Court) -> None:
    assert all(not key.keys() & {"d", "p", "q", "k"} for key in court_on_sqlite.issuer.key_set()["keys"])
    for key in court_on_sqlite.database.read(keys.load):
        assert b'"d"' not in key.sealed


def test_without_a_key_nothing_is_signed_and_the_next_command_is_named(court_on_sqlite: Court) -> None:
    capability = court_on_sqlite.issue()
    for key in court_on_sqlite.database.read(keys.load):
        if key.algorithm is Algorithm.ES256:
            pair = NewKey.make(Algorithm.ED25519, court_on_sqlite.vault)
            court_on_sqlite.database.write(partial(keys.withdraw, kid=key.kid, new=pair, now=court_on_sqlite.now()))
    court_on_sqlite.ahead += keys_are_read_again()
    with pytest.raises(Misconfigured, match="capability keys rotate"):
        court_on_sqlite.token(capability, Algorithm.ES256)
