"""Retention in turns: each kind of old data is deleted in its turn, so that a large one does not hold up the others.

Deletion goes in chunks, so that nobody waits for it. Kinds of which some rows must stay, however old, are searched in
reads, so that no write waits for the search.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from sqlalchemy import Connection

from identity.retention import Bookmark, Looked
from identity.sql.store import Store
from pipeline import metrics
from pipeline.batches import in_batches

log = logging.getLogger(__name__)

CHUNK = 100  # rows, or jobs with all their steps, per transaction
_LOOKED_AT = 10  # chunks per read
_IN_VAIN = 100  # chunks of rows that must stay, per tick
_DAY = timedelta(days=1)
Progress = Callable[[str, int], object]  # called with the kind and the number that each chunk deleted


class ForgetFirst(Protocol):
    """Deletes the first *limit* items from before a time; returns how many."""

    def __call__(self, connection: Connection, /, *, before: datetime, limit: int) -> int: ...


class Look(Protocol):
    """Looks at the next *limit* items from before a time; returns which may be deleted."""

    def __call__(
        self, connection: Connection, /, *, before: datetime, after: Bookmark | None, limit: int
    ) -> Looked: ...


class ForgetThese(Protocol):
    """Deletes those of the given items that may still be deleted; returns how many."""

    def __call__(self, connection: Connection, /, *, before: datetime, ids: Sequence[str]) -> int: ...


@dataclass(frozen=True, kw_only=True)
class LookedThrough:
    """The deletion of a kind of which some items must stay."""

    look: Look
    forget: ForgetThese


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Data that is deleted after a number of days; 0: it is kept for good."""

    what: str
    days: int
    how: ForgetFirst | LookedThrough


@dataclass(kw_only=True)
class Course:
    """The progress of a process, for its next tick to continue."""

    bookmarks: dict[str, Bookmark] = field(default_factory=dict)  # by kind, for those that are searched
    first: int = 0  # the kind that begins the next tick, so that each comes first in turn, however long its chunks take
    # When no item of the kind was overdue, by kind. At first: the start of the process, or a day before, if an item has
    # been overdue for longer.
    finished: dict[str, float] = field(default_factory=dict)


def forget_in_turn(
    store: Store,
    kinds: Sequence[Kind],
    *,
    now: datetime,
    within: timedelta,
    course: Course | None,
    chunk: int,
    progress: Progress,
    monotonic: Callable[[], float] = time.monotonic,
) -> Mapping[str, int]:
    """Delete what is old enough, and begin no chunk after *within*. Return the numbers by kind.

    Kinds with something left share the remaining time, round after round. *course* is the progress to continue, and is
    changed: a tick searches only so many items that must stay, and the next one goes on behind them. None: search
    everything.

    A failure does not keep other kinds from being deleted. The first one is raised at the end.
    """
    began = monotonic()
    end = began + within.total_seconds()
    forgotten = Counter({kind.what: 0 for kind in kinds})
    failed: dict[str, Exception] = {}
    left = {
        kind.what: _chunks(store, kind, now, chunk, course, began) for kind in _in_order(kinds, course) if kind.days
    }
    while left and monotonic() < end:
        share = (end - monotonic()) / len(left)
        for what, chunks in [*left.items()]:
            until = min(end, monotonic() + share)
            try:
                while monotonic() < until:
                    number = next(chunks, None)
                    if number is None:
                        del left[what]
                        break
                    forgotten[what] += number
                    if number:
                        progress(what, number)
            except Exception as error:  # raised after the others have had their turn
                del left[what]
                if failed:
                    extra = {"action": "retention.failed", "what": what}
                    log.warning("%s could not be forgotten", what, exc_info=error, extra=extra)
                failed[what] = error
    if course is not None:
        _tell(kinds, course, {*left, *failed, *course.bookmarks}, began=began, now=monotonic())
    for first in failed.values():
        raise first
    return forgotten


def _in_order(kinds: Sequence[Kind], course: Course | None) -> Sequence[Kind]:
    if course is None:
        return kinds
    first, course.first = course.first, (course.first + 1) % len(kinds)
    return [*kinds[first:], *kinds[:first]]


def _tell(kinds: Sequence[Kind], course: Course, unfinished: set[str], *, began: float, now: float) -> None:
    """Set for how long each kind has had overdue items, as of the end of this tick."""
    for kind in kinds:
        if kind.what not in unfinished:
            course.finished[kind.what] = now
        since = course.finished.get(kind.what, began)  # none: its turn has not come yet
        metrics.RETENTION_BEHIND_SECONDS.labels(kind.what).set(now - since)


def _chunks(store: Store, kind: Kind, now: datetime, chunk: int, course: Course | None, began: float) -> Iterator[int]:
    """Yield the size of each deleted chunk. The first time for *course*, see whether it has been overdue for a day."""
    before = now - timedelta(days=kind.days)
    if course is not None and kind.what not in course.finished:
        course.finished[kind.what] = began
        overdue = before - _DAY
        if isinstance(kind.how, LookedThrough):
            looked = store.read(partial(kind.how.look, before=overdue, after=None, limit=_LOOKED_AT * chunk))
            if looked.forgettable:
                course.finished[kind.what] -= _DAY.total_seconds()
        elif deleted := store.write(partial(kind.how, before=overdue, limit=chunk)):
            course.finished[kind.what] -= _DAY.total_seconds()
            yield deleted
    if isinstance(kind.how, LookedThrough):
        yield from _chunks_of_some(store, kind.what, kind.how, before=before, chunk=chunk, course=course)
    else:
        yield from _chunks_of_all(store, kind.how, before=before, chunk=chunk)


def _chunks_of_all(store: Store, forget: ForgetFirst, *, before: datetime, chunk: int) -> Iterator[int]:
    """Yield the size of each deleted chunk, for a kind of which everything old goes."""
    while number := store.write(partial(forget, before=before, limit=chunk)):
        yield number


def _chunks_of_some(
    store: Store, what: str, how: LookedThrough, *, before: datetime, chunk: int, course: Course | None
) -> Iterator[int]:
    """Yield the size of each deleted chunk, for a kind of which some items must stay."""
    kept = {} if course is None else course.bookmarks
    stayed = 0
    while course is None or stayed < _IN_VAIN * chunk:
        looked = store.read(partial(how.look, before=before, after=kept.get(what), limit=_LOOKED_AT * chunk))
        for some in in_batches(looked.forgettable, chunk):
            yield store.write(partial(how.forget, before=before, ids=some))
        if looked.bookmark is None:
            kept.pop(what, None)
            return
        kept[what] = looked.bookmark
        stayed += looked.number - len(looked.forgettable)
        yield 0
