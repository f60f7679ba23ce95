"""Installation tokens for one repository and one action's permissions: what is stolen with one reaches no further.

Such a token is minted after a step has opened, by the app's key, used from this process's memory alone, and never for
another generation of the account's grant: a revocation ends the openings, and with them every use. The ledger holds it
sealed, so that a revocation ends it at the provider too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from identity.accounts import Account, find_account
from identity.answers import ClientRefused, Dead, Granted, Meaning, RateLimited, Transient, Unknown
from identity.connection_secrets import SealedSecret
from identity.errors import AswhomError, Misconfigured, Unavailable
from identity.grants import ACCESS, get_grant, token_binding
from identity.http import NotSent
from identity.minting import OUT_OF_REACH, AssertionRefused, read_token, spare_secret
from identity.model import AccountKey, Credential, TokenAnswer
from identity.oauth import Narrowing, installation_request
from identity.own_values import profile_for
from identity.permissions import permissions
from identity.providers.profile import Profile
from identity.refresh.gate import Endpoint
from identity.refresh.pace import Pace
from identity.refresh.situation import Situation, read_situation
from identity.refused_secrets import note_refused
from identity.request_names import REFRESH_HEADER, named
from identity.secret import Secret
from identity.store import Store, written
from identity.token_endpoint import TokenEndpoint
from identity.vault import Vault
from identity.withdrawals.held_tokens import HeldToken, hold

_REST = timedelta(minutes=2)  # of a kept token's life that is not used
_LEFT_ALONE = "its token endpoint is left alone for now"


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """What a token is for: a repository, as owner/name, and an action's scopes, in one generation of an account."""

    account: str
    generation: int
    repository: str
    scopes: frozenset[str]

    @property
    def same(self) -> Confinement:
        """What equals it: GitHub takes a repository's name in whatever case."""
        return replace(self, repository=self.repository.casefold())


class Confiner:
    """Mints and keeps them. One for all threads of a process."""

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
    ) -> None:
        """*keeps* tokens at most: for one more, the oldest is minted again when it is wanted."""
        self._store = store
        self._vault = vault
        self._endpoint = endpoint
        self._profiles = profiles
        self._ids = ids
        self._clock = clock
        self._keeps = keeps
        self._kept: dict[Confinement, TokenAnswer] = {}
        self._lock = threading.Lock()

    def await_minting(self, key: AccountKey, *, repository: str, scopes: frozenset[str]) -> None:
        """Raises what holds back the minting that a step of *key* needs: Misconfigured while its provider connection
        is paused, Unavailable while its token endpoint is left alone.

        Asked before a step opens: afterwards it would spend one of its tries. Every other obstacle is the opening's,
        as is the result of another job's step that could be adopted: that waits for these as well.
        """

        def look(connection: Connection) -> Situation | None:
            account = find_account(connection, key)
            if account is None or account.credential is not Credential.INSTALLATION:
                return None
            if (grant := get_grant(connection, account.id)) is None:
                return None
            wanted = Confinement(account=account.id, generation=grant.generation, repository=repository, scopes=scopes)
            if self._still(wanted) is not None or _only(account, wanted) is None:
                return None
            return read_situation(connection, account.id)

        if (situation := self._store.read(look)) is None or not situation.secrets:
            return
        fault = situation.prohibition()
        if isinstance(fault, Misconfigured):
            raise fault
        if fault is not None:
            return
        to, pace = self._entrance(situation)
        if (wait := self._endpoint.gate.look(to, pace)) is not None:
            raise Unavailable(f"no token for {repository} alone: {_LEFT_ALONE}", retry_after=wait)

    def token(self, wanted: Confinement, *, attempt: str, send_before: float) -> Secret | NotSent | None:
        """The token; NotSent: there is none now, and why; None: the account's own is all there can be.

        *attempt* is what the provider's log says it is minted for. *send_before* is on the monotonic clock.
        """
        if (kept := self._still(wanted)) is not None:
            return kept
        try:
            situation = self._store.read(lambda c: read_situation(c, wanted.account))
            return self._mint(situation, wanted, attempt=attempt, now=self._clock(), send_before=send_before)
        except AswhomError as error:  # the step is open already: it had no effect, and is tried again
            return NotSent(reason=str(error))

    def _still(self, wanted: Confinement) -> Secret | None:
        """The token that was minted for it before, if it lives."""
        with self._lock:
            kept = self._kept.get(wanted.same)
        if kept is None or kept.expires_at is None or self._clock() >= kept.expires_at - _REST:
            return None
        return kept.access_token

    def _mint(
        self, situation: Situation, wanted: Confinement, *, attempt: str, now: datetime, send_before: float
    ) -> Secret | NotSent | None:
        account, only = situation.account, _only(situation.account, wanted)
        if only is None or not situation.secrets:
            return None
        if situation.generation != wanted.generation:
            return NotSent(reason="the account's grant moved")
        if situation.paused is not None:
            return NotSent(reason=f"provider connection {situation.connection.id} is paused: {situation.paused}")
        profile, keys = profile_for(self._profiles, situation.connection), situation.secrets
        to, pace = self._entrance(situation)
        scopes, installation = sorted(wanted.scopes), str(account.external_id)

        def ask(key: SealedSecret, only: Narrowing) -> Meaning | AssertionRefused | NotSent:
            if self._endpoint.gate.enter(to, pace) is not None:  # closed since `await_minting` looked
                return NotSent(reason=_LEFT_ALONE)
            owner, opened = situation.connection, key.open(self._vault)
            request = installation_request(owner, installation=installation, private_key=opened, now=now, only=only)
            outcome = self._endpoint.send(named(request, REFRESH_HEADER, attempt), to=to, send_before=send_before)
            meaning = read_token(situation, profile, outcome, started_at=now, scopes=scopes)
            self._endpoint.heed(meaning, outcome, to=to)
            return meaning

        meaning = ask(keys[0], only)
        if isinstance(meaning, ClientRefused) and (spare := spare_secret(keys, profile, meaning.code)) is not None:
            code, tenant = meaning.code, account.key.tenant
            note_refused(self._store, keys[0], spare=spare, code=code, tenant=tenant, audit_id=self._ids(), now=now)
            meaning = ask(spare, only)
        if isinstance(meaning, NotSent):
            return meaning
        if not isinstance(meaning, Granted):
            reason = f"no token for {wanted.repository} alone: {_said(meaning)}"
            return NotSent(reason=reason, final=meaning == OUT_OF_REACH)
        if not self._hold(situation, meaning.answer):
            return NotSent(reason="the account was revoked while its token was minted")
        with self._lock:
            self._kept.pop(wanted.same, None)  # an expired one, so that the order stays that of the mintings
            while len(self._kept) >= self._keeps:
                del self._kept[next(iter(self._kept))]
            self._kept[wanted.same] = meaning.answer
        return meaning.answer.access_token

    def _entrance(self, situation: Situation) -> tuple[Endpoint, Pace]:
        """Of its token endpoint's gate."""
        owner, credential = situation.connection, situation.account.credential
        return Endpoint.of(owner, credential), profile_for(self._profiles, owner).pace_of(credential)

    def _hold(self, situation: Situation, minted: TokenAnswer) -> bool:
        """Let the ledger know of it before anybody uses it; whether anybody may."""
        account = situation.account
        binding = token_binding(account.key.tenant, account.id, account.provider, ACCESS, situation.generation)
        held = HeldToken(
            id=self._ids(),
            account=account,
            generation=situation.generation,
            consented=situation.grant.consented,
            access_sealed=self._vault.seal(minted.access_token, binding),
            expires_at=minted.expires_at,
        )
        return written(self._store, partial(hold, new=held, now=self._clock()))


def _only(account: Account, wanted: Confinement) -> Narrowing | None:
    """What to ask for; None where the account cannot, or is narrowed to other repositories itself."""
    name = wanted.repository.rpartition("/")[2]
    asked = permissions(sorted(wanted.scopes))
    if account.external_id is None or account.credential is not Credential.INSTALLATION or asked is None:
        return None
    if account.resources is not None:
        names = {resource.casefold(): resource for resource in account.resources}
        if (found := names.get(name.casefold())) is None:
            return None
        name = found
    return Narrowing(repositories=(name,), permissions=asked)


def _said(meaning: Transient | RateLimited | ClientRefused | Dead | Unknown | AssertionRefused) -> str:
    """Why there is no token, in the words that `identity.answers` and `identity.minting` have for it."""
    match meaning:
        case ClientRefused(code=code) | Dead(code=code) | AssertionRefused(code=code):
            return code
        case Transient(reason=reason) | RateLimited(reason=reason) | Unknown(reason=reason):
            return reason
