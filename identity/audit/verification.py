"""Whether the audit in the ledger is whole."""

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
    """Walk the whole chain with public keys alone. O(rows). *progress* hears of each thousand.

    With *since*, walk what is behind that: O(rows since then). What was altered before that since it was verified is
    for the next whole walk, but for the link itself. If that was pruned, the whole chain is walked.

    A link holds what is before it whenever that was read, and the walk ends where the chain ended when it began, so
    what is sealed meanwhile is for the next one. Where what comes next was pruned meanwhile, it is walked from where it
    begins then, which is further on each time.
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
    """Where a walk goes on that came this far."""
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
    """The rows that are not in the chain: those that wait for the sealer, and none that never will be in it."""
    # Its end from before the rows are counted and its beginning from after that: what is sealed or pruned meanwhile
    # makes too few of them sealed, never too many, so that none of it hides a row that was put in.
    end, floor = store.read(lambda c: (last_seq(c), lowest_floor(c)))
    total = sum(store.read(partial(number_of_rows, stretch=stretch)) for stretch in stretches(store))
    pruned = store.read(newest_pruning)
    unsealed = total - max(0, end - (pruned.seq if pruned is not None else 0))
    if unsealed > 0 and (stray := first_never_sealed(store)):
        return _put_in(stray, last)
    return replace(found, unsealed=max(unsealed, 0), accounted=floor)


def _beside_since(store: Store, last: int, found: Verified, after: int) -> Verified | FirstBad:
    """The same of those behind that ledger number."""
    unsealed = sum(store.read(partial(number_waiting, stretch=stretch)) for stretch in stretches(store, after=after))
    if unsealed > 0 and (stray := first_never_sealed(store, after=after)):
        return _put_in(stray, last)
    return replace(found, unsealed=unsealed)


def _put_in(stray: str, last: int) -> FirstBad:
    return FirstBad(seq=last + 1, why=f"the audit row {stray} was put in among those that are sealed", proven=last)
