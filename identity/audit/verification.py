"""Verification of the audit in the ledger."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from sqlalchemy import Connection

from identity.audit.chain import FirstBad, Start, Verified, walk
from identity.audit.links import (
    Progress,
    PrunedMeanwhile,
    beginning,
    digest_of,
    last_seq,
    newest_pruning,
    sealed_rows_between,
    unwatched,
)
from identity.audit.sealer import first_never_sealed, lowest_floor, number_waiting
from identity.audit.statements import Head, WholeVerification
from identity.audit.stretches import number_of_rows, stretches
from identity.keys.trusted_keys import TrustedKeys
from identity.sql.store import Store


def verify(
    store: Store,
    keys: TrustedKeys,
    *,
    checkpoint: Head | None = None,
    since: WholeVerification | None = None,
    progress: Progress = unwatched,
) -> Verified | FirstBad:
    """Walk the whole chain with only public keys. O(rows). *progress* is called for each thousand.

    With *since*, walk only the part after it: O(rows since then). Alterations before it are left to the next whole
    walk, except of that link itself. If it was pruned, the whole chain is walked.

    A link vouches for what is before it whenever that was read. The walk ends where the chain ended when it began, so
    rows sealed meanwhile are left to the next one. If the rows to be walked next are pruned meanwhile, the walk
    restarts at the new beginning, which is further on each time.
    """
    unless = ""
    while True:
        start, end = store.read(lambda c: (beginning(c, keys), last_seq(c)))
        after = None
        if since is not None and not isinstance(start, FirstBad) and start.seq < since.seq:
            start, after = store.read(partial(_going_on, since=since, end=end)), since.number
        if isinstance(start, FirstBad):
            return replace(start, why=start.why + unless)
        try:
            walked = _walked(store, keys, start, end, checkpoint=checkpoint, progress=progress)
            if isinstance(walked, FirstBad):
                return walked
            last = start.seq + walked.count
            return _beside(store, last, walked) if after is None else _beside_since(store, last, walked, after)
        except PrunedMeanwhile:
            unless = ", unless it was rotated meanwhile: verify it again"


def _going_on(connection: Connection, *, since: WholeVerification, end: int) -> Start | FirstBad:
    """Return where to resume after an earlier verification; FirstBad if the chain has changed there."""
    if end < since.seq:
        why = f"the chain was cut: when it was verified, at {since.at}, it had {since.seq} rows"
        return FirstBad(seq=end + 1, why=why, proven=0)
    if digest_of(connection, since.seq) != since.digest:
        return FirstBad(seq=since.seq, why=f"the chain is not the one that was verified at {since.at}", proven=0)
    return Start(seq=since.seq, digest=since.digest)


def _walked(
    store: Store, keys: TrustedKeys, start: Start, end: int, *, checkpoint: Head | None, progress: Progress
) -> Verified | FirstBad:
    links = (link for link, _ in sealed_rows_between(store, after=start.seq, end=end, progress=progress))
    outcome = walk(links, keys, start=start, checkpoint=checkpoint)
    if isinstance(outcome, FirstBad):
        return outcome
    last, newest = start.seq + outcome.count, keys.handovers[0] if keys.handovers else None
    if newest is not None and newest.seq > last:
        why = f"the chain was cut: when its key was rotated, at {newest.at}, it had {newest.seq} rows"
        return FirstBad(seq=last + 1, why=why, proven=last)
    return outcome


def _beside(store: Store, last: int, found: Verified) -> Verified | FirstBad:
    """Check the rows outside the chain: they may wait for the sealer, but none may be beyond its reach."""
    # The end is read before the rows are counted and the beginning after it. Rows sealed or pruned meanwhile then make
    # the sealed count too low, never too high, so they cannot hide an inserted row.
    end, floor = store.read(lambda c: (last_seq(c), lowest_floor(c)))
    total = sum(store.read(partial(number_of_rows, stretch=stretch)) for stretch in stretches(store))
    pruned = store.read(newest_pruning)
    unsealed = total - max(0, end - (pruned.seq if pruned is not None else 0))
    if unsealed > 0 and (stray := first_never_sealed(store)):
        return _put_in(stray, last)
    return replace(found, unsealed=max(unsealed, 0), accounted=floor)


def _beside_since(store: Store, last: int, found: Verified, after: int) -> Verified | FirstBad:
    """Check the rows after that ledger number in the same way."""
    unsealed = sum(store.read(partial(number_waiting, stretch=stretch)) for stretch in stretches(store, after=after))
    if unsealed > 0 and (stray := first_never_sealed(store, after=after)):
        return _put_in(stray, last)
    return replace(found, unsealed=unsealed)


def _put_in(stray: str, last: int) -> FirstBad:
    return FirstBad(seq=last + 1, why=f"the audit row {stray} was put in among those that are sealed", proven=last)
