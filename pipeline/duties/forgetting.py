"""What is old enough is forgotten kind by kind, each in its turn: one that has much to forget holds up no other.

Chunk by chunk, so that nobody waits for it. Where some of a kind must stay however old it is, it is looked through in
reads: a write waits for no such look.
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

CHUNK = 100  # rows, or jobs with all their steps, in one transaction
_LOOKED_AT = 10  # chunks, in one read
_IN_VAIN = 100  # chunks that have to stay, in one tick
Progress = Callable[[str, int], object]  # hears of what, and how much of it, each chunk forgot


class ForgetFirst(Protocol):
    """Forgets the first of what is from before then; how many."""

    def __call__(self, connection: Connection, /, *, before: datetime, limit: int) -> int: ...


class Look(Protocol):
    """Looks at the next of what is from before then, and says which may go."""

    def __call__(
        self, connection: Connection, /, *, before: datetime, after: Bookmark | None, limit: int
    ) -> Looked: ...


class ForgetThese(Protocol):
    """Forgets those of these that may go still; how many."""

    def __call__(self, connection: Connection, /, *, before: datetime, ids: Sequence[str]) -> int: ...


@dataclass(frozen=True, kw_only=True)
class LookedThrough:
    """How a kind is forgotten of which some must stay."""

    look: Look
    forget: ForgetThese


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Something that is forgotten after so many days; 0: it is kept for good."""

    what: str
    days: int
    how: ForgetFirst | LookedThrough


@dataclass(kw_only=True)
class Course:
    """How far a process has come, which goes on there at its next tick."""

    bookmarks: dict[str, Bookmark] = field(default_factory=dict)  # by what is looked through
    first: int = 0  # the kind that begins: however long a chunk of one takes, each is the first once
    finished: dict[str, float] = field(default_factory=dict)  # when nothing was left of a kind that was old enough


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
    """Forget what is old enough, and begin no chunk after *within*; how much of what.

    Those that have something left share the time that is left, round after round. *course* is the one to go on, and is
    changed: among what must stay a tick goes only so far, and the next one behind it. None: all is looked through.

    What fails keeps nothing else from being forgotten. The first of it is raised in the end.
    """
    began = monotonic()
    end = began + within.total_seconds()
    forgotten = Counter({kind.what: 0 for kind in kinds})
    failed: dict[str, Exception] = {}
    left = {kind.what: _chunks(store, kind, now, chunk, course) for kind in _in_order(kinds, course) if kind.days}
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
            except Exception as error:  # raised when the others have had their turn
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
    """Say for how long something of a kind has been left that was old enough, at the end of every tick."""
    for kind in kinds:
        if kind.what not in unfinished:
            course.finished[kind.what] = now
        since = course.finished.setdefault(kind.what, began)
        metrics.RETENTION_BEHIND_SECONDS.labels(kind.what).set(now - since)


def _chunks(store: Store, kind: Kind, now: datetime, chunk: int, course: Course | None) -> Iterator[int]:
    before = now - timedelta(days=kind.days)
    if isinstance(kind.how, LookedThrough):
        return _chunks_of_some(store, kind.what, kind.how, before=before, chunk=chunk, course=course)
    return _chunks_of_all(store, kind.how, before=before, chunk=chunk)


def _chunks_of_all(store: Store, forget: ForgetFirst, *, before: datetime, chunk: int) -> Iterator[int]:
    """How much each chunk forgot, of a kind of which all goes that is old."""
    while number := store.write(partial(forget, before=before, limit=chunk)):
        yield number


def _chunks_of_some(
    store: Store, what: str, how: LookedThrough, *, before: datetime, chunk: int, course: Course | None
) -> Iterator[int]:
    """How much each chunk forgot, of a kind of which some must stay."""
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
