"""How a refresh ends in the ledger: each end is one transaction, under the grant's locks and by the rule for grants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from identity import audit
from identity.accounts.grants import SealedAnswer, bury, get_grant, rotate
from identity.accounts.states import Account, get_account, move_account, park
from identity.audit import AsWhom
from identity.connections.secrets import SealedSecret
from identity.model import AccountKey, AccountState, Credential, ReconnectCause, RuledOut, Scope
from identity.refresh.blame import judge_secrets, record_refused
from identity.refresh.endings import Ending, Settled, Superseded
from identity.refresh.intents import (
    MOVES,
    OUTDATED,
    IntentState,
    OutOfDate,
    RefreshIntent,
    get_intent,
    settle,
)
from identity.scopes import revoked_since
from identity.sql.sequence import lock_exclusive, lock_shared
from identity.sql.state_machine import IllegalMove


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What the ends of one intent have in common."""

    account: Account
    intent: RefreshIntent  # as read when its end was decided: an answer that was stored since is not overruled (`end`)
    now: datetime
    ids: Callable[[], str]  # of records of the audit
    restored: Callable[[Connection, AccountKey], None]  # runs in the transaction that brings an account back

    def commit(self, connection: Connection, sealed: SealedAnswer, *, accepted: SealedSecret | None = None) -> Ending:
        """The new tokens are the account's. A late answer brings back an account that was given up.

        Of an answer that a signal has overtaken, only what renews the grant is taken. *accepted* is the secret that was
        shown; None: not known.
        """

        def write(intent: RefreshIntent) -> None:
            if not rotate(
                connection, self.account.id, sealed, obtained_at=intent.started_at, renewal_alone=intent.overtaken
            ):
                raise IllegalMove(f"the generation of {self.account.id} moved under its lock")
            outcome = OUTDATED[OutOfDate.OVERTAKEN] if intent.overtaken else "success"
            self.record(connection, "grant.refreshed", outcome, generation=sealed.generation)
            if accepted is not None:
                # Of keys it says that they were wrong, and not the consent. What was shown was refused without a name.
                keys = intent.refused_keys if self.account.credential is Credential.JWT_BEARER else ()
                owner = self.account.key.connection
                whom = self.whom(self.intent.generation)
                for key in judge_secrets(connection, owner, keys, accepted=accepted, now=self.now):
                    told = {"spare": accepted.id, "owner": owner, "audit_id": self.ids()}
                    record_refused(connection, key, "invalid_grant", **told, whom=whom, now=self.now)

        return self.end(connection, IntentState.COMMITTED, "success", write, restores=True)

    def bury(self, connection: Connection, code: str) -> Ending:
        """The grant is dead; its jobs wait for a person."""

        def write(_: RefreshIntent) -> None:
            reason = f"the provider does not accept its credential any more ({code[:60]})"
            bury(connection, self.account.id, generation=self.intent.generation, reason=reason, now=self.now)
            self.record(connection, "grant.dead", code, generation=self.intent.generation + 1)

        return self.end(connection, IntentState.DEAD, code, write, code=code)

    def ask_person(self, connection: Connection, code: str) -> Ending:
        """The provider gives no token before the account's person was there. The credentials stay sealed."""

        def write(_: RefreshIntent) -> None:
            words = f"the provider wants its person to sign in or consent anew ({code[:60]})"
            park(connection, self.account.id, words, cause=ReconnectCause.PERSON, now=self.now)
            self.record(connection, "grant.needs_person", code, generation=self.intent.generation)

        return self.end(connection, IntentState.FAILED, code, write, code=code)

    def give_up(self, connection: Connection, reason: str) -> Ending:
        """The outcome is unknown and cannot be found out: a person must reconnect. The credentials stay sealed."""

        def write(_: RefreshIntent) -> None:
            words = f"a refresh's outcome is unknown ({reason[:200]})"
            park(connection, self.account.id, words, cause=ReconnectCause.UNKNOWN, now=self.now)
            self.record(connection, "grant.unknown", reason, generation=self.intent.generation)

        return self.end(connection, IntentState.UNKNOWN, reason, write)

    def doubt(self, connection: Connection, reason: str) -> Ending:
        """The outcome is unknown, and the provider's grace lets it be presented once more."""
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
        """Certainly without effect; *code*: it was refused with that. A doubt about an earlier presentation stays.

        It brings back an account that was given up for this refresh, and no other: nothing was renewed.
        """
        return self.end(
            connection, IntentState.FAILED, reason, code=code, retry_at=retry_at, unpresented=unpresented, restores=True
        )

    def expire(self, connection: Connection, reason: str) -> Ending:
        """There is nothing to renew the token with: a person must reconnect. Nothing is presented.

        The token stays sealed until the next consent: a refusal is no proof of its end, so a revocation before that has
        it ended at the provider.
        """
        scopes = self.account.key.scopes
        _lock_to_move(connection, scopes)  # of two that find out, one moves the account
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
        """Settle the intent, and *write* what follows of it, unless by now it ended otherwise, or may not.

        *outcome* is for people, and *code* what it was refused with. *restores*: it brings back an account that
        was given up for it.
        """
        scopes = self.account.key.scopes
        if restores:
            # Parking takes the account's lock shared: no job parks between its return and the wake-up that follows.
            _lock_to_move(connection, scopes)
        else:
            lock_shared(connection, scopes)
        intent = get_intent(connection, self.intent.id)
        grant = get_grant(connection, self.account.id)
        if intent is None or grant is None:
            return Superseded()
        if to is IntentState.FAILED and intent.doubtful_since is not None:
            to = IntentState.UNKNOWN  # this presentation had no effect: the one before may have had
            restores = False
        if unpresented and (intent.state, intent.finished_at) == (to, self.now):
            return Settled()  # written before, and its commit was not seen: the count is taken back once
        if to not in MOVES.allowed[intent.state]:
            return Superseded()
        if intent.state is IntentState.ANSWERED and self.intent.state is not IntentState.ANSWERED:
            return Superseded()  # whoever was taken for gone has stored it since: the next look reads it
        moved = grant.generation != intent.generation
        # A stop is undone by an admin, so it does not cost a grant its new tokens; a revocation does.
        ruled_out = revoked_since(connection, scopes, intent.consented, or_stopped=False)
        if moved or ruled_out:
            return self._discard(connection, intent, moved=moved, ruled_out=ruled_out, unpresented=unpresented)
        out_of_date = None
        if intent.overtaken and to in (IntentState.COMMITTED, IntentState.UNKNOWN):
            out_of_date = OutOfDate.OVERTAKEN  # an unknown one may still be answered
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
            return Superseded()  # between our read and our write
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
        """The grant has moved or was revoked meanwhile, so nothing of it is the account's.

        After a revocation the answer is kept, only to be revoked at the provider, also if a consent followed it; after
        a consent alone it is shredded.
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
        """What gave the account up for this very generation turned out otherwise.

        New tokens answer whatever did; a refresh without effect answers its own giving up alone.
        """
        account = get_account(connection, self.account.id)
        if account.state is not AccountState.NEEDS_RECONNECT:
            return
        if renewed or account.reconnect_cause is ReconnectCause.UNKNOWN:
            move_account(connection, account.id, to=AccountState.ACTIVE, reason=None, now=self.now)
            self.restored(connection, account.key)

    def whom(self, generation: int) -> AsWhom:
        """Whose grant it is of, as the audit says it."""
        return AsWhom.of_account(self.account.key, id=self.account.id, generation=generation)

    def record(self, connection: Connection, kind: str, outcome: str, *, generation: int) -> None:
        """Record in the audit what came of this refresh."""
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
    """The locks of a grant, of which the account's own is exclusive: its state may change under it."""
    lock_shared(connection, scopes[:-1])
    lock_exclusive(connection, scopes[-1])
