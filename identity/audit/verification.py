"""Whether the audit in the ledger is whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from identity.audit.chain import FirstBad, Link, Start, Verified, walk
from identity.audit.links import Progress, beginning, last_seq, links_behind, sealed_page, unwatched
from identity.audit.sealer import first_never_sealed
from identity.audit.statements import Head
from identity.audit.stretches import number_of_rows, stretches
from identity.store import Store
from identity.trusted_keys import TrustedKeys


def verify(
    store: Store, keys: TrustedKeys, *, checkpoint: Head | None = None, progress: Progress = unwatched
) -> Verified | FirstBad:
    """Walk the whole chain with public keys alone. O(rows). *progress* hears of each thousand.

    Each is read by itself: on SQLite the log of changes grows as long as somebody reads. A link holds what is before it
    whenever that was read, and the walk ends where the chain ended when it began, so what is sealed meanwhile is for
    the next one.
    """
    start, end = store.read(lambda c: (beginning(c, keys), last_seq(c)))
    if isinstance(start, FirstBad):
        return start
    links = _links(store, after=start.seq, end=end, progress=progress)
    outcome = walk(links, keys, start=start, checkpoint=checkpoint)
    if isinstance(outcome, FirstBad):
        # What was pruned between two reads is missing where the walk was: it is walked from where it begins now.
        anew = store.read(partial(beginning, keys=keys)) != start
        return verify(store, keys, checkpoint=checkpoint, progress=progress) if anew else outcome
    last, newest = start.seq + outcome.count, keys.handovers[0] if keys.handovers else None
    if newest is not None and newest.seq > last:
        why = f"the chain was cut: when its key was rotated, at {newest.at}, it had {newest.seq} rows"
        return FirstBad(seq=last + 1, why=why, proven=last)
    return _beside(store, start, outcome)


def _links(store: Store, *, after: int, end: int, progress: Progress) -> Iterator[Link]:
    while after < end and (thousand := store.read(partial(sealed_page, after=after))):
        told = [link for link, _ in thousand if link.seq <= end]
        yield from told
        progress(len(told))
        after = thousand[-1][0].seq


def _beside(store: Store, start: Start, found: Verified) -> Verified | FirstBad:
    """The rows that are not in the chain: those that wait for the sealer, and none that never will be in it."""
    sealed = store.read(links_behind)  # before the rows, so that none of those sealed meanwhile hides another
    total = sum(store.read(partial(number_of_rows, stretch)) for stretch in stretches(store))
    last = start.seq + found.count
    if total > sealed and (stray := first_never_sealed(store)):
        why = f"the audit row {stray} was put in among those that are sealed"
        return FirstBad(seq=last + 1, why=why, proven=last)
    return replace(found, unsealed=max(total - sealed, 0))
