"""Endings of a refresh in the ledger, each one transaction under the grant's locks and the rule for grants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from identity import audit
from identity.accounts.grants import SealedAnswer, bury, get_grant, rotate
from identity.accounts.scopes import revoked_since
from identity.accounts.states import Account, get_account, move_account, park
from identity.audit import AsWhom
from identity.connections.secrets import SealedSecret
from identity.model import AccountKey, AccountState, Credential, ReconnectCause, RuledOut, Scope
from identity.refresh.blame import judge_secrets, record_refused
from identity.refresh.endings import Ending, Settled, Superseded
from identity.refresh.intents import (
    MOVES,
    IntentState,
    RefreshIntent,
    get_intent,
    settle,
)
from identity.refresh.out_of_date import OUTDATED, OutOfDate
from identity.sql.sequence import lock_exclusive, lock_shared
from identity.sql.state_machine import IllegalMove


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """The endings of one intent, with the arguments they share."""

    account: Account
    intent: RefreshIntent  # as read when its end was decided: an answer stored since takes precedence (`end`)
    now: datetime
    ids: Callable[[], str]  # for audit records
    restored: Callable[[Connection, AccountKey], None]  # runs in the transaction that reactivates an account

    def commit(self, connection: Connection, sealed: SealedAnswer, *, accepted: SealedSecret | None = None) -> Ending:
        """Rotate the account to the new tokens. A late answer reactivates an account that was given up.

        If a signal has overtaken the answer, only the refresh token is taken from it. *accepted* is the client secret
        that was presented, or None if that is not known.
        """

        def write(intent: RefreshIntent) -> None:
            if not rotate(
                connection, self.account.id, sealed, obtained_at=intent.started_at, renewal_alone=intent.overtaken
            ):
                raise IllegalMove(f"the generation of {self.account.id} moved under its lock")
            outcome = OUTDATED[OutOfDate.OVERTAKEN] if intent.overtaken else "success"
            self.record(connection, "grant.refreshed", outcome, generation=sealed.generation)
            if accepted is not None:
                # For signing keys, success shows that the refused ones were wrong, not the consent. Client secrets were
                # refused without a named error, which a gateway may also do: nothing is held against them.
                keys = intent.refused_keys if self.account.credential is Credential.JWT_BEARER else ()
                owner = self.account.key.connection
                whom = self.whom(self.intent.generation)
                for key in judge_secrets(connection, owner, keys, accepted=accepted, now=self.now):
                    told = {"spare": accepted.id, "owner": owner, "audit_id": self.ids()}
                    record_refused(connection, key, "invalid_grant", **told, whom=whom, now=self.now)

        return self.end(connection, IntentState.COMMITTED, "success", write, restores=True)

    def bury(self, connection: Connection, code: str) -> Ending:
        """Bury the grant: it is dead, and its jobs wait for a person."""

        def write(_: RefreshIntent) -> None:
            reason = f"the provider does not accept its credential any more ({code[:60]})"
            bury(connection, self.account.id, generation=self.intent.generation, reason=reason, now=self.now)
            self.record(connection, "grant.dead", code, generation=self.intent.generation + 1)

        return self.end(connection, IntentState.DEAD, code, write, code=code)

    def ask_person(self, connection: Connection, code: str) -> Ending:
        """Park the account: the provider gives no token until its person signs in. The credentials stay sealed."""

        def write(_: RefreshIntent) -> None:
            words = f"the provider wants its person to sign in or consent anew ({code[:60]})"
            park(connection, self.account.id, words, cause=ReconnectCause.PERSON, now=self.now)
            self.record(connection, "grant.needs_person", code, generation=self.intent.generation)

        return self.end(connection, IntentState.FAILED, code, write, code=code)

    def give_up(self, connection: Connection, reason: str) -> Ending:
        """Park the account: the outcome stays unknown, and a person must reconnect. The credentials stay sealed."""

        def write(_: RefreshIntent) -> None:
            words = f"a refresh's outcome is unknown ({reason[:200]})"
            park(connection, self.account.id, words, cause=ReconnectCause.UNKNOWN, now=self.now)
            self.record(connection, "grant.unknown", reason, generation=self.intent.generation)

        return self.end(connection, IntentState.UNKNOWN, reason, write)

    def doubt(self, connection: Connection, reason: str) -> Ending:
        """Settle as unknown, where the provider's grace window allows one more presentation."""
        return self.end(connection, IntentState.UNKNOWN, reason)

    def fail(
        self,
        connection: Connection,
        reason: str,
        *,
        code: str | None = None,
        retry_at: datetime | None,
        unpresented: bool = False,
    ) -> Ending:
        """Settle a refresh that certainly had no effect; *code* is the error code if it was refused.

        A doubt about an earlier presentation stays. Reactivates the account only if this refresh's unknown outcome
        parked it: nothing was renewed.
        """
        return self.end(
            connection, IntentState.FAILED, reason, code=code, retry_at=retry_at, unpresented=unpresented, restores=True
        )

    def expire(self, connection: Connection, reason: str) -> Ending:
        """Park an account whose token nothing can renew: a person must reconnect. Nothing is presented.

        The token stays sealed until the next consent. An upstream's refusal does not prove that it has expired, and a
        revocation before then must still end it at the provider.
        """
        scopes = self.account.key.scopes
        _lock_to_move(connection, scopes)  # of two callers that find out, only one moves the account
        if ruled_out := revoked_since(connection, scopes, self.intent.consented, or_stopped=False):
            return ruled_out
        grant = get_grant(connection, self.account.id)
        if grant is None or grant.generation != self.intent.generation:
            return Superseded()
        if not park(connection, self.account.id, reason, cause=ReconnectCause.EXPIRED, now=self.now):
            return Superseded()
        self.record(connection, "grant.expired", "nothing to renew it with", generation=grant.generation)
        return Settled()

    def end(
        self,
        connection: Connection,
        to: IntentState,
        outcome: str,
        write: Callable[[RefreshIntent], Superseded | None] = lambda _: None,
        *,
        code: str | None = None,
        retry_at: datetime | None = None,
        unpresented: bool = False,
        restores: bool = False,
    ) -> Ending:
        """Settle the intent and run *write* in the same transaction, unless it is out of date or already settled.

        *outcome* is for people, *code* is the error code of a refusal. *restores* reactivates an account that was given
        up because of this refresh.
        """
        scopes = self.account.key.scopes
        if restores:
            # Parking a job takes the account's lock shared, so none parks between reactivation and the wake-up.
            _lock_to_move(connection, scopes)
        else:
            lock_shared(connection, scopes)
        intent = get_intent(connection, self.intent.id)
        grant = get_grant(connection, self.account.id)
        if intent is None or grant is None:
            return Superseded()
        if to is IntentState.FAILED and intent.doubtful_since is not None:
            to = IntentState.UNKNOWN  # this presentation had no effect, but the one before may have had
            restores = False
        if unpresented and (intent.state, intent.finished_at) == (to, self.now):
            return Settled()  # a retry after an unknown commit: decrement the count only once
        if to not in MOVES.allowed[intent.state]:
            return Superseded()
        if intent.state is IntentState.ANSWERED and self.intent.state is not IntentState.ANSWERED:
            return Superseded()  # its owner was alive and has stored an answer since: the next reader uses it
        moved = grant.generation != intent.generation
        # An admin can undo a stop, so it does not cost a grant its new tokens; a revocation does.
        ruled_out = revoked_since(connection, scopes, intent.consented, or_stopped=False)
        if moved or ruled_out:
            return self._discard(connection, intent, moved=moved, ruled_out=ruled_out, unpresented=unpresented)
        out_of_date = None
        if intent.overtaken and to in (IntentState.COMMITTED, IntentState.UNKNOWN):
            out_of_date = OutOfDate.OVERTAKEN  # an unknown intent may still be answered
            outcome = OUTDATED[out_of_date]
        if not settle(
            connection,
            intent,
            to=to,
            outcome=outcome,
            code=code,
            out_of_date=out_of_date,
            now=self.now,
            retry_at=retry_at,
            unpresented=unpresented,
        ):
            return Superseded()  # another writer came between our read and our write
        superseded = write(intent)
        if restores:
            self._restore(connection, renewed=to is IntentState.COMMITTED)
        return superseded or Settled()

    def _discard(
        self,
        connection: Connection,
        intent: RefreshIntent,
        *,
        moved: bool,
        ruled_out: RuledOut | None,
        unpresented: bool,
    ) -> Ending:
        """Discard an intent whose grant has moved or was revoked meanwhile: the account gets nothing from it.

        After a revocation the answer is kept, only to be revoked at the provider, even if a consent followed. After
        only a consent it is shredded.
        """
        kept = ruled_out is not None
        why = OutOfDate.REVOKED if ruled_out else OutOfDate.MOVED
        discarded = settle(
            connection,
            intent,
            to=IntentState.DISCARDED,
            outcome=OUTDATED[why],
            out_of_date=why,
            now=self.now,
            keep_answer=kept,
            unpresented=unpresented,
        )
        if not discarded:
            return Superseded()
        return ruled_out if ruled_out is not None and not moved else Superseded()

    def _restore(self, connection: Connection, *, renewed: bool) -> None:
        """Reactivate an account that was parked for this generation.

        New tokens clear any cause; a refresh without effect clears only its own unknown outcome.
        """
        account = get_account(connection, self.account.id)
        if account.state is not AccountState.NEEDS_RECONNECT:
            return
        if renewed or account.reconnect_cause is ReconnectCause.UNKNOWN:
            move_account(connection, account.id, to=AccountState.ACTIVE, reason=None, now=self.now)
            self.restored(connection, account.key)

    def whom(self, generation: int) -> AsWhom:
        """Return the account at *generation*, as audit records name it."""
        return AsWhom.of_account(self.account.key, id=self.account.id, generation=generation)

    def record(self, connection: Connection, kind: str, outcome: str, *, generation: int) -> None:
        """Record the outcome of this refresh in the audit."""
        audit.record(
            connection,
            kind,
            self.whom(generation),
            id=self.ids(),
            at=self.now,
            outcome=outcome[:64],
            detail={"intent": self.intent.id, "provider": self.account.provider},
        )


def _lock_to_move(connection: Connection, scopes: Sequence[Scope]) -> None:
    """Take a grant's locks, the account's own exclusively: its state may change under it."""
    lock_shared(connection, scopes[:-1])
    lock_exclusive(connection, scopes[-1])
