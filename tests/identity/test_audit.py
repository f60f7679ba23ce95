"""The audit: rows that refuse changes, and a chain in which every tampering is found by whoever has the public key."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, delete, event, insert, select, text, update
from sqlalchemy.exc import DatabaseError, OperationalError

from identity import audit
from identity.audit import AsWhom
from identity.audit.chain import FirstBad, Verified, link_digest, row_digest
from identity.audit.export import export_lines, verify_files
from identity.audit.links import sealed_rows
from identity.audit.sealer import Sealer, first_never_sealed
from identity.audit.statements import read_checkpoint, sign
from identity.audit.stretches import number_of_rows, stretches
from identity.audit.tables import audit as rows
from identity.audit.tables import audit_prunings, audit_seals
from identity.audit.verification import verify
from identity.errors import BadInput, Misconfigured
from identity.keys.signing import Signer, canonical
from identity.keys.trusted_keys import TrustedKeys
from tests.identity.audits import DAY, KEYS, SIGNER, Within, as_owner, edit, kept, prune, restamp, seal, write
from tests.identity.world import START, World
from tests.ledgers import MOSTLY_SQLITE

pytestmark = pytest.mark.as_owner

TABLES = ("audit", "audit_seals", "audit_prunings")


T = TypeVar("T")


@pytest.fixture
def sealed(world: World) -> World:
    """Eight rows in three batches, a day apart: the third, fifth and eighth link are signed."""
    for day, batch in enumerate(("abc", "de", "fgh")):
        seal(world, *batch, at=START + day * DAY)
    return world


def execute(connection: Connection, *, statement: str) -> None:
    connection.execute(text(statement))


def tamper(world: World, change: Callable[[Connection], object]) -> None:
    def write(connection: Connection) -> None:
        with as_owner(connection):
            change(connection)

    world.store.write(write)


@pytest.fixture
def owned(sealed: World) -> World:
    """The same without its triggers, where what `attacked` does may be undone."""
    if sealed.store.engine.dialect.name == "sqlite":
        for table, verb in itertools.product(TABLES, ("update", "delete", "replace")):
            sealed.store.write(partial(execute, statement=f"drop trigger {table}_no_{verb}"))
    return sealed


class Undone(Exception):
    """Leaves a transaction with what was found in it."""


def attacked(world: World, attack: Callable[[Connection], object]) -> FirstBad:
    """What is found after an attack, which is undone."""

    def attack_and_look(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("set local session_replication_role = replica"))
        attack(connection)
        raise Undone(verify(Within(connection), KEYS))

    with pytest.raises(Undone) as undone:
        world.store.write(attack_and_look)
    assert isinstance(check(world), Verified)
    (found,) = undone.value.args
    assert isinstance(found, FirstBad)
    return found


def check(world: World, checkpoint: str | None = None, signer: Signer = SIGNER) -> Verified | FirstBad:
    keys = TrustedKeys(signer.public_key())
    read = read_checkpoint(checkpoint, keys) if checkpoint else None
    return verify(world.store, keys, checkpoint=read)


def first_bad(world: World, checkpoint: str | None = None) -> FirstBad:
    outcome = check(world, checkpoint)
    assert isinstance(outcome, FirstBad)
    return outcome


# What is refused.


def test_the_database_refuses_to_change_or_remove_a_row(sealed: World) -> None:
    prune(sealed, days=1)
    verbs = ["update {} set {} = 'x'", "delete from {}"]
    if sealed.store.engine.dialect.name == "postgresql":
        verbs.append("truncate {}")
    columns = {"audit": "reason", "audit_seals": "digest", "audit_prunings": "digest"}
    for verb, (table, column) in itertools.product(verbs, columns.items()):
        with pytest.raises(DatabaseError, match=f"{table} is append-only"):
            sealed.store.write(partial(execute, statement=verb.format(table, column)))
    assert isinstance(check(sealed), Verified)


def test_an_insert_that_replaces_is_refused_too(sealed: World) -> None:
    replacing = ["insert into audit select * from audit limit 1 on conflict (id) do update set reason = 'x'"]
    if sealed.store.engine.dialect.name == "sqlite":
        columns = ", ".join(f'"{column.name}"' for column in rows.c)
        replacing = [
            "insert or replace into audit select * from audit limit 1",
            f"insert or replace into audit (rowid, {columns}) select rowid, 'new' || {columns} from audit limit 1",
            "insert or replace into audit_seals select seq, audit_id, 'x', 0, null from audit_seals limit 1",
        ]
    for statement in replacing:
        with pytest.raises(DatabaseError, match="append-only"):
            sealed.store.write(partial(execute, statement=statement))


# The chain.


def test_an_untouched_chain_holds(sealed: World) -> None:
    write(sealed, "late")
    outcome = check(sealed)
    assert isinstance(outcome, Verified)
    assert (outcome.first, outcome.count, outcome.unsealed, outcome.signed_at) == (1, 8, 1, START + 2 * DAY)


def test_sealing_goes_on_where_it_stopped(sealed: World) -> None:
    sealer = Sealer(sealed.store, SIGNER)
    assert sealer.run(now=START) == 0
    write(sealed, *"ijk")
    assert [sealer.seal(now=START, limit=2), sealer.seal(now=START, limit=2)] == [2, 1]
    outcome = check(sealed)
    assert isinstance(outcome, Verified)
    assert (outcome.count, outcome.unsealed) == (11, 0)


def test_a_row_whose_lower_number_appears_late_is_sealed_too(sealed: World) -> None:
    number = sealed.number()
    seal(sealed, "i")
    sealed.store.write(
        lambda connection: audit.record(
            connection, "step.done", AsWhom(tenant="acme"), id="slow", at=START, number=number
        )
    )
    assert Sealer(sealed.store, SIGNER).seal(now=START) == 1
    assert isinstance(check(sealed), Verified)


def numbered(world: World, number: int, *, at: datetime = START) -> None:
    world.store.write(
        lambda c: audit.record(c, "step.done", AsWhom(tenant="acme"), id=f"row{number}", at=at, number=number)
    )


def rush(world: World, *, at: datetime, minutes: int = 0) -> int:
    """Number after number is taken, and the last one's row is sealed; the number that was taken before them all."""
    number = world.number()
    for later in range(minutes + 1):
        numbered(world, number + 6_000 + later, at=at)
        assert Sealer(world.store, SIGNER).seal(now=at + timedelta(minutes=later)) == 1
    return number


def test_a_row_that_is_late_by_more_numbers_is_sealed_while_it_is_not_late_by_time(sealed: World) -> None:
    at = START + 3 * DAY
    seal(sealed, "i", at=at)
    number = rush(sealed, at=at + timedelta(seconds=2))
    sealer = Sealer(sealed.store, SIGNER)
    assert sealer.seal(now=at + timedelta(seconds=2)) == 0
    numbered(sealed, number)
    waiting = check(sealed)
    assert isinstance(waiting, Verified)
    assert waiting.unsealed == 1
    assert sealer.seal(now=at + timedelta(seconds=3)) == 0  # it has just looked for such rows
    assert sealer.run(now=at + timedelta(seconds=30)) == 1
    outcome = check(sealed)
    assert isinstance(outcome, Verified)
    assert outcome.unsealed == 0


class Overtaken:
    """A store whose first write comes after another sealer's."""

    def __init__(self, world: World, first: Callable[[], object]) -> None:
        self.read = world.store.read
        self._write = world.store.write
        self._first = [first]

    def write(self, fn: Callable[[Connection], T]) -> T:
        while self._first:
            self._first.pop()()
        return self._write(fn)


def test_a_sealer_that_was_overtaken_looks_for_late_rows_again(sealed: World) -> None:
    at = START + 3 * DAY
    seal(sealed, "i", at=at)
    number = rush(sealed, at=at)
    other = Sealer(sealed.store, SIGNER)
    assert other.seal(now=at) == 0  # it has just looked for such rows
    numbered(sealed, number)
    numbered(sealed, number + 6_001)  # the other takes this one alone
    sealer = Sealer(Overtaken(sealed, lambda: other.seal(now=at + timedelta(seconds=1))), SIGNER)
    assert sealer.seal(now=at + timedelta(seconds=1)) == 0
    assert sealer.seal(now=at + timedelta(seconds=2)) == 1
    outcome = check(sealed)
    assert isinstance(outcome, Verified)
    assert outcome.unsealed == 0


def test_a_row_that_is_late_by_time_as_well_is_told(sealed: World) -> None:
    at = START + 3 * DAY
    number = rush(sealed, at=at, minutes=3)
    numbered(sealed, number)
    assert Sealer(sealed.store, SIGNER).seal(now=at + timedelta(minutes=3)) == 0
    assert f"row{number} was put in" in first_bad(sealed).why


def test_the_look_for_late_rows_takes_few_questions(world: World) -> None:
    write(world, *(f"row-{number}" for number in range(1_100)))
    Sealer(world.store, SIGNER).run(now=START)
    asked: list[str] = []

    def count(connection: Connection) -> None:
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2]))
        first_never_sealed(Within(connection))

    world.store.read(count)
    assert len(asked) < 20


def test_two_sealers_make_one_chain(sealed: World) -> None:
    write(sealed, "i")
    one, two = Sealer(sealed.store, SIGNER), Sealer(sealed.store, SIGNER)
    assert one.seal(now=START) + two.seal(now=START) == 1
    assert isinstance(check(sealed), Verified)


def test_the_digest_of_a_row_is_that_of_its_canonical_json(sealed: World) -> None:
    for link, row in sealed.store.read(lambda connection: list(sealed_rows(connection))):
        assert row is not None
        plain = row | {"at": row["at"].isoformat()}
        assert link.row_digest == sha256(canonical(plain)).hexdigest() == row_digest(plain)


def test_half_a_surrogate_pair_in_a_record_keeps_nothing_from_being_sealed(world: World) -> None:
    half = json.loads('"\\udcff"')

    def record(connection: Connection) -> None:
        detail = {"tools": ["github." + half], half: "é"}
        audit.record(
            connection, "step.done", AsWhom(tenant="acme"), id="a", at=START, reason=f"é {half}", detail=detail
        )
        other = {"id": "b", "at": START, "number": 1, "kind": "step.done", "tenant_id": "acme", "detail": {"x": half}}
        connection.execute(insert(rows), other)  # as it was written before

    world.store.write(record)
    assert Sealer(world.store, SIGNER).seal(now=START) == 2
    assert isinstance(check(world), Verified)
    told = world.store.read(lambda c: {row["id"]: row for _, row in sealed_rows(c) if row is not None})
    assert (told["a"]["reason"], told["a"]["detail"]) == ("é ?", {"tools": ["github.?"], "?": "é"})
    assert told["b"]["detail"] == {"x": "?"}


# Attacks, row by row.

EIGHT = "abcdefgh"


def edit_detail(connection: Connection, name: str) -> None:
    connection.execute(
        update(rows).where(rows.c.id == name).values(detail={"n": [2, "é"], "a": {"z": None, "b": True}})
    )


def empty(connection: Connection, name: str) -> None:
    connection.execute(update(rows).where(rows.c.id == name).values(principal_id=None))


def delete_row(connection: Connection, name: str) -> None:
    connection.execute(delete(rows).where(rows.c.id == name))


def delete_seal(connection: Connection, name: str) -> None:
    connection.execute(delete(audit_seals).where(audit_seals.c.audit_id == name))


def delete_both(connection: Connection, name: str) -> None:
    delete_row(connection, name)
    delete_seal(connection, name)


def put_another_in_its_place(connection: Connection, name: str) -> None:
    delete_row(connection, name)
    audit.record(connection, "step.done", AsWhom(tenant="acme", principal="anna"), id=name, at=START, detail={})


def renumber(connection: Connection, name: str) -> None:
    connection.execute(update(rows).where(rows.c.id == name).values(number=rows.c.number + 100))


def stamp(connection: Connection, name: str) -> None:
    connection.execute(update(audit_seals).where(audit_seals.c.audit_id == name).values(digest="0" * 64))


ATTACKS = [edit, edit_detail, empty, delete_row, delete_seal, delete_both, put_another_in_its_place, renumber, stamp]


def swap(connection: Connection, name: str) -> None:
    """With the one behind it."""
    other = EIGHT[EIGHT.index(name) + 1]
    for old, new in ((name, "x"), (other, name), ("x", other)):
        connection.execute(update(audit_seals).where(audit_seals.c.audit_id == old).values(audit_id=new))


def re_append(connection: Connection, name: str) -> None:
    """Take a row out of the middle and put it at the end, with a seal that fits there."""
    row = connection.execute(select(rows).where(rows.c.id == name)).one()
    delete_both(connection, name)
    connection.execute(insert(rows), dict(row._mapping))
    *_, (last, _) = sealed_rows(connection)
    digest = link_digest(last.digest, last.seq + 1, "0" * 64)
    again = {"seq": last.seq + 1, "audit_id": name, "digest": digest, "sealed_at": START, "signature": None}
    connection.execute(insert(audit_seals), again)


@pytest.mark.parametrize("attack", [*ATTACKS, swap, re_append])
@MOSTLY_SQLITE
def test_tampering_is_found_at_its_first_row(owned: World, attack: Callable[..., None]) -> None:
    # The last row has none to be swapped with, and is at the end already.
    for place, name in enumerate(EIGHT if attack in ATTACKS else EIGHT[:-1], start=1):
        found = attacked(owned, partial(attack, name=name))
        assert (place, found.seq) == (place, place), found


UNREADABLE = {
    "no time": "update audit set at = 9223372036854775807 where id = 'd'",
    "no time of a seal": "update audit_seals set sealed_at = 9223372036854775807 where audit_id = 'e'",
    "no JSON": "update audit set detail = '{' where id = 'd'",
    "deeper than JSON is read": f"update audit set detail = '{'[' * 100_000}' where id = 'd'",
    "no text": "update audit set reason = x'00' where id = 'd'",
}


@pytest.mark.parametrize("attack", UNREADABLE)
@MOSTLY_SQLITE
def test_what_cannot_be_read_is_found_as_altered(owned: World, attack: str) -> None:
    if owned.store.engine.dialect.name == "postgresql" and "JSON" in attack:
        with pytest.raises(DatabaseError):  # it takes no such value
            attacked(owned, partial(execute, statement=UNREADABLE[attack]))
        return
    found = attacked(owned, partial(execute, statement=UNREADABLE[attack]))
    assert found.seq == (5 if "seal" in attack else 4)
    assert found.why.endswith("or its seal was altered")


ALTERED = "the audit row d or its seal was altered"
NO_TEXT = {
    "update audit set reason = cast(x'ff' as text) where id = 'd'": ALTERED,
    "update audit set detail = cast(x'7bff7d' as text) where id = 'd'": ALTERED,
    "update audit set kind = cast(x'ff' as text) where id in ('d', 'f')": ALTERED,
    "update audit_seals set digest = cast(x'ff' as text) where seq = 4": ALTERED.replace("row d", "row of link 4"),
    "update audit_seals set signature = cast(x'ff' as text) where seq = 4": ALTERED.replace("row d", "row of link 4"),
    "update audit_seals set audit_id = cast(x'ff' as text) where seq = 4": "the audit row of link 4 is missing",
}
ONLY_SQLITE = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)  # PostgreSQL takes no such bytes


@pytest.mark.parametrize("attack", NO_TEXT)
@ONLY_SQLITE
def test_bytes_that_are_no_text_are_found_as_altered(owned: World, attack: str) -> None:
    found = attacked(owned, partial(execute, statement=attack))
    assert (found.seq, found.why) == (4, NO_TEXT[attack])


@ONLY_SQLITE
def test_bytes_that_are_no_text_are_kept_as_evidence_and_exported_as_altered(owned: World) -> None:
    owned.store.write(partial(execute, statement=next(iter(NO_TEXT))))
    with pytest.raises(Misconfigured, match=f"breaks at 4: {ALTERED}"):
        prune(owned, days=9)
    exported = verify_files([("file", list(export_lines(owned.store)))], KEYS).outcome
    assert isinstance(exported, FirstBad)
    assert exported.seq == 4


@ONLY_SQLITE
def test_a_ledger_that_cannot_be_read_is_not_called_altered(owned: World) -> None:
    """Not even while what was altered is looked for, link by link."""
    owned.store.write(partial(execute, statement=next(iter(NO_TEXT))))

    def look(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection

        def interrupt(*given: Any) -> None:
            if "audit_seals.seq = " in given[2]:
                driver.set_progress_handler(lambda: 1, 1)

        event.listen(connection, "before_cursor_execute", interrupt)
        try:
            with pytest.raises(OperationalError, match="interrupted"):
                verify(Within(connection), KEYS)
        finally:
            driver.set_progress_handler(None, 1)

    owned.store.read(look)


def allow_nulls(connection: Connection) -> None:
    """As whoever owns the database can."""
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("alter table audit alter at drop not null, alter kind drop not null, alter detail drop not null")
        )
        return
    for statement in (
        "create table plain as select * from audit",
        "drop table audit",
        "alter table plain rename to audit",
    ):
        connection.execute(text(statement))


@pytest.mark.parametrize("column", ["at", "detail", "kind"])
@MOSTLY_SQLITE
def test_what_may_not_be_missing_is_found_as_altered_where_it_is(owned: World, column: str) -> None:
    def attack(connection: Connection) -> None:
        allow_nulls(connection)
        execute(connection, statement=f"update audit set {column} = null where id = 'd'")

    found = attacked(owned, attack)
    assert (found.seq, found.why) == (4, ALTERED)


@MOSTLY_SQLITE
def test_a_chain_made_anew_without_the_key_is_bad_from_the_batch_of_its_first_altered_row(owned: World) -> None:
    for name, batch in zip(EIGHT, (1, 1, 1, 4, 4, 6, 6, 6), strict=True):

        def attack(connection: Connection, name: str = name) -> None:
            edit(connection, name)
            restamp(connection)

        found = attacked(owned, attack)
        assert (found.seq, found.proven) == (batch, batch - 1)


def forge(connection: Connection, *, since: int = 3) -> None:
    """Another row, and digests that fit again; what was signed is signed no more."""
    edit(connection, EIGHT[since - 1])
    restamp(connection)
    connection.execute(update(audit_seals).where(audit_seals.c.seq >= since).values(signature=None))


def test_a_chain_made_anew_is_not_sealed_on_and_so_never_signed(sealed: World) -> None:
    write(sealed, "i")
    tamper(sealed, forge)
    with pytest.raises(Misconfigured, match="its last link, 8, does not have the signature"):
        Sealer(sealed.store, SIGNER).seal(now=START)
    assert first_bad(sealed).proven == 0


def test_a_signature_over_another_link_is_not_sealed_on_either(sealed: World) -> None:
    write(sealed, "i")

    def attack(connection: Connection) -> None:
        edit(connection, "h")
        restamp(connection)

    tamper(sealed, attack)
    with pytest.raises(Misconfigured, match="does not have the signature"):
        Sealer(sealed.store, SIGNER).seal(now=START)


def test_a_chain_that_is_cut_or_made_anew_under_a_sealer_is_not_sealed_on(sealed: World) -> None:
    sealer = Sealer(sealed.store, SIGNER)
    assert sealer.seal(now=START) == 0

    def attack(connection: Connection) -> None:
        connection.execute(delete(audit_seals).where(audit_seals.c.seq > 5))
        edit(connection, "g")

    tamper(sealed, attack)
    with pytest.raises(Misconfigured, match="its link 8 is not the one that this process saw"):
        sealer.seal(now=START)
    assert Sealer(sealed.store, SIGNER).seal(now=START) == 3  # one that starts anew cannot know: hence checkpoints
    with pytest.raises(Misconfigured, match="its link 8 is not the one"):
        sealer.seal(now=START)


def test_a_sealer_whose_last_link_was_pruned_meanwhile_goes_on(sealed: World) -> None:
    sealer = Sealer(sealed.store, SIGNER)
    assert sealer.seal(now=START) == 0
    seal(sealed, "i", at=START + 4 * DAY)
    assert prune(sealed, days=9) == 8
    write(sealed, "j")
    assert sealer.seal(now=START + 4 * DAY) == 1
    assert isinstance(check(sealed), Verified)


def test_a_signature_made_with_another_key_is_none(sealed: World) -> None:
    def attack(connection: Connection) -> None:
        edit(connection, "d")
        restamp(connection)
        connection.execute(update(audit_seals).values(signature=None))

    tamper(sealed, attack)
    bad = first_bad(sealed)
    assert (bad.proven, "not signed" in bad.why) == (0, True)
    assert isinstance(check(sealed, signer=Signer.from_seed(os.urandom(32))), FirstBad)


@MOSTLY_SQLITE
def test_many_signatures_are_asked_for_only_until_one_fails(world: World) -> None:
    """More links than one signature is asked to prove."""
    for batch in range(3):
        seal(world, *(f"{batch}-{number}" for number in range(500)))
    assert isinstance(check(world), Verified)

    def attack(connection: Connection) -> None:
        edit(connection, "2-5")
        restamp(connection)

    tamper(world, attack)
    assert first_bad(world).seq == 1001


def cut(connection: Connection, *, after: int) -> None:
    gone = select(audit_seals.c.audit_id).where(audit_seals.c.seq > after)
    connection.execute(delete(rows).where(rows.c.id.in_(gone)))
    connection.execute(delete(audit_seals).where(audit_seals.c.seq > after))


def test_a_chain_cut_inside_a_batch_is_found(sealed: World) -> None:
    tamper(sealed, lambda connection: cut(connection, after=7))
    bad = first_bad(sealed)
    assert (bad.seq, "cut" in bad.why) == (8, True)


def test_a_chain_cut_at_its_end_is_found_by_a_checkpoint(sealed: World) -> None:
    checkpoint = kept(sealed)
    assert isinstance(check(sealed, checkpoint), Verified)
    tamper(sealed, lambda connection: cut(connection, after=5))
    assert isinstance(check(sealed), Verified)  # which is why checkpoints are kept elsewhere
    bad = first_bad(sealed, checkpoint)
    assert (bad.seq, "cut" in bad.why) == (6, True)


def test_a_chain_without_any_row_is_bad_from_its_first(sealed: World) -> None:
    tamper(sealed, lambda connection: connection.execute(delete(rows)))
    assert first_bad(sealed).seq == 1


def test_a_chain_that_is_gone_as_a_whole_is_found_by_a_checkpoint(sealed: World) -> None:
    checkpoint = kept(sealed)
    tamper(sealed, lambda connection: cut(connection, after=0))
    assert isinstance(check(sealed), Verified)
    bad = first_bad(sealed, checkpoint)
    assert (bad.seq, "cut" in bad.why) == (1, True)


def test_a_chain_cut_and_continued_is_found_by_a_checkpoint(sealed: World) -> None:
    checkpoint = kept(sealed)
    tamper(sealed, lambda connection: cut(connection, after=5))
    seal(sealed, "forged-1", "forged-2", "forged-3")
    assert first_bad(sealed, checkpoint).seq == 8


def test_a_row_that_is_put_in_among_the_sealed_ones_is_found(sealed: World) -> None:
    low = dict(id="forged", at=START, number=-6_000, kind="step.done", tenant_id="acme", detail={})  # noqa: C408
    sealed.store.write(lambda connection: connection.execute(insert(rows), low))
    assert Sealer(sealed.store, SIGNER).seal(now=START) == 0
    assert "forged was put in" in first_bad(sealed).why


@pytest.mark.parametrize(
    "change", [lambda text: text.replace('"seq": 8', '"seq": 4'), lambda text: "{", lambda text: "[]"]
)
@MOSTLY_SQLITE
def test_an_altered_checkpoint_is_none(sealed: World, change: Callable[[str], str]) -> None:
    with pytest.raises(BadInput, match="not a checkpoint"):
        read_checkpoint(change(kept(sealed)), KEYS)


# Pruning.


def test_what_was_pruned_is_stated_and_the_rest_still_verifies(sealed: World) -> None:
    early = kept(sealed)
    for days, gone, first in ((0, 0, 1), (1, 3, 4), (1, 0, 4), (2, 2, 6)):
        assert prune(sealed, days=days) == gone
        outcome = check(sealed, early)
        assert isinstance(outcome, Verified)
        assert (outcome.first, outcome.count) == (first, 9 - first)
    assert sealed.store.read(lambda c: c.execute(select(audit_prunings.c.seq)).scalars().all()) == [5]
    seal(sealed, "i")
    assert isinstance(check(sealed, early), Verified)


def test_a_checkpoint_of_what_was_pruned_is_held_against_its_end(world: World) -> None:
    seal(world, *"abc")
    early = kept(world)
    seal(world, *"de", at=START + DAY)
    assert prune(world, days=1) == 3
    assert isinstance(check(world, early), Verified)
    other = sign(SIGNER, seq=3, digest="0" * 64, at=START).line()
    assert "not the one of the checkpoint" in first_bad(world, other).why


def test_a_checkpoint_of_before_what_was_pruned_is_not_compared_and_that_is_told(sealed: World) -> None:
    other = sign(SIGNER, seq=2, digest="0" * 64, at=START).line()
    assert "not the one of the checkpoint" in first_bad(sealed, other).why
    assert prune(sealed, days=1) == 3
    outcome = check(sealed, other)
    assert isinstance(outcome, Verified)
    assert not outcome.compared


def test_what_is_pruned_while_it_is_verified_breaks_nothing(sealed: World) -> None:
    """Between where the chain begins and its first link, whenever the database lets somebody see that."""
    due = [1]

    def meanwhile(*given: str) -> None:
        if due and "from audit_seals" in given[2].lower():
            due.clear()
            assert prune(sealed, days=1) == 3

    def look(connection: Connection) -> Verified | FirstBad:
        event.listen(connection, "before_cursor_execute", meanwhile)
        return verify(Within(connection), KEYS)

    outcome = sealed.store.read(look)
    assert isinstance(outcome, Verified), outcome
    assert not due


def test_what_is_sealed_while_it_is_verified_is_for_the_next_time(sealed: World) -> None:
    seen = {"more": False}

    def meanwhile(_: int) -> None:
        seen["more"] = True
        seal(sealed, "i", at=START + 3 * DAY)

    outcome = verify(sealed.store, KEYS, progress=meanwhile)
    assert isinstance(outcome, Verified)
    assert (outcome.count, outcome.unsealed, seen) == (8, 0, {"more": True})
    again = check(sealed)
    assert isinstance(again, Verified)
    assert again.count == 9


@ONLY_SQLITE
def test_the_log_of_changes_can_be_reset_while_the_chain_is_verified(sealed: World) -> None:
    """It cannot while somebody reads: the walk of a large ledger takes minutes."""
    busy = []
    with closing(sqlite3.connect(str(sealed.store.engine.url.database))) as other:

        def reset(_: int) -> None:
            busy.append(other.execute("pragma wal_checkpoint(truncate)").fetchone()[0])

        assert isinstance(verify(sealed.store, KEYS, progress=reset), Verified)
    assert busy == [0]


def test_stretches_have_every_row_once_also_those_of_one_number(sealed: World) -> None:
    def renumber(connection: Connection) -> None:
        for name, number in zip("abcdefgh", (-7, 0, 0, 0, 5, 5, 6, 2**62), strict=True):
            connection.execute(update(rows).where(rows.c.id == name).values(number=number))

    tamper(sealed, renumber)
    for size in (1, 2, 3, 8, 9):
        counted = [
            sealed.store.read(partial(number_of_rows, stretch=one)) for one in stretches(sealed.store, rows=size)
        ]
        assert sum(counted) == 8
    assert [(one.after, one.upto) for one in stretches(sealed.store, rows=3)] == [(None, 0), (0, 6), (6, None)]


def test_nothing_is_pruned_that_is_not_sealed_or_is_the_newest(world: World) -> None:
    write(world, *"abc")
    assert prune(world, days=9) == 0
    Sealer(world.store, SIGNER).run(now=START)
    assert prune(world, days=9) == 0
    assert isinstance(check(world), Verified)


@MOSTLY_SQLITE
def test_a_long_chain_is_pruned_batch_by_batch(world: World) -> None:
    write(world, *(f"row-{number}" for number in range(1_100)))
    sealer = Sealer(world.store, SIGNER)
    assert sealer.run(now=START) == 1_100
    assert [prune(world, days=9) for _ in range(3)] == [500, 500, 0]  # the last batch holds the newest link
    outcome = check(world)
    assert isinstance(outcome, Verified)
    assert (outcome.first, outcome.count) == (1_001, 100)


def test_an_altered_row_is_not_pruned_but_kept_as_evidence(sealed: World) -> None:
    tamper(sealed, lambda connection: edit(connection, "b"))
    with pytest.raises(Misconfigured, match="breaks at 2"):
        prune(sealed, days=9)
    assert first_bad(sealed).seq == 2


def test_who_prunes_without_the_key_is_found(sealed: World) -> None:
    def forge(connection: Connection) -> None:
        link = next(link for link, _ in sealed_rows(connection) if link.seq == 5)
        assert link.signed is not None  # a signature over something else
        stated = {"seq": 5, "digest": link.digest, "at": link.signed.at, "signature": link.signed.signature}
        connection.execute(insert(audit_prunings), stated)
        gone = select(audit_seals.c.audit_id).where(audit_seals.c.seq <= 5)
        connection.execute(delete(rows).where(rows.c.id.in_(gone)))
        connection.execute(delete(audit_seals).where(audit_seals.c.seq <= 5))

    sealed.store.write(forge)  # the triggers let it go: the signature tells
    bad = first_bad(sealed)
    assert (bad.seq, "did not have the key" in bad.why) == (1, True)
    with pytest.raises(Misconfigured, match="did not have the key"):
        prune(sealed, days=9)
