"""Minting of a token for one repository and one action's permissions: the request, and the meaning of its answer.

It is minted with the app's key. The ledger records the mint before the request (`identity.minting.mints`) and holds the
sealed token before anybody uses it, so that a revocation also ends the token at the provider.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256

from identity.accounts.grants import ACCESS, token_binding
from identity.backoff import spread
from identity.connections.secrets import SealedSecret
from identity.connections.self_hosted import profile_for
from identity.errors import AswhomError, Misconfigured, Unavailable
from identity.http.client import NotSent
from identity.http.request_names import REFRESH_HEADER, named
from identity.keys.vault import Vault
from identity.metrics import UNRECOGNISED
from identity.minting.mints import GRANTED, GRANTED_ELSEWHERE, Mint, begin_mint, end_mint, hold_minted
from identity.model import TokenAnswer
from identity.oauth.answers import (
    UNRECOGNISED_WAIT,
    ClientRefused,
    Dead,
    Granted,
    Meaning,
    RateLimited,
    Transient,
    Unknown,
    Withheld,
)
from identity.oauth.requests import Narrowing, installation_request
from identity.providers.profile import Profile
from identity.refresh.refused_secrets import note_refused
from identity.refresh.requests import OUT_OF_REACH, AssertionRefused, in_words, narrowing_to, read_token, spare_secret
from identity.refresh.situation import Situation
from identity.sql.persistent_write import PersistentWrite
from identity.sql.store import Store, write_idempotent
from identity.token_endpoint.budget import RefreshBudget
from identity.token_endpoint.endpoint import TokenEndpoint
from identity.token_endpoint.gate import HELD_BACK, Endpoint
from identity.token_endpoint.line import Waiter

log = logging.getLogger(__name__)

Refused = ClientRefused | Withheld | Dead | AssertionRefused

_SPREAD = timedelta(seconds=5)  # jitter for callers that wait for the same time


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """The extent of a token: a repository (owner/name) and an action's scopes, in one generation of an account."""

    account: str
    generation: int
    repository: str
    scopes: frozenset[str]

    @property
    def folded(self) -> Confinement:
        """This confinement with the repository's name in lower case, for comparing: GitHub ignores case."""
        return replace(self, repository=self.repository.casefold())


@dataclass(frozen=True, kw_only=True)
class ConfinedMinter:
    """Requests tokens and interprets the answers. One for all threads of a process."""

    store: Store
    vault: Vault
    endpoint: TokenEndpoint
    profiles: Mapping[str, Profile]
    ids: Callable[[], str]
    clock: Callable[[], datetime]
    send: timedelta = RefreshBudget.send  # longest time from recording a mint to sending its request
    monotonic: Callable[[], float] = time.monotonic

    def mint(self, situation: Situation, wanted: Confinement, *, send_before: float) -> TokenAnswer | NotSent | None:
        """Return the token, once the ledger holds it; NotSent if the provider refuses it or its answer is unrecognised.

        None if only the account's own token is possible. *send_before* is on the monotonic clock. Raises Unavailable or
        Misconfigured.
        """
        account = situation.account
        only = narrowing_to(account, wanted.repository, wanted.scopes)
        if only is None or not situation.secrets:
            return None
        if situation.generation != wanted.generation:
            raise Unavailable("the account's grant moved")
        if situation.paused is not None:
            raise Misconfigured(f"provider connection {situation.connection.id} is paused: {situation.paused}")
        profile = profile_for(self.profiles, situation.connection)
        mint = Mint(
            id=self.ids(),
            account=account,
            generation=wanted.generation,
            consented=situation.grant.consented,
            repository=wanted.repository,
            scopes=tuple(sorted(wanted.scopes)),
            started_at=self.clock(),
        )
        meaning = self._ask(situation, profile, mint, only, send_before=send_before)
        return self._judge(meaning, mint, provider=profile.name)

    def _ask(
        self, situation: Situation, profile: Profile, mint: Mint, only: Narrowing, *, send_before: float
    ) -> Meaning | AssertionRefused:
        """Present the first live key, and the spare one if that is refused; return the meaning. Raises AswhomError."""
        owner = situation.connection
        keys = situation.secrets
        account = mint.account
        now = mint.started_at
        gate = self.endpoint.gate
        to = Endpoint.of(owner, account.credential)
        pace = profile.pace_of(account.credential)
        who = Waiter(f"{account.id}:{_which(mint)}")
        held_back = _none(mint, HELD_BACK)

        def present(key: SealedSecret) -> tuple[Meaning | AssertionRefused, int]:
            opened = key.open(self.vault)
            installation = str(account.external_id)
            request = installation_request(owner, installation=installation, private_key=opened, now=now, only=only)
            # A process that stalls after recording the mint must send nothing: a revocation may have its receipt by
            # then.
            by = min(send_before, self.monotonic() + self.send.total_seconds())
            begun = write_idempotent(self.store, partial(begin_mint, new=mint))
            if begun is None:
                raise Unavailable("the account's grant moved or was revoked before its token was asked for")
            if (wait := gate.enter(to, pace, who=who)) is not None:
                raise Unavailable(held_back, retry_after=_spread(wait))
            outcome = self.endpoint.send(named(request, REFRESH_HEADER, mint.id), to=to, send_before=by)
            meaning = read_token(situation, profile, outcome, started_at=now, scopes=mint.scopes)
            self.endpoint.heed(meaning, outcome, to=to)
            return meaning, begun

        if (wait := gate.look(to, pace, who=who)) is not None:
            raise Unavailable(held_back, retry_after=_spread(wait))
        try:
            meaning, begun = present(keys[0])
            if isinstance(meaning, ClientRefused) and (spare := spare_secret(keys, profile, meaning.code)) is not None:
                note = partial(note_refused, self.store, keys[0], owner=owner, asked=begun, spare=spare)
                note(code=meaning.code, tenant=account.key.tenant, audit_id=self.ids(), now=now)
                meaning, _ = present(spare)
        except AswhomError as error:  # its row may exist although there is no token
            try:
                self._end(mint, str(error))
            except AswhomError as second:  # the row stays without an end; the first error is the one that matters
                log.warning("a mint has no end: %s", second, extra={"action": "mint.unended", "mint": mint.id})
            raise
        return meaning

    def _judge(self, meaning: Meaning | AssertionRefused, mint: Mint, *, provider: str) -> TokenAnswer | NotSent:
        """Act on the answer's meaning, and record it in the ledger. Raises Unavailable for a temporary failure."""
        if isinstance(meaning, Granted):
            return self._take(mint, meaning.answer)
        self._end(mint, in_words(meaning.code) if isinstance(meaning, Refused) else meaning.reason)
        match meaning:
            case ClientRefused(code=code) | Withheld(code=code) | Dead(code=code) | AssertionRefused(code=code):
                return _refusal(mint, in_words(code), final=meaning == OUT_OF_REACH)
            case Transient(reason=reason, recognised=False):
                # It may not be temporary, so the job does not wait for it: the opened step's tries are the limit.
                UNRECOGNISED.labels(provider).inc()
                log.warning("%s", _none(mint, reason), extra={"action": "mint.unrecognised", "mint": mint.id})
                return _refusal(mint, reason, final=False)
            case Transient(reason=reason, retry_after=wait) | RateLimited(reason=reason, retry_after=wait):
                raise Unavailable(_none(mint, reason), retry_after=_spread(wait))
            case Unknown(reason=reason):
                raise Unavailable(_none(mint, reason), retry_after=_spread(UNRECOGNISED_WAIT))

    def _take(self, mint: Mint, minted: TokenAnswer) -> TokenAnswer | NotSent:
        """Return the token once the ledger holds it, or NotSent if it is not only for that repository.

        Raises Unavailable.
        """
        # Given only the name, GitHub takes the repository of the account that the installation is on.
        told = [name.casefold() for name in minted.repositories]
        elsewhere = bool(told) and told != [mint.repository.casefold()]
        if not self._hold(mint, minted, outcome=GRANTED_ELSEWHERE if elsewhere else GRANTED):
            raise Unavailable("the account was revoked while its token was minted")
        if elsewhere:  # so the wanted repository is out of reach
            return _refusal(mint, "the one that was given is not for it alone", final=True)
        return minted

    def _end(self, mint: Mint, outcome: str) -> None:
        """Record in the ledger why there is no token."""
        write_idempotent(self.store, partial(end_mint, mint=mint.id, outcome=outcome, now=self.clock()))

    def _hold(self, mint: Mint, minted: TokenAnswer, *, outcome: str) -> bool:
        """Record the token in the ledger before anybody uses it; otherwise nobody could have it ended.

        True if it may be used.
        """
        account = mint.account
        binding = token_binding(account.key.tenant, account.id, account.provider, ACCESS, mint.generation)
        sealed = self.vault.seal(minted.access_token, binding)
        held = partial(
            hold_minted, mint=mint, sealed=sealed, expires_at=minted.expires_at, outcome=outcome, now=self.clock()
        )
        where = {"action": "mint.token_not_stored", "account": account.id, "mint": mint.id}
        return PersistentWrite().write(self.store, held, what=f"a token for {mint.repository} alone", where=where)


def _refusal(mint: Mint, reason: str, *, final: bool) -> NotSent:
    return NotSent(reason=_none(mint, reason), final=final)


def _none(mint: Mint, why: str) -> str:
    return f"no token for {mint.repository} alone: {why}"


def _which(mint: Mint) -> str:
    """Return a name for this mint among its account's, so that each has its own place in the gate's line."""
    return sha256("\n".join((mint.repository.casefold(), *mint.scopes)).encode()).hexdigest()[:16]


def _spread(wait: timedelta) -> timedelta:
    return wait + spread(_SPREAD)
