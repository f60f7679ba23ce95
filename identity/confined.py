"""Installation tokens for one repository and one action's permissions: what is stolen with one reaches no further.

Such a token is minted before a step opens, by the app's key, and used after that alone, from this process's memory, and
never for another generation of the account's grant: a revocation ends the openings, and with them every use. The ledger
knows of it before it is asked for (`identity.mints`), and holds it sealed, so that a revocation ends it at the provider
too.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from identity import leases
from identity.answers import (
    UNRECOGNISED_WAIT,
    ClientRefused,
    Dead,
    Granted,
    Meaning,
    RateLimited,
    Transient,
    Unknown,
)
from identity.connection_secrets import SealedSecret
from identity.errors import AswhomError, Misconfigured, Unavailable
from identity.grants import ACCESS, token_binding
from identity.http import NotSent
from identity.metrics import UNRECOGNISED
from identity.minting import OUT_OF_REACH, AssertionRefused, narrowing_to, read_token, spare_secret
from identity.mints import GRANTED, GRANTED_ELSEWHERE, Mint, begin_mint, end_mint, hold_minted
from identity.model import Leased, LeaseRequest, TokenAnswer
from identity.oauth import Narrowing, installation_request
from identity.own_values import profile_for
from identity.persistent_write import PersistentWrite
from identity.providers.profile import Profile
from identity.refresh.budget import RefreshBudget
from identity.refresh.gate import Endpoint
from identity.refresh.situation import Situation, read_situation
from identity.refused_secrets import note_refused
from identity.request_names import REFRESH_HEADER, named
from identity.secret import Secret
from identity.store import Store, write_idempotent
from identity.token_endpoint import TokenEndpoint
from identity.vault import Vault

log = logging.getLogger(__name__)

V = TypeVar("V")
Refused = ClientRefused | Dead | AssertionRefused

_EXPIRY_MARGIN = timedelta(minutes=2)  # the end of a cached token's life, in which it is not used
_AHEAD = timedelta(minutes=1)  # more than that is left of it when a step opens, or another is minted before
_REFUSAL_REMEMBERED = timedelta(minutes=5)  # how long a refusal is remembered
_SPREAD = 5.0  # seconds: those who wait for one moment come back spread over so long


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """What a token is for: a repository, as owner/name, and an action's scopes, in one generation of an account."""

    account: str
    generation: int
    repository: str
    scopes: frozenset[str]

    @property
    def folded(self) -> Confinement:
        """This one by its repository's name in lower case, for comparing: GitHub takes it in whatever case."""
        return replace(self, repository=self.repository.casefold())


class Confiner:
    """Mints and caches installation tokens for one repository. One for all threads of a process."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        endpoint: TokenEndpoint,
        profiles: Mapping[str, Profile],
        *,
        ids: Callable[[], str],
        clock: Callable[[], datetime],
        keeps: int = 1_000,
        send: timedelta = RefreshBudget.send,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*keeps* tokens at most, and refusals: for one more, the oldest is asked for again when it is wanted.

        *send*: how long it may take from before a mint is written down until its request leaves.
        """
        self._store = store
        self._vault = vault
        self._endpoint = endpoint
        self._profiles = profiles
        self._ids = ids
        self._clock = clock
        self._keeps = keeps
        self._send = send
        self._monotonic = monotonic
        self._kept: dict[Confinement, TokenAnswer] = {}
        self._refused: dict[Confinement, tuple[NotSent, datetime]] = {}  # and until when that is remembered
        self._lock = threading.Lock()

    def mint_ahead(self, request: LeaseRequest, *, repository: str, reads: bool) -> None:
        """Before a step opens, mint what `token` will be asked for: afterwards a failure would spend one of its tries.

        *request* is the lease that the step opens with. Raises Unavailable while there is no token to be had,
        Misconfigured while the provider connection is paused. What no waiting mends is said after the opening: by it,
        or by `token`. The result of another job's step that could be adopted waits for this as well.

        A step that *reads* asks for nothing that was out of reach a short while ago. Others do: a write fails of it.
        """

        def look(connection: Connection) -> tuple[Confinement, Situation] | None:
            lease = leases.look(connection, request)
            if not isinstance(lease, Leased):  # the opening says so, or has the account's token renewed first
                return None
            wanted = Confinement(
                account=lease.account, generation=lease.generation, repository=repository, scopes=request.scopes
            )
            if self._cached(wanted, margin=_EXPIRY_MARGIN + _AHEAD) is not None:
                return None
            if reads and (refused := self._refusal(wanted)) is not None and refused.final:
                return None
            return wanted, read_situation(connection, lease.account)

        if (found := self._store.read(look)) is not None:
            wanted, situation = found
            self._mint(situation, wanted, now=self._clock(), send_before=math.inf)

    def token(self, wanted: Confinement, *, send_before: float) -> Secret | NotSent | None:
        """The token; NotSent: there is none now, and why; None: the account's own is all there can be.

        It was minted ahead, unless it had to give way since. *send_before* is on the monotonic clock.
        """
        known = self._cached(wanted, margin=_EXPIRY_MARGIN) or self._refusal(wanted)
        if known is not None:
            return known
        try:
            situation = self._store.read(lambda c: read_situation(c, wanted.account))
            return self._mint(situation, wanted, now=self._clock(), send_before=send_before)
        except AswhomError as error:  # the step is open already: it had no effect, and is tried again
            return NotSent(reason=str(error))

    def _cached(self, wanted: Confinement, *, margin: timedelta) -> Secret | None:
        """The token that was minted for it before, if more than *margin* is left of its life."""
        with self._lock:
            kept = self._kept.get(wanted.folded)
        if kept is None or kept.expires_at is None or self._clock() >= kept.expires_at - margin:
            return None
        return kept.access_token

    def _refusal(self, wanted: Confinement) -> NotSent | None:
        """What was said when it was refused, if that was a short while ago."""
        with self._lock:
            refused = self._refused.get(wanted.folded)
        return None if refused is None or self._clock() >= refused[1] else refused[0]

    def _mint(
        self, situation: Situation, wanted: Confinement, *, now: datetime, send_before: float
    ) -> Secret | NotSent | None:
        """As `token`, but NotSent is what the provider refuses, or says in words that nobody knows.

        Raises Unavailable or Misconfigured for the rest.
        """
        account = situation.account
        only = narrowing_to(account, wanted.repository, wanted.scopes)
        if only is None or not situation.secrets:
            return None
        if situation.generation != wanted.generation:
            raise Unavailable("the account's grant moved")
        if situation.paused is not None:
            raise Misconfigured(f"provider connection {situation.connection.id} is paused: {situation.paused}")
        profile = profile_for(self._profiles, situation.connection)
        mint = Mint(
            id=self._ids(),
            account=account,
            generation=wanted.generation,
            consented=situation.grant.consented,
            repository=wanted.repository,
            scopes=tuple(sorted(wanted.scopes)),
            started_at=now,
        )
        meaning = self._ask(situation, profile, mint, only, send_before=send_before)
        return self._judge(meaning, mint, wanted, provider=profile.name)

    def _ask(
        self, situation: Situation, profile: Profile, mint: Mint, only: Narrowing, *, send_before: float
    ) -> Meaning | AssertionRefused:
        """What is answered to the first live key; to the other, where it is refused. Raises AswhomError."""
        owner = situation.connection
        keys = situation.secrets
        account = mint.account
        now = mint.started_at
        gate = self._endpoint.gate
        to = Endpoint.of(owner, account.credential)
        pace = profile.pace_of(account.credential)
        held_back = _none(mint, "requests to its token endpoint are held back for now")

        def present(key: SealedSecret) -> tuple[Meaning | AssertionRefused, int]:
            opened = key.open(self._vault)
            installation = str(account.external_id)
            request = installation_request(owner, installation=installation, private_key=opened, now=now, only=only)
            # Whoever stands still once it is written down asks for nothing: a revocation may have its receipt by then.
            by = min(send_before, self._monotonic() + self._send.total_seconds())
            begun = write_idempotent(self._store, partial(begin_mint, new=mint))
            if begun is None:
                raise Unavailable("the account's grant moved or was revoked before its token was asked for")
            # Counted only now that it may be sent: a probe that is taken and not sent is waited for by all.
            if self._monotonic() >= by:
                raise Unavailable(_none(mint, "too late to send its request, once that was written down"))
            if (wait := gate.enter(to, pace)) is not None:
                raise Unavailable(held_back, retry_after=_spread(wait))
            outcome = self._endpoint.send(named(request, REFRESH_HEADER, mint.id), to=to, send_before=by)
            meaning = read_token(situation, profile, outcome, started_at=now, scopes=mint.scopes)
            self._endpoint.heed(meaning, outcome, to=to)
            return meaning, begun

        if (wait := gate.look(to, pace)) is not None:
            raise Unavailable(held_back, retry_after=_spread(wait))
        try:
            meaning, begun = present(keys[0])
            if isinstance(meaning, ClientRefused) and (spare := spare_secret(keys, profile, meaning.code)) is not None:
                note = partial(note_refused, self._store, keys[0], by=owner, asked=begun, spare=spare)
                note(code=meaning.code, tenant=account.key.tenant, audit_id=self._ids(), now=now)
                meaning, _ = present(spare)
        except AswhomError as error:  # its row may be there, and no token is
            try:
                self._end(mint, str(error))
            except AswhomError as second:  # the row stays without an end, and what came first is what matters
                log.warning("a mint has no end: %s", second, extra={"action": "mint.unended", "mint": mint.id})
            raise
        return meaning

    def _judge(
        self, meaning: Meaning | AssertionRefused, mint: Mint, wanted: Confinement, *, provider: str
    ) -> Secret | NotSent:
        """Act on what was answered, and let the ledger know of it. Raises Unavailable where that passes."""
        if isinstance(meaning, Granted):
            return self._take(mint, meaning.answer, wanted)
        self._end(mint, meaning.code if isinstance(meaning, Refused) else meaning.reason)
        match meaning:
            case ClientRefused(code=code) | Dead(code=code) | AssertionRefused(code=code):
                return self._refuse(wanted, code, final=meaning == OUT_OF_REACH)
            case Transient(reason=reason, recognised=False):
                # Nobody knows whether it passes, so it is not waited for: the opened step's tries are its end.
                UNRECOGNISED.labels(provider).inc()
                log.warning("%s", _none(wanted, reason), extra={"action": "mint.unrecognised", "mint": mint.id})
                return self._refuse(wanted, reason, final=False)
            case Transient(reason=reason, retry_after=wait) | RateLimited(reason=reason, retry_after=wait):
                raise Unavailable(_none(wanted, reason), retry_after=_spread(wait))
            case Unknown(reason=reason):
                raise Unavailable(_none(wanted, reason), retry_after=_spread(UNRECOGNISED_WAIT))

    def _take(self, mint: Mint, minted: TokenAnswer, wanted: Confinement) -> Secret | NotSent:
        """The token, once the ledger holds it: to be used, unless it is not for *wanted* alone. Raises Unavailable."""
        # Asked by the name alone, GitHub gives the one of whosever account the installation is on.
        told = [name.casefold() for name in minted.repositories]
        elsewhere = bool(told) and told != [wanted.folded.repository]
        if not self._hold(mint, minted, outcome=GRANTED_ELSEWHERE if elsewhere else GRANTED):
            raise Unavailable("the account was revoked while its token was minted")
        if elsewhere:  # so the one that is wanted is out of reach
            return self._refuse(wanted, "the one that was given is not for it alone", final=True)
        self._keep(self._kept, wanted, minted)
        with self._lock:
            self._refused.pop(wanted.folded, None)
        return minted.access_token

    def _refuse(self, wanted: Confinement, reason: str, *, final: bool) -> NotSent:
        """Remember it for a while: the step that opens is told of it."""
        refusal = NotSent(reason=_none(wanted, reason), final=final)
        self._keep(self._refused, wanted, (refusal, self._clock() + _REFUSAL_REMEMBERED))
        return refusal

    def _keep(self, among: dict[Confinement, V], wanted: Confinement, one: V) -> None:
        """Cache *one* as the newest entry, evicting the oldest when full."""
        with self._lock:
            among.pop(wanted.folded, None)
            while len(among) >= self._keeps:
                del among[next(iter(among))]
            among[wanted.folded] = one

    def _end(self, mint: Mint, outcome: str) -> None:
        """Let the ledger know why there is no token."""
        write_idempotent(self._store, partial(end_mint, mint=mint.id, outcome=outcome, now=self._clock()))

    def _hold(self, mint: Mint, minted: TokenAnswer, *, outcome: str) -> bool:
        """Let the ledger know of it before anybody uses it; whether anybody may. Nobody else could have it ended."""
        account = mint.account
        binding = token_binding(account.key.tenant, account.id, account.provider, ACCESS, mint.generation)
        sealed = self._vault.seal(minted.access_token, binding)
        held = partial(
            hold_minted, mint=mint, sealed=sealed, expires_at=minted.expires_at, outcome=outcome, now=self._clock()
        )
        where = {"action": "mint.token_not_stored", "account": account.id, "mint": mint.id}
        return PersistentWrite().write(self._store, held, what=f"a token for {mint.repository} alone", where=where)


def _none(of: Confinement | Mint, why: str) -> str:
    return f"no token for {of.repository} alone: {why}"


def _spread(wait: timedelta) -> timedelta:
    return wait + timedelta(seconds=random.uniform(0, _SPREAD))  # noqa: S311 - spreads rivals
