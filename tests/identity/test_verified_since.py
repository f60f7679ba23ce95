"""A verification that goes on behind one of the whole chain reads what came since, and trusts its statement alone."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy import Connection, delete, insert, update

from identity.audit import Act
from identity.audit.chain import FirstBad, Verified
from identity.audit.handovers import hand_over, trusted_keys
from identity.audit.sealer import Sealer
from identity.audit.statements import WholeVerification, read_verification, sign, sign_verification
from identity.audit.tables import audit as rows
from identity.audit.tables import audit_seals
from identity.audit.verification import verify
from identity.errors import BadInput
from identity.keys.signing import Signer
from tests.identity.audits import DAY, KEYS, SIGNER, as_owner, prune, seal
from tests.identity.world import START, World
from tests.ledger.plans import plans_of, statements_of
from tests.ledgers import MOSTLY_SQLITE

pytestmark = pytest.mark.as_owner


@pytest.fixture
def walked(world: World) -> WholeVerification:
    """Five rows in two batches, which were verified as a whole; then three more."""
    seal(world, *"abc")
    seal(world, *"de", at=START + DAY)
    said = stated(world)
    seal(world, *"fgh", at=START + 2 * DAY)
    return said


def stated(world: World, signer: Signer = SIGNER, at: datetime = START) -> WholeVerification:
    outcome = verify(world.store, world.store.read(lambda c: trusted_keys(c, signer.public_key())))
    assert isinstance(outcome, Verified)
    assert outcome.accounted is not None
    last = outcome.first + outcome.count - 1
    return sign_verification(signer, seq=last, digest=outcome.head, number=outcome.accounted, at=at)


def since(world: World, said: WholeVerification) -> Verified | FirstBad:
    return verify(world.store, KEYS, since=read_verification(said.line(), KEYS))


def broken(world: World, said: WholeVerification) -> FirstBad:
    outcome = since(world, said)
    assert isinstance(outcome, FirstBad)
    return outcome


def owning(world: World, *changes: object) -> None:
    """Change the tables as their owner can."""

    def write(connection: Connection) -> None:
        with as_owner(connection):
            for change in changes:
                connection.execute(change)  # type: ignore[call-overload]

    world.store.write(write)


def test_what_came_since_is_walked_and_nothing_before_it_is_read(world: World, walked: WholeVerification) -> None:
    outcome = since(world, walked)
    assert isinstance(outcome, Verified)
    assert (outcome.first, outcome.count, outcome.unsealed) == (6, 3, 0)
    assert outcome.accounted is None  # so that nobody states it of the whole
    edit_reason(world, "b")
    assert isinstance(since(world, walked), Verified)  # which is what the next whole walk is for
    assert isinstance(verify(world.store, KEYS), FirstBad)


def edit_reason(world: World, name: str) -> None:
    owning(world, update(rows).where(rows.c.id == name).values(reason="another"))


def test_what_was_altered_since_is_found(world: World, walked: WholeVerification) -> None:
    edit_reason(world, "g")
    assert broken(world, walked).seq == 7


def test_a_chain_that_is_not_the_one_that_was_verified_is_found_at_that_link(
    world: World, walked: WholeVerification
) -> None:
    owning(world, update(audit_seals).where(audit_seals.c.seq == 5).values(digest="0" * 64))
    told = broken(world, walked)
    assert (told.seq, "not the one that was verified" in told.why) == (5, True)


def test_a_chain_that_was_cut_before_it_is_found_though_nothing_follows(
    world: World, walked: WholeVerification
) -> None:
    owning(world, delete(audit_seals).where(audit_seals.c.seq > 3))
    told = broken(world, walked)
    assert (told.seq, "the chain was cut: when it was verified" in told.why) == (4, True)


def test_one_that_was_cut_and_sealed_anew_is_found(world: World, walked: WholeVerification) -> None:
    owning(world, delete(audit_seals).where(audit_seals.c.seq > 3), delete(rows).where(rows.c.id == "d"))
    assert Sealer(world.store, SIGNER).run(now=START + 3 * DAY)
    assert broken(world, walked).seq in (5, 6)


def test_a_row_that_was_put_in_since_is_found(world: World, walked: WholeVerification) -> None:
    forged = {"at": START, "kind": "step.done", "tenant_id": "acme", "detail": {}}
    early = replace(walked, number=-7_000)
    said = sign_verification(SIGNER, seq=early.seq, digest=early.digest, number=early.number, at=START)
    world.store.write(lambda c: c.execute(insert(rows), forged | {"id": "forged", "number": -6_000}).rowcount)
    assert "forged was put in" in broken(world, said).why


def test_what_waits_for_the_sealer_is_counted(world: World, walked: WholeVerification) -> None:
    seal(world, "i", at=START + 3 * DAY)
    forged = {"id": "new", "at": START, "kind": "step.done", "tenant_id": "acme", "detail": {}, "number": 1_000}
    world.store.write(lambda c: c.execute(insert(rows), forged).rowcount)
    outcome = since(world, walked)
    assert isinstance(outcome, Verified)
    assert (outcome.count, outcome.unsealed) == (4, 1)


def test_where_it_was_pruned_all_that_is_left_is_walked(world: World, walked: WholeVerification) -> None:
    seal(world, "i", at=START + 3 * DAY)
    assert prune(world, days=3)
    outcome = since(world, walked)
    assert isinstance(outcome, Verified)
    assert (outcome.first, outcome.accounted is not None) == (9, True)


@MOSTLY_SQLITE
def test_nothing_else_that_the_installation_signs_is_taken_for_it(world: World, walked: WholeVerification) -> None:
    checkpoint = sign(SIGNER, seq=walked.seq, digest=walked.digest, at=START).line()
    other = sign_verification(Signer.from_seed(b"x" * 32), seq=5, digest=walked.digest, number=1, at=START).line()
    further = json.dumps(json.loads(walked.line()) | {"seq": 8})
    for text_ in (checkpoint, other, further, "{", "[]", '"x"'):
        with pytest.raises(BadInput, match="no statement of this installation"):
            read_verification(text_, KEYS)


@MOSTLY_SQLITE
def test_a_former_key_states_nothing_of_what_came_after_it(world: World, walked: WholeVerification) -> None:
    last = stated(world)
    newer = Signer.from_seed(b"n" * 32)
    act = Act(audit_id="rotated", by="eve", now=START + 3 * DAY)
    world.store.write(lambda c: hand_over(c, SIGNER, newer, act))
    keys = world.store.read(lambda c: trusted_keys(c, newer.public_key()))
    assert read_verification(last.line(), keys) == last
    assert Sealer(world.store, newer).run(now=START + 3 * DAY)
    late = stated(world, newer)
    assert read_verification(late.line(), keys) == late
    forged = sign_verification(SIGNER, seq=late.seq, digest=late.digest, number=0, at=START)
    with pytest.raises(BadInput, match="no statement"):
        read_verification(forged.line(), keys)


def test_by_its_indexes_and_no_row_of_before(world: World, walked: WholeVerification) -> None:
    later = replace(walked, number=2)
    said = sign_verification(SIGNER, seq=later.seq, digest=later.digest, number=later.number, at=START)

    def act() -> None:
        assert isinstance(since(world, said), Verified)

    for statement, _ in statements_of(act):
        if "count(" in statement:
            assert "audit.number >" in statement, statement
    large = world.store.engine.dialect.name == "postgresql"
    for plan in plans_of(world.store, act, large=large):
        assert "SCAN audit " not in plan, plan
        assert "Seq Scan on audit " not in plan, plan
