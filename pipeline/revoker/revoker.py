"""Carries a revocation to its receipt: cancels queued jobs, stops running ones, waits for the calls in flight.

A narrowing only waits for its calls. `advance` is idempotent, resumes after a crash, and may run for one revocation in
two processes at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from functools import partial

from sqlalchemy import update

from identity.crash_points import none_reached
from identity.ids import Ids, following
from identity.keys.signing import Signer
from identity.sql.columns import database_now
from identity.sql.store import Store
from pipeline import metrics
from pipeline.authoring.registry import Registry
from pipeline.authoring.uses import OnRevoke
from pipeline.batches import in_batches
from pipeline.jobs import scope_sets
from pipeline.ledger.clock import ledger_now
from pipeline.revocation import compensation, narrowing, receipt
from pipeline.revocation.declaration import REACHING, Stage, load, load_without_receipt, scope_of
from pipeline.revocation.pages import ended_pages
from pipeline.revocation.receipt_content import ReadProviderSide
from pipeline.revocation.tables import NARROWING, revocations
from pipeline.revoker import cancelling, progress
from pipeline.states import JobState


class _ToldToStop(Exception):
    """The process must end. Another one resumes the revocation from the state it has reached."""


def _unwatched() -> None:
    """Ignore progress."""


class Revoker:
    """Carries a revocation from effective to its signed receipt.

    The `revocations` worker and housekeeping call the same `advance`.
    """

    def __init__(
        self,
        store: Store,
        signer: Signer,
        workflows: Registry,
        *,
        ahead: Store,
        ids: Ids,
        provider_side: ReadProviderSide,
        withdraw: Callable[[str], bool],
        inquire: Callable[[str], bool],
        stopping: Callable[[], bool],
        reached: Callable[[str], None] = none_reached,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._ahead = ahead  # the same ledger, for the chunks: they need not queue behind all other writes here
        self._signer = signer
        self._workflows = workflows
        self._ids = ids
        self._provider_side = provider_side
        self._withdraw = withdraw  # asks the provider to end the revoked tokens; False: some are still pending
        self._inquire = inquire  # asks the provider whether the signal was genuine; False: no answer yet
        self._stopping = stopping  # True once this process was told to stop
        self._reached = reached
        self._monotonic = monotonic

    def advance(self, revocation: str, *, moved: Callable[[], None] = _unwatched) -> bool:
        """Do what can be done now. True: it is quiesced and has its receipt. False: it must be resumed.

        *moved* is called after each part, such as a chunk of its jobs. If the process is told to stop, this returns
        False after the current part.
        """

        def onward() -> None:
            moved()
            if self._stopping():
                raise _ToldToStop

        try:
            return self._advance(revocation, onward)
        except _ToldToStop:
            return False

    def _advance(self, revocation: str, onward: Callable[[], None]) -> bool:
        row = self._store.read(lambda c: load_without_receipt(c, revocation))
        state, narrows = row.state, row.kind == NARROWING
        if state in REACHING:
            if narrows:
                self._store.write(partial(narrowing.find_calls, revocation=revocation, workflows=self._workflows))
            else:
                self._cancel(revocation, onward)
        if state != Stage.QUIESCED and not self._store.write(partial(progress.drained, revocation=revocation)):
            return False
        if narrows:
            self._issue_receipt(revocation)
            return True
        if not self._inquire(revocation):
            return False
        self._reached("before_compensations")
        # With a receipt, only a call that was in flight can still turn out to have had an effect.
        compensated = set() if state == Stage.QUIESCED else self._compensate_pages(revocation, onward)
        self._compensate(revocation, self._store.read(partial(progress.jobs_in_flight, revocation=revocation)), onward)
        self._reached("before_withdrawals")
        self._withdraw(revocation)
        onward()
        self._reached("before_receipt")
        while not self._issue_receipt(revocation, compensated=compensated):
            late = self._compensate_pages(revocation, onward, apart_from=compensated)
            if not late:
                return False  # the other pages name jobs that were told to stop meanwhile, and still run
            compensated |= late
        return True

    def answer(self, revocation: str, *, moved: Callable[[], None] = _unwatched) -> None:
        """Advance a revocation that a bell rang for, unless it is settled and has no open ends.

        Thousands of old bells may lie in the queue before the bell of a new revocation, so a settled one must cost
        little.
        """
        row = self._store.read(lambda c: load_without_receipt(c, revocation))
        if row.state != Stage.QUIESCED or row.open_ends:
            self.advance(revocation, moved=moved)

    def follow_up(self, revocation: str) -> None:
        """Ask the provider what is due now, and revise the receipt once nothing is pending there.

        Until then only `advance` revises it, when it looks at the open ends: with very many credentials the receipt is
        long, and should not be signed and audited after every few answers. A receipt without open ends is revised at
        once, because only a late answer can have changed it.
        """
        row = self._store.read(lambda c: load_without_receipt(c, revocation))
        if row.state != Stage.QUIESCED:
            self.advance(revocation)
        elif self._withdraw(revocation) or not row.open_ends:
            self._issue_receipt(revocation)

    def unfinished(self, *, idle_seconds: float, pending_seconds: float = 15, limit: int = 500) -> list[str]:
        """Return revocations that have not moved for a while: lost bells, calls in flight, or a receipt with open ends.

        Those with jobs still to cancel come first. At most *limit* that are not quiesced, and as many that are.
        """
        return self._store.read(lambda c: progress.unfinished(c, idle_seconds, pending_seconds, limit))

    def put_off(self, revocation: str) -> None:
        """Mark a revocation that cannot go on now as moved, so that `unfinished` returns others first."""
        moved = update(revocations).where(revocations.c.id == revocation).values(moved_at=database_now())
        self._store.write(lambda c: c.execute(moved).rowcount)

    def _issue_receipt(self, revocation: str, *, compensated: AbstractSet[int] = frozenset()) -> bool:
        """Write the receipt, or its next revision. A revision may be long, so it is composed before the write's lock.

        The first receipt is composed under the lock, which keeps out writers of the pages it names. False: it has pages
        other than *compensated*, and is not written.
        """
        while (
            found := self._store.read(partial(progress.compose, revocation=revocation, side=self._provider_side))
        ) is not None:
            row, said, now = found
            drafted = receipt.draft(row, said, self._signer, now=now)
            if self._store.write(partial(receipt.issue_next, drafted=drafted, signer=self._signer, now=now)):
                return True
        conclude = partial(progress.conclude, signer=self._signer, provider_side=self._provider_side)
        try:
            seconds = self._store.write(partial(conclude, revocation=revocation, compensated=compensated))
        except progress.UncompensatedPages:
            return False
        if seconds is not None:
            metrics.REVOCATION_SECONDS.observe(seconds)
        return True

    def _cancel(self, revocation: str, onward: Callable[[], None]) -> None:
        size = cancelling.ChunkSize()
        row = self._store.read(lambda c: load(c, revocation))
        # STOP once more at the end: a job accepted before the revocation may be committed after its set was passed.
        for then in (*OnRevoke, OnRevoke.STOP):
            after = ""
            look = partial(
                scope_sets.sets_with_work, scope=scope_of(row), before=row.number, then=then, limit=scope_sets.SETS
            )
            while sets := self._store.read(partial(look, after=after)):
                after = sets[-1]
                if then is OnRevoke.SKIP:
                    self._end_waits_in(revocation, sets, onward)
                else:
                    for busy in (False, True):
                        self._cancel_chunks(revocation, cancelling.Cursor(sets, busy=busy), size, onward)
        self._store.write(lambda c: cancelling.begin_draining(c, revocation))

    def _cancel_chunks(
        self, revocation: str, cursor: cancelling.Cursor, size: cancelling.ChunkSize, onward: Callable[[], None]
    ) -> None:
        while cursor.sets:
            act = partial(cancelling.cancel_chunk, revocation=revocation, cursor=cursor, limit=size.jobs)
            asked = self._monotonic()
            chunk = self._ahead.write(act)
            waited = timedelta(seconds=self._monotonic() - asked) - chunk.took
            metrics.REVOCATION_CHUNK_SECONDS.observe(chunk.took.total_seconds())
            for pattern, number in chunk.cancelled.items():
                metrics.count_end(pattern, JobState.CANCELLED, jobs=number)
            if not cursor.busy:
                size.after(chunk.jobs, chunk.took, waited)
            cursor = chunk.cursor
            self._reached("after_chunk")
            onward()

    def _end_waits_in(self, revocation: str, sets: list[str], onward: Callable[[], None]) -> None:
        waits = self._store.read(partial(cancelling.consent_waits, revocation=revocation, sets=sets))
        onward()
        for waits_for, ids in waits.items():
            for some in in_batches(ids, cancelling.WAITS):
                self._store.write(partial(cancelling.end_waits, ids=some, waits_for=waits_for))
                onward()

    def _compensate_pages(
        self, revocation: str, onward: Callable[[], None], *, apart_from: AbstractSet[int] = frozenset()
    ) -> set[int]:
        """Compensate the steps of the jobs on the pages, *apart_from* these. Return the numbers of the pages done.

        A page that names a running job is left out: the job may do another step before it ends.
        """
        pages = self._store.read(partial(ended_pages, revocation=revocation, apart_from=apart_from))
        self._compensate(revocation, [job for page in pages.values() for job in page], onward)
        return set(pages)

    def _compensate(self, revocation: str, reached: Sequence[str], onward: Callable[[], None]) -> None:
        """Compensate each step of these jobs at most once, in a transaction each."""
        for some in in_batches(reached, compensation.LOOKED_AT):
            look = partial(compensation.compensable, among=some, workflows=self._workflows)
            for step in self._store.read(look):
                now = self._store.read(ledger_now)
                self._store.write(
                    partial(
                        compensation.compensate_step,
                        step=step,
                        revocation=revocation,
                        workflows=self._workflows,
                        # The id follows from the step's: a restored ledger has forgotten the job, and makes it again
                        # under the same id.
                        job=following("job", "compensation", step),
                        audit_id=self._ids("aud"),
                        now=now,
                    )
                )
                self._reached("after_compensation")
                onward()
            onward()
