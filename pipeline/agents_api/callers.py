"""The agents' API without HTTP: callers, accepted requests and visible results."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from identity.agents.api_keys import Caller, NoCaller, find_caller
from identity.agents.workloads import Workloads, looks_like_one
from identity.audit import Act
from identity.digests import json_digest
from identity.errors import Unconfirmed
from identity.ids import Ids
from identity.model import Scope
from identity.secret import Secret
from identity.sql.store import CommitUnknown, write_idempotent
from pipeline.action import Action
from pipeline.agents_api import requests as ledger
from pipeline.agents_api import tool_requests
from pipeline.agents_api.requests import Asked, Changed, Made
from pipeline.authoring.registry import Registry
from pipeline.db.database import Database, WithTurn
from pipeline.desk import jobs as acts
from pipeline.model import Bell
from pipeline.operators import api_operator
from pipeline.states import ENDED, JobState, Wait
from pipeline.views import tenant_views

T = TypeVar("T")

FIRST_LOOK, LONGEST_LOOK = 0.02, 0.25  # seconds between two looks at an awaited job
WAITERS = 12  # of a process's 32 threads; further callers get their job at once and have to poll
WAITERS_OF_A_KEY = 4  # of those, so that one key cannot use up every waiter


@dataclass(frozen=True, kw_only=True)
class Keyed:
    """An idempotency key, if the caller gave one, and the request it stands for."""

    key: str | None
    document: Mapping[str, Any]

    @property
    def request_hash(self) -> str:
        return json_digest(self.document)


class Requests:
    """The web's requests to the ledger on behalf of agents. Every method may raise Unavailable."""

    def __init__(
        self,
        store: Database,
        workflows: Registry,
        ids: Ids,
        workloads: Workloads,
        *,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._store = store
        self._ahead = WithTurn(store, ahead=True)  # for what carries a revocation
        self._workflows = workflows
        self._ids = ids
        self._workloads = workloads
        self._pause = pause or threading.Event().wait
        self._waiting = _Waiting()

    def caller(self, secret: Secret, *, now: datetime) -> Caller | NoCaller:
        """Return the holder of the API key or the workload of the token, or the reason why access is denied."""
        if looks_like_one(secret):
            return self._workloads.caller(secret, now=now)
        return self._ahead.read(lambda c: find_caller(c, secret, now=now))

    def execute(
        self, caller: Caller, action: Action[Any], keyed: Keyed, *, identifier: str, request: str, now: datetime
    ) -> Made:
        """Accept a job that runs one tool; *request* is the request's id.

        Raises BadInput, Misconfigured, PolicyDenied, NotLetIn or KeyReused.
        """
        asked = self._asked(caller, "job", keyed, now)
        accept = partial(tool_requests.accept_tool, asked=asked, workflows=self._workflows, action=action)
        return write_idempotent(self._store, partial(accept, identifier=identifier, request=request))

    def usable(
        self, caller: Caller, offered: Sequence[type[Action[Any]]], *, identifier: str
    ) -> list[type[Action[Any]]]:
        """Return the *offered* tools that *identifier* could use.

        Raises UnknownIdentifier, BadInput or PolicyDenied.
        """
        return self._store.read(lambda c: tool_requests.usable(c, caller, offered, identifier=identifier))

    def job_before(self, caller: Caller, keyed: Keyed, *, now: datetime) -> Made | None:
        """Return the job that `execute` made earlier for this request and key, if any. Raises KeyReused."""
        if keyed.key is None:
            return None
        asked = self._asked(caller, "job", keyed, now)
        return self._store.read(lambda c: ledger.job_before(c, asked))

    def revoke(self, caller: Caller, scope: Scope, keyed: Keyed, *, reason: str, now: datetime) -> Made:
        """Revoke *scope*; effective when this returns. Raises NotLetIn or KeyReused."""
        asked = self._asked(caller, "rev", keyed, now)
        return write_idempotent(self._ahead, lambda c: ledger.accept_revocation(c, asked, scope, reason=reason))

    def narrow(
        self, caller: Caller, scope: Scope, keyed: Keyed, *, keeps: tuple[str, ...], reason: str, now: datetime
    ) -> Made:
        """Narrow an account; effective when this returns. Raises BadInput, NotLetIn or KeyReused."""
        asked, act = self._asked(caller, "rev", keyed, now), self._act(caller, now)
        return write_idempotent(
            self._ahead, lambda c: ledger.accept_narrowing(c, asked, scope, act, keeps=keeps, reason=reason)
        )

    def cancel(self, caller: Caller, job: str, keyed: Keyed, *, now: datetime) -> Changed:
        """End a job: at once, or at its next step if it runs. Raises BadInput, NotLetIn or KeyReused."""
        act = self._act(caller, now)

        def end(connection: Connection) -> Sequence[Bell]:
            acts.cancel(connection, job, act)
            return ()

        asked = replace(self._asked(caller, "job", keyed, now), id=job)
        # repeatable: a stopping or cancelled job is left as it is
        return self._change(asked, end, finds_itself_done=True)

    def replay(self, caller: Caller, job: str, keyed: Keyed, *, now: datetime) -> Changed:
        """Accept a dead or cancelled job again. Raises BadInput, NotLetIn or KeyReused."""
        act = self._act(caller, now)
        change = partial(acts.replay_one, id=job, act=act, workflows=self._workflows, people=caller.people)
        asked = replace(self._asked(caller, "job", keyed, now), id=job)
        return self._change(asked, change, finds_itself_done=False)

    def read(self, fn: Callable[[Connection], T], *, ahead: bool = False) -> T:
        """Run a plain read, as of `pipeline.views.tenant_views`; *ahead* for what a revocation reads first."""
        return self._store.read(fn, ahead=ahead)

    def wait(self, caller: Caller, job: str, *, within: timedelta) -> None:
        """Wait up to *within* until *job* has ended or needs somebody; return at once if too many callers wait."""
        if within <= timedelta() or not self._waiting.enter(caller.key):
            return
        try:
            deadline, pause = time.monotonic() + within.total_seconds(), FIRST_LOOK
            while not _settled(*self._store.read(lambda c: tenant_views.job_state(c, job))):
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                self._pause(min(pause, left))
                pause = min(pause * 1.5, LONGEST_LOOK)
        finally:
            self._waiting.leave(caller.key)

    def _asked(self, caller: Caller, prefix: str, keyed: Keyed, now: datetime) -> Asked:
        return Asked(
            caller=caller,
            id=self._ids(prefix),
            idempotency_key=keyed.key,
            request_hash=keyed.request_hash,
            now=now,
        )

    def _act(self, caller: Caller, now: datetime) -> Act:
        return Act(audit_id=self._ids("aud"), by=api_operator(caller), now=now)

    def _change(
        self, asked: Asked, change: Callable[[Connection], Sequence[Bell]], *, finds_itself_done: bool
    ) -> Changed:
        fn = partial(ledger.change_job, asked=asked, change=change)
        if finds_itself_done or asked.idempotency_key is not None:
            return write_idempotent(self._store, fn)
        try:
            return self._store.write(fn)
        except CommitUnknown as error:  # a retry would report that the job has moved already
            raise Unconfirmed("the ledger did not confirm the commit: look at the job") from error


class _Waiting:
    """Counts the waiting callers by key."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()
        self._lock = threading.Lock()

    def enter(self, key: str) -> bool:
        """Register one more waiter for *key*. Return False if too many wait already."""
        with self._lock:
            if self._of.total() >= WAITERS or self._of[key] >= WAITERS_OF_A_KEY:
                return False
            self._of[key] += 1
            return True

    def leave(self, key: str) -> None:
        with self._lock:
            self._of -= Counter((key,))  # Counter subtraction drops keys at zero


def _settled(state: str, wait: str | None) -> bool:
    """True if looking again within seconds is pointless."""
    return state in ENDED or (state == JobState.WAITING and wait != Wait.TIME)
