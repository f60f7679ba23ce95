"""What the sealer says of records and links that somebody altered into what cannot be read.

On SQLite, which keeps anything in any column: PostgreSQL takes no such value.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, text

from identity.audit.chain import FirstBad, Verified
from identity.audit.links import newest_checkpoint
from identity.audit.sealer import Sealer, oldest_unsealed
from identity.audit.verification import verify
from identity.errors import Misconfigured
from tests.identity.audits import DAY, KEYS, SIGNER, as_owner, seal, write
from tests.identity.world import START, World

pytestmark = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)

NO_RECORD = {
    "no text": "reason = cast(x'ff' as text)",
    "not even an id": "id = cast(x'ff' as text)",
    "bytes": "reason = x'00'",
    "no JSON": "detail = '{'",
    "no time": "at = 'yesterday'",
    "no such time": "at = 9e99",
}


def alter(world: World, assignment: str, which: str) -> None:
    def change(connection: Connection) -> None:
        table = "audit" if which.startswith("id") else "audit_seals"
        with as_owner(connection):
            connection.execute(text(f"update {table} set {assignment} where {which}"))

    world.store.write(change)


@pytest.mark.parametrize("assignment", NO_RECORD.values(), ids=NO_RECORD)
def test_a_record_that_cannot_be_read_is_named_and_those_before_it_are_sealed(world: World, assignment: str) -> None:
    seal(world, *"abc")
    write(world, *"def")
    alter(world, f"{assignment}, number = 77", "id = 'e'")
    alter(world, "number = 78", "id = 'f'")
    sealer = Sealer(world.store, SIGNER)
    assert sealer.run(now=START) == 1
    with pytest.raises(
        Misconfigured,
        match=r"not sealed on: its next record, of ledger number 77, cannot be read\. `aswhom audit verify`",
    ):
        sealer.run(now=START)
    outcome = verify(world.store, KEYS)
    assert isinstance(outcome, Verified)
    assert (outcome.count, outcome.unsealed) == (4, 2)


@pytest.mark.parametrize("id", ["cast(x'ff' as text)", "x'ff'"], ids=["no text", "bytes"])
def test_a_record_that_was_put_in_far_below_the_sealed_ones_is_named_whatever_its_id_is(world: World, id: str) -> None:
    seal(world, *"abc")
    write(world, "d")
    alter(world, f"id = {id}, number = -7777", "id = 'd'")
    outcome = verify(world.store, KEYS)
    assert isinstance(outcome, FirstBad)
    assert outcome.why == "the audit row of ledger number -7777 was put in among those that are sealed"
    assert (outcome.seq, outcome.proven) == (4, 3)


@pytest.mark.parametrize(
    ("assignment", "since"),
    [("reason = cast(x'ff' as text)", START), ("at = 'yesterday'", datetime(1970, 1, 1, tzinfo=UTC))],
    ids=["no text", "no time"],
)
def test_since_when_records_wait_is_said_whatever_they_hold(world: World, assignment: str, since: datetime) -> None:
    """The alert that nothing is sealed goes by it."""
    write(world, "a")
    alter(world, assignment, "id = 'a'")
    assert world.store.read(oldest_unsealed) == since


@pytest.mark.parametrize("assignment", ["sealed_at = 'yesterday'", "sealed_at = 9e99", "sealed_at = x'00'"])
def test_a_last_link_without_a_time_is_not_sealed_on_and_no_checkpoint(world: World, assignment: str) -> None:
    seal(world, *"abc")
    alter(world, assignment, "seq = 3")
    with pytest.raises(Misconfigured, match="not sealed on: its last link cannot be read"):
        world.store.read(newest_checkpoint)
    write(world, "d")
    with pytest.raises(Misconfigured, match="not sealed on: its last link cannot be read"):
        Sealer(world.store, SIGNER).seal(now=START)


def test_a_link_within_the_chain_without_a_time_stops_nobody(world: World) -> None:
    """No signature is over it."""
    for day, batch in enumerate(("abc", "def", "ghi")):
        seal(world, *batch, at=START + day * DAY)
    alter(world, "sealed_at = 'yesterday'", "signature is null")
    seal(world, "j", at=START + timedelta(days=4))
    assert isinstance(verify(world.store, KEYS), Verified)
