"""Interprets the answer to a presented credential: settles the refresh and picks the generation to serve."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from identity.backoff import doubled
from identity.connections.self_hosted import profile_for
from identity.errors import AccountRefused, AswhomError, Misconfigured, ReauthRequired, Unavailable
from identity.http.client import NoAnswer, Outcome
from identity.metrics import REFRESHES, UNRECOGNISED
from identity.oauth.answers import UNNAMED_401, ClientRefused, Dead, Granted, RateLimited, Transient, Unknown, Withheld
from identity.refresh.blame import Blame, blame
from identity.refresh.blaming import blame_client, blame_nobody, blame_secret, note_refused_key
from identity.refresh.intents import RefreshIntent
from identity.refresh.parts import RefreshParts
from identity.refresh.requests import (
    AssertionRefused,
    in_words,
    may_be_withheld,
    next_credentials,
    read_token,
    untried_key,
)
from identity.refresh.settlement import Settlement
from identity.refresh.situation import Situation
from identity.refresh.suspected_client import is_of_client, refused_since
from identity.refresh.writer import RefreshWriter
from identity.token_endpoint.endpoint import unpack

log = logging.getLogger(__name__)

_RETRY = timedelta(seconds=2)
# For a token without an expiry: how long until the provider is asked again whether it still wants the person.
_UNENDING = timedelta(days=1)
_REFUSED_RETRY = timedelta(minutes=1)  # the first wait; each later one is twice as long
_LONGEST_REFUSED = timedelta(minutes=8)


@dataclass(frozen=True, kw_only=True)
class Concluder:
    """Settles presentations. Methods return the new generation, or None if the caller must read again."""

    parts: RefreshParts
    writer: RefreshWriter

    def settle(self, situation: Situation, intent: RefreshIntent) -> int | None:
        """Settle an intent whose owner may be gone: from its stored answer, otherwise as unknown."""
        if intent.generation != situation.generation:
            self.writer.end(situation, intent, Settlement.doubt, "the generation moved")
            return None
        outcome: Outcome = NoAnswer(reason="whoever sent it is gone")
        if intent.answer_sealed is not None:
            outcome = unpack(self.parts.vault.open(intent.answer_sealed, situation.answer_binding))
        return self.conclude(situation, intent, outcome, recovered=True)

    def doubt(self, situation: Situation, intent: RefreshIntent, reason: str) -> int | None:
        """Handle a lost answer: the provider may have rotated. Raises ReauthRequired unless that is harmless."""
        account, profile = situation.account, profile_for(self.parts.profiles, situation.connection)
        if situation.minted or not profile.rotates:
            return self.fail(situation, intent, reason)
        if intent.may_go_again(by=self.parts.clock() + self.parts.budget.send, grace=profile.grace):
            self._count(situation, "unknown", settled=self.writer.end(situation, intent, Settlement.doubt, reason))
            return None
        given_up = self.writer.end(situation, intent, Settlement.give_up, reason)
        self._count(situation, "unknown", settled=given_up)
        if not given_up:
            return None
        log.warning("a refresh has no known outcome", extra={"action": "grant.unknown", "account": account.id})
        raise ReauthRequired(f"a refresh of account {account.id} has no known outcome", account=account.id)

    def serve(self, situation: Situation, *, retry_after: timedelta, why: str) -> int:
        """Return the current generation while its token is valid and not refused. Raises Unavailable with *why*."""
        account = situation.account
        none = f"{account.provider} gives account {account.id} no token now ({why})"
        return self.serve_or(Unavailable(none, retry_after=retry_after), situation)

    def serve_or(self, error: AswhomError, situation: Situation) -> int:
        """Return the current generation while its token is valid and not refused. Raises *error* otherwise."""
        if not situation.may_serve(self.parts.clock()):
            raise error
        self._count(situation, "served")
        return situation.generation

    def not_before(self, situation: Situation, former: RefreshIntent, *, wait: timedelta) -> int:
        """Return the current generation while *former* is backing off. Raises the error that *former* ended with."""
        if former.code is not None and may_be_withheld(former.code, situation.account.credential):
            return self.serve_or(_refused(situation, former.code, wait), situation)
        why = former.outcome or "its token endpoint did not give one a moment ago"
        return self.serve(situation, retry_after=wait, why=why)

    def expire(self, situation: Situation, new: RefreshIntent) -> int | None:
        """Serve a token that nothing can renew until it expires; then a person must reconnect."""
        account = situation.account
        if situation.may_serve(self.parts.clock()):
            return situation.generation
        words = "its token has ended or was refused, and there is nothing to renew it with"
        if not self.writer.end(situation, new, Settlement.expire, words):
            return None
        raise ReauthRequired(f"account {account.id}: {words}", account=account.id)

    def conclude(
        self, situation: Situation, intent: RefreshIntent, outcome: Outcome, *, recovered: bool = False
    ) -> int | None:
        """Act on the outcome of a presentation; an answer is already stored.

        *recovered*: the presenting process is gone, and the client's secrets may have changed since.
        """
        account = situation.account
        profile = profile_for(self.parts.profiles, situation.connection)
        unsure = recovered and self.parts.store.read(partial(situation.another_was_shown, since=intent.started_at))
        meaning = read_token(situation, profile, outcome, started_at=intent.started_at, scopes=situation.grant.scopes)
        self.parts.endpoint.heed(meaning, outcome, to=situation.token_endpoint)
        match meaning:
            case Granted(answer=granted):
                sealed = next_credentials(situation, self.parts.vault, granted)
                accepted = None if unsure or not situation.secrets else situation.secrets[0]
                committed = self.writer.end(situation, intent, Settlement.commit, sealed, accepted=accepted)
                self._count(situation, "success", settled=committed)
                if not committed:
                    return None
                self.parts.reached("after_commit")
                return sealed.generation
            case Transient(reason=reason, retry_after=wait, sent=sent, recognised=recognised):
                if not recognised:
                    UNRECOGNISED.labels(profile.name).inc()
                return self.fail(situation, intent, reason, wait=wait, unpresented=not sent)
            case RateLimited(reason=reason, retry_after=wait):
                return self.fail(situation, intent, reason, wait=wait, outcome="rate_limited")
            case ClientRefused() | AssertionRefused() | Withheld():
                whose = blame(
                    meaning,
                    credential=account.credential,
                    profile=profile,
                    secrets=situation.secrets,
                    refused_keys=intent.refused_keys,
                    unsure=unsure,
                )
                return self._refused(whose, situation, intent, meaning.code)
            case Dead(code=code):
                buried = self.writer.end(situation, intent, Settlement.bury, code)
                self._count(situation, "dead", settled=buried)
                if not buried:
                    return None
                raise ReauthRequired(f"the grant of account {account.id} is dead ({code[:60]})", account=account.id)
            case Unknown(reason=reason):
                return self.doubt(situation, intent, reason)

    def _refused(self, whose: Blame, situation: Situation, intent: RefreshIntent, code: str) -> int | None:
        match whose:
            case Blame.NOBODY_YET:
                self.writer.end(situation, intent, Settlement.fail, in_words(code), code=code, retry_at=None)
                return None  # read again
            case Blame.SUSPECT:
                return self._suspect_client(situation, intent)
            case Blame.SECRET:
                self._refuse_secret(situation, intent, code)
                return None  # read again
            case Blame.ACCOUNT:
                return self._withhold(situation, intent, code)
            case Blame.PERSON:
                return self._ask_person(situation, intent, code)
            case Blame.ASSERTION:
                return self._refuse_assertion(situation, intent, code)
            case Blame.CLIENT:
                return self._refuse_client(situation, intent, code)

    def _refuse_secret(self, situation: Situation, intent: RefreshIntent, code: str) -> None:
        """Mark the first secret refused: the spare one goes first from now on."""
        _, spare, *_ = (one for one in situation.secrets if one.refused_at is None)
        owner, first = situation.connection, situation.secrets[0]
        blamed = self.writer.end(situation, intent, blame_secret, code, owner=owner, secret=first.id, spare=spare.id)
        self._count(situation, "secret_refused", settled=blamed)

    def _ask_person(self, situation: Situation, intent: RefreshIntent, code: str) -> int | None:
        """Serve the current token until it expires, then ask the provider once more; if it insists, ask the person."""
        account, now = situation.account, self.parts.clock()
        if situation.may_serve(now):
            retry_at = situation.grant.expires_at or now + _UNENDING
            failed = self.writer.end(situation, intent, Settlement.fail, code, code=code, retry_at=retry_at)
            self._count(situation, "needs_person", settled=failed)
            where = {"action": "grant.person_wanted_soon", "account": account.id}
            log.warning("when its token ends, the person of %s is wanted (%s)", account.id, code, extra=where)
            return self.serve(situation, retry_after=retry_at - now, why=code) if failed else None
        asked = self.writer.end(situation, intent, Settlement.ask_person, code)
        self._count(situation, "needs_person", settled=asked)
        if not asked:
            return None
        raise ReauthRequired(f"the provider wants the person of account {account.id} ({code})", account=account.id)

    def _refuse_assertion(self, situation: Situation, intent: RefreshIntent, code: str) -> int | None:
        """Let another live key sign; if there is none, serve the current token while valid and try again later."""
        account = situation.account
        if self._has_another_tried(situation, intent, code):
            return None
        failed, _ = self._leave_alone(situation, intent, code)
        self._count(situation, "assertion_refused", settled=failed)
        why = (
            f"{account.provider} refuses what provider connection {situation.connection.id} signs for account "
            f"{account.id} ({in_words(code)}): look at its key, at this machine's clock, and at what it was allowed "
            "there"
        )
        return self.serve_or(Misconfigured(why), situation) if failed else None

    def _has_another_tried(self, situation: Situation, intent: RefreshIntent, code: str) -> bool:
        """Switch this account to another live secret, without marking the first refused. False if there is none."""
        if untried_key(situation.secrets, intent, now=self.parts.clock()) is None:
            return False
        first, since = situation.secrets[0], refused_since(situation, code)
        noted = self.writer.end(situation, intent, note_refused_key, code, key=first.id, since=since)
        self._count(situation, "secret_refused", settled=noted)
        where = {"action": "connection.another_tried", "secret": first.id, "account": situation.account.id}
        log.warning("with %s it was refused (%s): another live one is tried", first.id, in_words(code), extra=where)
        return True  # read again: another secret now goes first for this account

    def _suspect_client(self, situation: Situation, intent: RefreshIntent) -> int | None:
        """Handle a 401 that may come from a gateway: try another live secret, then see if other accounts get it.

        If they do, the client is at fault: RFC 6749 §5.2 uses 401 only for a client that was not authenticated.
        """
        if self._has_another_tried(situation, intent, UNNAMED_401):
            return None
        suspects = partial(is_of_client, situation=situation, code=UNNAMED_401)
        if self.parts.store.read(suspects):
            return self._refuse_client(situation, intent, UNNAMED_401)
        return self._withhold(situation, intent, UNNAMED_401)

    def _refuse_client(self, situation: Situation, intent: RefreshIntent, code: str) -> int | None:
        owner = situation.connection
        blamed = self.writer.end(situation, intent, blame_client, code, owner=owner, shown=situation.secrets)
        self._count(situation, "client_refused", settled=blamed)
        if not blamed:
            return None
        raise Misconfigured(
            f"the token endpoint refused the client of provider connection {owner.id} ({in_words(code)})"
        )

    def _withhold(self, situation: Situation, intent: RefreshIntent, code: str) -> int | None:
        """Serve the current token while it is valid and ask again later: only this account may be at fault."""
        failed, wait = self._leave_alone(situation, intent, code)
        self._count(situation, "account_refused", settled=failed)
        refused = _refused(situation, code, wait)
        log.warning("%s", refused, extra={"action": "grant.withheld", "account": situation.account.id})
        return self.serve_or(refused, situation) if failed else None

    def _leave_alone(self, situation: Situation, intent: RefreshIntent, code: str) -> tuple[bool, timedelta]:
        """Record a refusal without blaming anyone; return whether that was settled, and the backoff before a retry."""
        now, wait = self.parts.clock(), _REFUSED_RETRY
        if (since := refused_since(situation, code)) is not None:
            wait = min(_longer(_rounds(intent)), max(wait, 2 * (now - since)))
        return self.writer.end(situation, intent, blame_nobody, code, retry_at=now + wait), wait

    def fail(
        self,
        situation: Situation,
        intent: RefreshIntent,
        reason: str,
        *,
        wait: timedelta = _RETRY,
        unpresented: bool = False,
        outcome: str = "transient",
    ) -> int | None:
        """Settle a refresh that had no effect, and serve the current token while it is valid."""
        retry_at = self.parts.clock() + wait
        if unpresented:
            failed = self.writer.fail_unsent(situation, intent, reason, retry_at=retry_at)
        else:
            failed = self.writer.end(situation, intent, Settlement.fail, reason, retry_at=retry_at)
        self._count(situation, outcome, settled=failed)
        return self.serve(situation, retry_after=wait, why=reason) if failed else None

    @staticmethod
    def _count(situation: Situation, outcome: str, *, settled: bool = True) -> None:
        REFRESHES.labels(situation.account.provider, outcome if settled else "moved").inc()


def _refused(situation: Situation, code: str, wait: timedelta) -> AccountRefused:
    account, owner = situation.account, situation.connection.id
    look = (
        f"the {situation.secret_name or 'secret'} of provider connection {owner} is wrong, or a gateway before the "
        "token endpoint refuses us"
        if code == UNNAMED_401
        else f"look whether the client of provider connection {owner} may have there what it asks for, in that "
        "account's organisation too"
    )
    why = f"{account.provider} gives account {account.id} no token ({in_words(code)}): {look}"
    return AccountRefused(why, account=account.key, retry_after=wait)


def _rounds(intent: RefreshIntent) -> int:
    """Return the rounds through all live secrets. Outages count: it may exceed the number of refusals."""
    return intent.presented // (1 + len(intent.refused_keys))


def _longer(times: int) -> timedelta:
    """Return the longest wait after *times* refusals, which may last until somebody acts."""
    return doubled(_REFUSED_RETRY, times - 1, longest=_LONGEST_REFUSED)
