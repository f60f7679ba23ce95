"""The chain is walked a thousand links at a time, while it is sealed, its key rotated and its beginning pruned."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import pytest
from sqlalchemy import Connection, insert

from identity.audit import Act
from identity.audit.chain import FirstBad, Verified
from identity.audit.export import export_lines
from identity.audit.handovers import hand_over
from identity.audit.pruning import prune_audit
from identity.audit.sealer import Sealer
from identity.audit.statements import sign
from identity.audit.tables import audit
from identity.audit.verification import verify
from identity.errors import BadInput
from identity.keys.signing import Signer
from identity.sql.store import Store
from tests.identity.audits import DAY, KEYS, SIGNER, as_owner, edit, prune, seal, write
from tests.identity.world import START, World

pytestmark = pytest.mark.as_owner

NEXT = Signer.from_seed(os.urandom(32))
T = TypeVar("T")


class Disturbed:
    """A store before each of whose next reads something happens."""

    def __init__(self, store: Store, *acts: Callable[[], object]) -> None:
        self._store = store
        self._acts = list(acts)
        self.reads = 0

    def read(self, fn: Callable[[Connection], T]) -> T:
        self.reads += 1
        if self._acts:
            self._acts.pop(0)()
        return self._store.read(fn)

    def write(self, fn: Callable[[Connection], T]) -> T:
        return self._store.write(fn)


def nothing() -> None:
    pass


@pytest.fixture
def long(world: World) -> World:
    """Links 500, 1000 and 1100 are signed; the last two of the chain, days later, as well."""
    write(world, *(f"row-{number}" for number in range(1, 1_101)))
    assert Sealer(world.store, SIGNER).run(now=START) == 1_100
    seal(world, "later", at=START + 4 * DAY)
    seal(world, "latest", at=START + 5 * DAY)
    return world


def prune_twice(world: World) -> None:
    assert [prune(world, days=1), prune(world, days=1)] == [500, 500]


def prune_all(world: World) -> None:
    prune_twice(world)
    assert prune(world, days=1) == 100


def rotate_and_seal(world: World) -> None:
    assert world.store.write(
        lambda c: hand_over(c, SIGNER, NEXT, Act(audit_id="rotated", by="test", now=START + 5 * DAY))
    )
    write(world, "by the next key", at=START + 5 * DAY)
    assert Sealer(world.store, NEXT).run(now=START + 5 * DAY) == 2


def held(outcome: Verified | FirstBad) -> tuple[int, int]:
    assert isinstance(outcome, Verified), outcome
    return outcome.first, outcome.count


def test_what_is_sealed_and_rotated_between_two_pages_is_for_the_next_time(long: World) -> None:
    acts = [rotate_and_seal]
    outcome = verify(long.store, KEYS, progress=lambda _: acts.pop()(long) if acts else None)
    assert held(outcome) == (1, 1_102)
    assert not acts


def test_what_is_sealed_between_two_pages_is_not_exported(long: World) -> None:
    acts = [rotate_and_seal]
    lines = export_lines(long.store, progress=lambda _: acts.pop()(long) if acts else None)
    assert sum(1 for _ in lines) == 1 + 1_102
    assert not acts


def test_what_is_pruned_before_the_first_page_is_walked_from_where_it_begins_then(long: World) -> None:
    assert held(verify(Disturbed(long.store, nothing, lambda: prune_twice(long)), KEYS)) == (1_001, 102)


def test_what_is_pruned_behind_the_walk_is_nothing_to_it(long: World) -> None:
    acts = [prune_twice]
    told: list[int] = []

    def meanwhile(number: int) -> None:
        told.append(number)
        if acts:
            acts.pop()(long)

    assert held(verify(long.store, KEYS, progress=meanwhile)) == (1, 1_102)
    assert told == [1_000, 102]


def test_what_is_pruned_before_the_walk_is_walked_from_where_it_begins_then(long: World) -> None:
    acts = [prune_all]
    assert held(verify(long.store, KEYS, progress=lambda _: acts.pop()(long) if acts else None)) == (1_101, 2)


def test_a_break_is_told_at_once_whatever_is_pruned_meanwhile(long: World) -> None:
    """By the second page; that there were more to forget each time would have it walk on and on."""
    long.store.write(lambda connection: tampered(connection, "row-1050"))
    store = Disturbed(long.store, nothing, nothing, *(lambda: prune(long, days=1) for _ in range(2)))
    outcome = verify(store, KEYS)
    assert isinstance(outcome, FirstBad)
    assert (outcome.seq, outcome.proven, store.reads) == (1_050, 1_000, 3)


def test_another_chain_than_the_checkpoint_s_is_told_though_that_part_is_pruned_meanwhile(long: World) -> None:
    other = sign(SIGNER, seq=1_000, digest="0" * 64, at=START)
    outcome = verify(Disturbed(long.store, nothing, nothing, lambda: prune_all(long)), KEYS, checkpoint=other)
    assert isinstance(outcome, FirstBad)
    assert (outcome.seq, "not the one of the checkpoint" in outcome.why) == (1_000, True)


def test_what_was_pruned_with_a_key_that_is_not_known_yet_may_be_a_rotation(long: World) -> None:
    def rotate_and_prune() -> None:
        rotate_and_seal(long)
        for number in (500, 500, 100):
            assert long.store.write(pruned_by_next) == number

    def pruned_by_next(connection: Connection) -> int:
        return prune_audit(connection, before=START + DAY, limit=100, signer=NEXT, now=START + 6 * DAY)

    acts = [rotate_and_prune]
    outcome = verify(long.store, KEYS, progress=lambda _: acts.pop()() if acts else None)
    assert isinstance(outcome, FirstBad)
    assert "unless it was rotated meanwhile: verify it again" in outcome.why


def test_an_export_is_not_gone_on_with_behind_what_was_pruned_before_it(long: World) -> None:
    acts = [prune_all]
    with pytest.raises(BadInput, match="pruned up to 1100 while it was read behind 1000"):
        list(export_lines(long.store, progress=lambda _: acts.pop()(long) if acts else None))


def test_a_row_that_was_put_in_is_found_though_others_are_pruned_meanwhile(long: World) -> None:
    """Before the rows are counted: the reads are where it begins, two pages, the last link, and a stretch's end."""
    low = dict(id="forged", at=START, number=-6_000, kind="step.done", tenant_id="acme", detail={})  # noqa: C408
    long.store.write(lambda connection: connection.execute(insert(audit), low))
    acts = (nothing, nothing, nothing, nothing, lambda: prune_twice(long))
    outcome = verify(Disturbed(long.store, *acts), KEYS)
    assert isinstance(outcome, FirstBad)
    assert "forged was put in" in outcome.why


def tampered(connection: Connection, name: str) -> None:
    with as_owner(connection):
        edit(connection, name)
