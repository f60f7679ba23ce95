"""The signing key is rotated in the middle of the chain: what it signed still verifies, and it forges nothing after."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from threading import Barrier

import pytest
from sqlalchemy import Connection, delete, insert, select, text, update
from sqlalchemy.exc import DatabaseError

from identity.audit import Act
from identity.audit.chain import FirstBad, Verified
from identity.audit.export import export_lines, verify_files
from identity.audit.handovers import hand_over, hold_signing, trusted_keys
from identity.audit.pruning import prune_audit
from identity.audit.sealer import Sealer
from identity.audit.statements import PRUNED, read_checkpoint, sign
from identity.audit.tables import audit, audit_prunings, audit_seals
from identity.audit.verification import verify
from identity.errors import BadInput, Misconfigured
from identity.keys.signing import Signer
from identity.keys.trusted_keys import TrustedKeys, read_handover
from tests.identity.audits import DAY, as_owner, edit, kept, restamp, write
from tests.identity.world import START, World

pytestmark = pytest.mark.as_owner

FIRST, SECOND, THIRD = (Signer.from_seed(os.urandom(32)) for _ in range(3))


def seal(world: World, signer: Signer, *names: str, at: datetime = START) -> None:
    write(world, *names, at=at)
    Sealer(world.store, signer).run(now=at)


def rotate(world: World, former: Signer, signer: Signer) -> bool:
    id = f"rotated-to-{signer.public_pem()[60:90]}"
    return world.store.write(lambda c: hand_over(c, former, signer, Act(audit_id=id, by="test", now=START)))


def keys(world: World, signer: Signer) -> TrustedKeys:
    return world.store.read(lambda c: trusted_keys(c, signer.public_key()))


def check(world: World, signer: Signer) -> Verified | FirstBad:
    return verify(world.store, keys(world, signer))


def prune(world: World, signer: Signer, *, days: int) -> int:
    before = START + days * DAY
    return world.store.write(lambda c: prune_audit(c, before=before, limit=100, signer=signer, now=before))


@pytest.fixture
def rotated(world: World) -> World:
    """Links 1 and 2 are the first key's; 3 and 4, the rotation and a row, the second's; 5 and 6 the third's."""
    seal(world, FIRST, "a", "b")
    assert rotate(world, FIRST, SECOND)
    seal(world, SECOND, "c", at=START + DAY)
    assert rotate(world, SECOND, THIRD)
    seal(world, THIRD, "d", at=START + 2 * DAY)
    return world


def test_a_chain_that_three_keys_signed_verifies_with_the_newest(rotated: World) -> None:
    held = check(rotated, THIRD)
    assert isinstance(held, Verified), held
    assert (held.count, held.unsealed) == (6, 0)


def test_a_former_key_alone_proves_its_own_part(rotated: World) -> None:
    first = verify(rotated.store, TrustedKeys(FIRST.public_key()))
    assert isinstance(first, FirstBad)
    assert first.proven == 2


def test_exports_and_checkpoints_of_before_and_after_verify_offline(world: World) -> None:
    seal(world, FIRST, "a", "b")
    early, checkpoint = list(export_lines(world.store)), kept(world)
    assert rotate(world, FIRST, SECOND)
    seal(world, SECOND, "c")
    late, whole = (list(export_lines(world.store, after=after)) for after in (2, 0))
    lines = [handover.line() for handover in keys(world, SECOND).handovers]
    offline = TrustedKeys(SECOND.public_key(), [read_handover(line) for line in lines])
    for files, count in (([early], 2), ([late], 2), ([early, late], 4), ([whole], 4)):
        named = [(f"file-{place}", file) for place, file in enumerate(files)]
        known = None if files == [late] else read_checkpoint(checkpoint, offline)
        outcome = verify_files(named, offline, checkpoint=known).outcome
        assert isinstance(outcome, Verified), outcome
        assert outcome.count == count
    old = TrustedKeys(FIRST.public_key())
    assert isinstance(verify_files([("early", early)], old).outcome, Verified)
    assert isinstance(verify_files([("late", late)], old).outcome, FirstBad)
    with pytest.raises(BadInput, match="not a checkpoint"):
        read_checkpoint(checkpoint, TrustedKeys(SECOND.public_key()))


def test_a_former_key_seals_prunes_and_hands_over_nothing_more(rotated: World) -> None:
    write(rotated, "e")
    for signer in (FIRST, SECOND):
        with pytest.raises(Misconfigured, match="was rotated"):
            Sealer(rotated.store, signer).seal(now=START)
        with pytest.raises(Misconfigured, match="was rotated"):
            prune(rotated, signer, days=9)
        with pytest.raises(Misconfigured, match="was rotated"):
            rotate(rotated, signer, Signer.from_seed(os.urandom(32)))
    assert Sealer(rotated.store, THIRD).seal(now=START) == 1


def test_a_rotation_vouches_for_no_chain_that_was_made_anew(rotated: World) -> None:
    fourth = Signer.from_seed(os.urandom(32))

    def forge(connection: Connection) -> None:
        with as_owner(connection):
            edit(connection, "d")
            restamp(connection)
            connection.execute(update(audit_seals).where(audit_seals.c.seq == 6).values(signature=None))

    rotated.store.write(forge)
    with pytest.raises(Misconfigured, match="its last link, 6, does not have the signature"):
        rotate(rotated, THIRD, fourth)
    assert len(keys(rotated, THIRD).handovers) == 2


def test_a_chain_that_is_shorter_than_at_a_rotation_is_not_sealed_on(rotated: World) -> None:
    def cut(connection: Connection) -> None:
        with as_owner(connection):
            connection.execute(delete(audit_seals).where(audit_seals.c.seq > 2))

    rotated.store.write(cut)
    with pytest.raises(Misconfigured, match="it ends at 2, and when its key was rotated it had 4 rows"):
        Sealer(rotated.store, THIRD).seal(now=START)


def test_a_rotation_that_was_interrupted_is_not_done_twice(rotated: World) -> None:
    assert not rotate(rotated, SECOND, THIRD)
    assert len(keys(rotated, THIRD).handovers) == 2


def test_rotations_among_seals_leave_a_chain_that_verifies(world: World) -> None:
    """Two sealers and a rotation at once: who comes after it has the wrong key, who came before is its last link."""
    signers = [Signer.from_seed(os.urandom(32)) for _ in range(13)]
    for number, (former, signer) in enumerate(pairwise(signers)):
        write(world, *(f"{number}-{name}" for name in "abcde"))
        together = Barrier(3)

        def sealing(former: Signer = former, together: Barrier = together) -> None:
            together.wait()
            with suppress(Misconfigured):
                Sealer(world.store, former).seal(now=START, limit=3)

        def rotating(former: Signer = former, signer: Signer = signer, together: Barrier = together) -> None:
            together.wait()
            assert rotate(world, former, signer)

        with ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(act) for act in (sealing, rotating, sealing)]:
                done.result()
    Sealer(world.store, signers[-1]).run(now=START)
    held = check(world, signers[-1])
    assert isinstance(held, Verified), held
    assert (held.count, held.unsealed) == (12 * 6, 0)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)  # SQLite has one writer
def test_a_rotation_waits_for_the_seal_under_way(world: World) -> None:
    seal(world, FIRST, "a")
    waits = text("select count(*) from pg_locks where relation = 'signing_handovers'::regclass and not granted")

    def sealing(connection: Connection) -> Future[bool]:
        hold_signing(connection, FIRST)
        rotation = pool.submit(rotate, world, FIRST, SECOND)
        while not world.store.read(lambda c: c.execute(waits).scalar_one()):
            assert not rotation.done()
        return rotation

    with ThreadPoolExecutor(1) as pool:
        assert world.store.write(sealing).result()


def test_pruning_goes_over_rotations(rotated: World) -> None:
    assert prune(rotated, THIRD, days=1) == 2
    fourth = Signer.from_seed(os.urandom(32))
    assert rotate(rotated, THIRD, fourth)
    held = check(rotated, fourth)  # the pruning is the third key's word yet
    assert isinstance(held, Verified), held
    assert (held.first, held.count) == (3, 4)
    seal(rotated, fourth, "e", at=START + 3 * DAY)
    assert prune(rotated, fourth, days=3) == 4
    held = check(rotated, fourth)
    assert isinstance(held, Verified), held
    assert held.first == 7


def test_a_former_key_that_leaked_does_not_make_its_part_of_the_chain_anew(rotated: World) -> None:
    def forge(connection: Connection) -> None:
        with as_owner(connection):
            edit(connection, "a")
            restamp(connection)
            for seal in connection.execute(select(audit_seals).where(audit_seals.c.signature.is_not(None))).all():
                head = sign(FIRST, seq=seal.seq, digest=seal.digest, at=seal.sealed_at)
                resigned = update(audit_seals).where(audit_seals.c.seq == seal.seq)
                connection.execute(resigned.values(signature=head.signature))

    rotated.store.write(forge)
    bad = check(rotated, THIRD)
    assert isinstance(bad, FirstBad)
    assert (bad.seq, "rotation of its key" in bad.why) == (2, True)


def test_a_former_key_that_leaked_neither_cuts_the_chain_nor_prunes_it(rotated: World) -> None:
    def cut(connection: Connection) -> None:
        with as_owner(connection):
            gone = select(audit_seals.c.audit_id).where(audit_seals.c.seq > 2)
            connection.execute(delete(audit).where(audit.c.id.in_(gone)))
            connection.execute(delete(audit_seals).where(audit_seals.c.seq > 2))

    def forget(connection: Connection) -> None:
        digest = connection.execute(select(audit_seals.c.digest).where(audit_seals.c.seq == 2)).scalar_one()
        end = sign(FIRST, seq=2, digest=digest, at=START, says=PRUNED)
        stated = {"seq": 2, "digest": digest, "at": START, "signature": end.signature}
        connection.execute(insert(audit_prunings), stated)

    rotated.store.write(cut)
    bad = check(rotated, THIRD)
    assert isinstance(bad, FirstBad)
    assert (bad.seq, "when its key was rotated" in bad.why) == (3, True)
    rotated.store.write(forget)
    bad = check(rotated, THIRD)
    assert isinstance(bad, FirstBad)
    assert "did not have the key" in bad.why


def test_a_handover_that_another_key_signed_counts_for_nothing(rotated: World) -> None:
    said = keys(rotated, THIRD).handovers
    forged = replace(said[0], signature=FIRST.sign(said[0].document()))
    assert TrustedKeys(THIRD.public_key(), [forged, said[1]]).handovers == []
    assert TrustedKeys(THIRD.public_key(), [said[0]]).handovers == [said[0]]
    assert TrustedKeys(SECOND.public_key(), said).handovers == [said[1]]


def test_a_former_key_signs_for_no_later_ledger_number(rotated: World) -> None:
    known, document = keys(rotated, THIRD), {"receipt": 1}
    newer, older = known.handovers
    for signer, number, holds in (
        (FIRST, older.number, True),
        (FIRST, older.number + 1, False),
        (SECOND, newer.number, True),
        (SECOND, newer.number + 1, False),
        (THIRD, older.number, True),
        (THIRD, newer.number + 1, True),
    ):
        assert known.verifies(document, signer.sign(document), number=number) is holds


@pytest.mark.parametrize("line", ["{", "[]", '{"says":"aswhom-key-handover-1","at":"2026-01-01"}', '{"says":"other"}'])
def test_what_is_no_handover_is_refused(line: str) -> None:
    with pytest.raises(BadInput, match="no handover"):
        read_handover(line)


@pytest.mark.parametrize("statement", ["update signing_handovers set seq = 9", "delete from signing_handovers"])
def test_handovers_are_append_only(rotated: World, statement: str) -> None:
    with pytest.raises(DatabaseError, match="append-only"):
        rotated.store.write(lambda connection: connection.execute(text(statement)))


def test_a_key_that_is_rotated_while_the_chain_is_verified_is_nothing_to_that(rotated: World) -> None:
    known, fourth = keys(rotated, THIRD), Signer.from_seed(os.urandom(32))

    def meanwhile(_: int) -> None:
        rotate(rotated, THIRD, fourth)
        seal(rotated, fourth, "later")

    outcome = verify(rotated.store, known, progress=meanwhile)
    assert isinstance(outcome, Verified)
    assert outcome.count == 6
    assert isinstance(check(rotated, fourth), Verified)
