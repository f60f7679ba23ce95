"""The refresh coordinator: a refresh token is presented once, and no token is used before it is committed.

    lock ─► re-read ─► intent committed ─► provider ─► raw answer committed ─► read ─► tokens committed ─► wake

The lock only saves work. The intent's unique key (account, generation) prevents a second presentation.
Minted tokens (client credentials, installations) take the same path. The reasons are in
docs/explanation/refresh-coordinator.md.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial

from identity.connections.self_hosted import profile_for
from identity.errors import AswhomError, Misconfigured, Unavailable
from identity.failures import Failures
from identity.metrics import LOCK_WAIT
from identity.refresh.conclusion import Concluder
from identity.refresh.flight import Flight, Flights, Wish
from identity.refresh.intents import IntentState, RefreshIntent, abandoned, get_intent
from identity.refresh.lock import Busy, Held, RefreshLock, Unreachable
from identity.refresh.parts import RefreshParts
from identity.refresh.presentation import Presenter
from identity.refresh.situation import Situation, generation_and_activity, read_situation
from identity.refresh.waiting import Waiting
from identity.refresh.writer import RefreshWriter
from identity.token_endpoint.gate import STEP_KEEPS

log = logging.getLogger(__name__)


class Coordinator:
    """Fetches the next access token of accounts. One instance serves all threads of a process."""

    def __init__(self, parts: RefreshParts, lock: RefreshLock) -> None:
        self._parts = parts
        self._lock = lock
        self._flights = Flights()
        writer = RefreshWriter(parts=parts)
        self._concluder = Concluder(parts=parts, writer=writer)
        self._presenter = Presenter(parts=parts, writer=writer, concluder=self._concluder)

    def refresh(self, account: str, *, after_generation: int, refused: bool = False, keep: float = STEP_KEEPS) -> int:
        """Return a committed generation newer than *after_generation*.

        Returns *after_generation* itself if the provider is unavailable or its connection is paused while the current
        token has not expired: the step then opens with the time left on that token. *refused* means that the upstream
        refused the current token, which is then not returned again. *keep* is the share of the provider's burst left
        to other callers: `AHEAD_KEEPS` for a refresh that nobody waits for.

        Raises Unavailable, ReauthRequired, GrantRevoked or Misconfigured.
        """
        wish = Wish(account=account, after_generation=after_generation, refused=refused, keep=keep)
        waiting = Waiting(self._parts.monotonic, at_most=self._parts.budget.wait)
        try:
            return self._in_turn(wish, waiting)
        finally:
            LOCK_WAIT.observe(waiting.seconds())

    def _in_turn(self, wish: Wish, waiting: Waiting) -> int:
        while True:
            flight, flies = self._flights.join(wish)
            if flies:
                return self._fly(flight, waiting)
            if not flight.landed.wait(waiting.left()):
                raise Unavailable(f"account {wish.account} is being refreshed, and that takes long")
            if (generation := flight.serves(wish)) is not None:
                return generation

    def _fly(self, flight: Flight, waiting: Waiting) -> int:
        """Refresh on behalf of every thread of this process that waits for this flight."""
        try:
            flight.generation = self._refresh(flight.wish, waiting)
        except Unavailable as unavailable:
            flight.unavailable = unavailable
            raise
        finally:
            self._flights.land(flight)
        return flight.generation

    def _refresh(self, wish: Wish, waiting: Waiting) -> int:
        account = wish.account
        while True:
            # Read before locking, even after a wait that timed out. A commit wakes many waiters at once and serves
            # most of them, so this read is a single statement.
            present, active = self._parts.store.read(partial(generation_and_activity, account=account))
            if present > wish.after_generation:
                return present
            if not active and (served := self._served(self._read(wish), wish)) is not None:
                return served
            left = waiting.left()
            if left <= 0:
                raise Unavailable(f"account {account} is being refreshed elsewhere, and that takes long")
            lock = self._lock.acquire(account)
            if isinstance(lock, Busy):
                if (served := self._served(self._read(wish), wish)) is not None:
                    return served
                if not self._lock.wait(account, within=timedelta(seconds=left)):
                    self._pause(left)
                continue
            waiting.over()
            try:
                self._parts.reached("after_lock")
                generation = self._under_lock(wish, lock)
            finally:
                lock.release()
            if generation is not None:
                return generation
            # The lock was free, but another caller is presenting this generation: wait for its commit or time limit.
            waiting.goes_on()
            self._pause(left)

    def _pause(self, left: float) -> None:
        self._parts.sleep(min(left, self._parts.budget.poll.total_seconds()))

    def settle_abandoned(self, *, page: int = 100) -> int:
        """Settle the intents that a crash left behind; return how many were due. Run by housekeeping. O(due).

        An intent that cannot be settled does not hold up the rest. Unexpected errors are raised at the end
        (`Failures`).
        """
        now = self._parts.clock()
        count = 0
        last: RefreshIntent | None = None
        failures = Failures()
        while due := self._parts.store.read(partial(abandoned, now=now, limit=page, after=last)):
            for intent in due:
                try:
                    situation = self._parts.store.read(partial(read_situation, account=intent.account))
                    self._concluder.settle(situation, intent)
                except AswhomError as end:
                    self._tell(intent, end)
                except Exception as failure:  # noqa: BLE001 - raised below: one failure must not hold up the rest
                    failures.add("account", intent.account, failure)
            count += len(due)
            last = due[-1]
        failures.tell("abandoned refreshes that could not be settled")
        return count

    def _tell(self, intent: RefreshIntent, end: AswhomError) -> None:
        found = self._parts.store.read(partial(get_intent, intent=intent.id))
        where = {"account": intent.account, "intent": intent.id, "as": type(end).__name__}
        if found is not None and found.unsettled:
            log.warning("an abandoned refresh stays unsettled", extra={"action": "refresh.unsettled"} | where)
        else:
            log.info("an abandoned refresh was settled", extra={"action": "refresh.settled"} | where)

    def _read(self, wish: Wish) -> Situation:
        return self._parts.store.read(partial(read_situation, account=wish.account, token_refused=wish.refused))

    def _served(self, situation: Situation, wish: Wish) -> int | None:
        """Return a generation newer than the wish's, or None. Raises if no token may be fetched.

        While the provider connection is paused, the current generation is served until its token expires.
        """
        if situation.generation > wish.after_generation:
            return situation.generation
        error = situation.prohibition()
        if error is None:
            return None
        if isinstance(error, Misconfigured):
            return self._concluder.serve_or(error, situation)
        raise error

    def _under_lock(self, wish: Wish, lock: Held | Unreachable) -> int | None:
        """Return the new generation, or None if the caller must read again."""
        situation = self._read(wish)  # another caller may have refreshed while we waited
        if (served := self._served(situation, wish)) is not None:
            return served
        ends, former, now = self._concluder, situation.intent, self._parts.clock()
        present = partial(self._presenter.present, situation, keep=wish.keep, renew=lock.renew)
        if former is None:
            return present()
        profile = profile_for(self._parts.profiles, situation.connection)
        match former.state:
            case IntentState.ANSWERED:
                return ends.settle(situation, former)
            case IntentState.OPEN:
                return None if now < former.settled_by else ends.settle(situation, former)
            case IntentState.FAILED if former.wants_person and not situation.minted and not situation.may_serve(now):
                return present()  # the retry was set for the token's expiry, but the token is gone already
            case IntentState.FAILED if former.retry_at is not None and now < former.retry_at:
                return ends.not_before(situation, former, wait=former.retry_at - now)
            case IntentState.FAILED:
                return present()
            case IntentState.UNKNOWN if former.may_go_again(by=now + self._parts.budget.send, grace=profile.grace):
                return present()
            case IntentState.UNKNOWN:
                return ends.doubt(situation, former, "the grace window has passed")
            case _:
                return None  # settled since it was read
