"""Builds the request that ends a withdrawn credential at its provider, or says why none is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from identity.accounts.grants import ACCESS, REFRESH, token_binding
from identity.accounts.states import Account
from identity.connections.secrets import SealedSecret, ending_authenticator
from identity.errors import Misconfigured
from identity.http.client import Answer, HttpRequest, Outcome
from identity.keys.vault import Binding, Vault
from identity.model import MINTED, Credential, ProviderConnection, TokenAnswer
from identity.oauth.answers import Granted, read_outcome
from identity.oauth.requests import Client
from identity.providers.pace import Pace
from identity.providers.profile import Liveness, Profile, Reach, Renewal, Revocation
from identity.refresh.intents import TOKEN_ANSWER
from identity.secret import Secret
from identity.token_endpoint.endpoint import unpack
from identity.withdrawals.token_revocation import has_ended, presented, revoke_request
from identity.withdrawals.withdrawal import Origin, Withdrawal, WithdrawalState


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A claimed withdrawal and its account."""

    withdrawal: Withdrawal
    account: Account


@dataclass(frozen=True, kw_only=True)
class Case(Claimed):
    """A claimed withdrawal with all that its request needs."""

    owner: ProviderConnection
    secrets: tuple[SealedSecret, ...]
    superseded: bool  # replaced by a refresh that ended after the revocation
    lost: bool = False  # a refresh presented it and the answer is lost: a replacement may be valid
    others: str | None = None  # for a refused connect: who else the request would affect


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """Ambiguous answer statuses, ended or nothing done, and the request that tells which."""

    statuses: frozenset[int]
    request: HttpRequest
    liveness: Liveness


@dataclass(frozen=True, kw_only=True)
class NamedTokens:
    """Tokens that a request names one by one, of as many withdrawals as fit into it."""

    renewal: Renewal
    tokens: tuple[Secret, ...]

    def room(self, *, tries: int) -> int:
        """Return how many more tokens the request may name at this try.

        Each failed try quarters the limit: a token that makes a provider refuse a whole list is soon alone.
        """
        return (self.renewal.most >> 2 * (tries - 1)) - len(self.tokens)


@dataclass(frozen=True, kw_only=True)
class EndRequest:
    """A request to the provider, its pace, and how to read the answer."""

    request: HttpRequest
    pace: Pace
    has_ended: Callable[[Answer], bool]
    doubt: Doubt | None = None
    remark: str | None = None  # for the receipt, once it has ended
    then: HttpRequest | None = None  # sent afterwards, about the access token only
    ends_at: datetime | None = None  # when the remaining token expires; nothing renews it
    lost: bool = False  # an unknown newer token, the only one the provider would accept here, may outlive this one
    outlives: bool = False  # if the server revokes no tokens of this kind, this one ends when it expires
    names: NamedTokens | None = None  # set if the request is anonymous and may name other tokens as well

    def tells(self, outcome: Outcome) -> bool:
        """True if *outcome*, which confirms the end of this token, also confirms that of the newer one."""
        if not self.lost:
            return True
        doubted = self.doubt.statuses if self.doubt is not None else None
        return doubted is not None and isinstance(outcome, Answer) and outcome.status not in doubted


@dataclass(frozen=True, kw_only=True)
class Unasked:
    """The reason why nothing is asked, and the resulting state."""

    to: WithdrawalState
    reason: str
    lives: bool = False  # it may still be valid; reported, as no receipt mentions it


def question(
    case: Case, profile: Profile, vault: Vault, *, now: datetime, ids: Callable[[], str]
) -> EndRequest | Unasked:
    """Return the request that ends the credential, or why there is none. Raises Misconfigured."""
    claimed = case.withdrawal
    if case.others is not None:
        return Unasked(to=WithdrawalState.NOT_ASKED, reason=case.others, lives=True)
    if profile.revocation is None:
        return _nothing("the provider has no way to end a credential")
    won = _won(case, profile, vault) if claimed.origin is Origin.REFRESH else None
    expires_at = claimed.expires_at if won is None else won.expires_at
    expired = expires_at is not None and expires_at <= now
    minted = claimed.credential in MINTED and claimed.refresh_sealed is None
    if minted and expired:
        return _nothing("it had expired")
    if claimed.origin is Origin.CONNECT and profile.renewal is not None:
        return _of_connect(profile.renewal, case, vault)
    renewal_alone = is_renewal_alone(profile, claimed, now=now)
    wanted = REFRESH if renewal_alone else presented(profile, claimed.credential)
    if claimed.ended is not None:
        wanted = ACCESS if claimed.ended == REFRESH else REFRESH
    found = _token(case, vault, wanted, won=won)
    if found is None:
        return _nothing("there was no token to end")
    kind, token = found
    dropped = claimed.access_sealed is None and claimed.origin is Origin.GRANT
    if renewal_alone:
        if case.superseded:
            return _nothing("a refresh had replaced it")
        if profile.renewal is None:
            return Unasked(to=WithdrawalState.STUCK, reason=(_DROPPED if dropped else _EXPIRED) + _RENEWAL_STAYS)
        why = _DROPPED_BY_NAME if dropped else _EXPIRED_BY_NAME
        return replace(_of_renewal(profile.renewal, case.owner, token, remark=why), lost=case.lost)
    # Both tokens must end there and only the access token is left: nothing renews it.
    of_grant = claimed.origin is Origin.GRANT or claimed.ended == REFRESH
    left = profile.revocation.access_too and of_grant and kind == ACCESS
    if left and expired:
        return _nothing("it had expired")
    if ending_authenticator(case.owner, claimed.credential) and not case.secrets:
        if claimed.credential is Credential.JWT_BEARER:
            return _nothing(_KEY_ALONE)
        raise Misconfigured(f"provider connection {case.owner.id} has no secret to ask with")
    shown = _shown(case) if case.secrets else None
    secret = token if shown is None else shown.open(vault)
    by = case.owner if shown is None else shown.signing_for(case.owner)

    def about(one: Secret, hint: str) -> HttpRequest | None:
        client = Client(connection=by, profile=profile, secret=secret, now=now, jti=ids())
        return revoke_request(client, credential=claimed.credential, token=one, hint=hint)

    request = about(token, kind)
    if request is None:
        return _nothing("the provider cannot be asked to end such a credential")
    ended = partial(has_ended, profile, credential=claimed.credential)
    pace = profile.api_pace or profile.token_pace
    then = remark = None
    if profile.revocation.access_too and kind == REFRESH and not expired and claimed.ended is None:
        access = _token(case, vault, ACCESS, won=won)
        then = about(access[1], ACCESS) if access is not None else None
        remark = _DROPPED_OUTLIVES if dropped else None
    doubt = _doubt(case, profile, profile.revocation, secret=secret, token=token)
    return EndRequest(
        request=request,
        pace=pace,
        has_ended=ended,
        doubt=doubt,
        remark=remark,
        then=then,
        lost=case.lost and doubt is not None,
        ends_at=expires_at if minted or left or then is not None else None,
        outlives=left and expires_at is not None,
    )


def _doubt(case: Case, profile: Profile, revocation: Revocation, *, secret: Secret, token: Secret) -> Doubt | None:
    """Return None if the provider's answers are unambiguous, or if it cannot be asked whether the token is valid."""
    unclear, liveness = revocation.unclear_statuses, profile.liveness
    if not unclear or liveness is None or case.withdrawal.credential is not Credential.AUTHORIZATION_CODE:
        return None
    return Doubt(statuses=unclear, request=liveness.request(case.owner, secret, token), liveness=liveness)


def reaches_all(profile: Profile, credential: Credential) -> bool:
    """True if revoking one valid token ends everything the person ever granted this client."""
    of_person = credential is Credential.AUTHORIZATION_CODE
    return of_person and profile.revocation is not None and profile.revocation.reach is Reach.AUTHORIZATION


def may_be_shared(claimed: Withdrawal) -> bool:
    """True if a connect may have received a token that another account of the person has: Slack reissues it."""
    lasts = claimed.refresh_sealed is None and claimed.expires_at is None
    return claimed.origin is Origin.CONNECT and lasts


def is_renewal_alone(profile: Profile, claimed: Withdrawal, *, now: datetime) -> bool:
    """True if the provider must be asked with an access token, but only the refresh token is left.

    The access token has expired, or a signal has removed it from the grant (`identity.refresh.stale_access`).
    """
    if presented(profile, claimed.credential) != ACCESS or claimed.refresh_sealed is None:
        return False
    return claimed.access_sealed is None or _has_expired(claimed, now=now)


def goes_by_name(profile: Profile, claimed: Withdrawal, *, now: datetime) -> bool:
    """True if its tokens are ended by name, which affects no others."""
    refused = claimed.origin is Origin.CONNECT
    return profile.renewal is not None and (refused or is_renewal_alone(profile, claimed, now=now))


def _shown(case: Case) -> SealedSecret:
    """Return the secret for this try. Providers refuse secrets in different ways, so live ones take turns."""
    fresh = [secret for secret in case.secrets if secret.refused_at is None] or case.secrets
    return fresh[(case.withdrawal.tries - 1) % len(fresh)]


def _has_expired(claimed: Withdrawal, *, now: datetime) -> bool:
    return claimed.expires_at is not None and claimed.expires_at <= now


def _nothing(reason: str) -> Unasked:
    return Unasked(to=WithdrawalState.NOT_ASKED, reason=reason)


def _of_connect(renewal: Renewal, case: Case, vault: Vault) -> EndRequest:
    """Return the request that ends a refused connect's tokens and nothing else the person granted."""
    sealed = {REFRESH: case.withdrawal.refresh_sealed, ACCESS: case.withdrawal.access_sealed}
    tokens = [vault.open(value, _binding(case, name)) for name, value in sealed.items() if value is not None]
    return _of_renewal(renewal, case.owner, *tokens)


def _of_renewal(renewal: Renewal, owner: ProviderConnection, *tokens: Secret, remark: str | None = None) -> EndRequest:
    return EndRequest(
        request=renewal.request(owner, tokens),
        names=NamedTokens(renewal=renewal, tokens=tokens),
        pace=renewal.pace,
        has_ended=lambda answer: answer.status in renewal.taken,
        remark=remark,
    )


def _token(case: Case, vault: Vault, wanted: str, *, won: TokenAnswer | None) -> tuple[str, Secret] | None:
    """Return the kind and value of the token to name: the wanted one, or the access token if there is no refresh token.

    Never a refresh token in place of an access token: the provider would not know it, and unknown passes for ended.
    """
    claimed = case.withdrawal
    if won is not None:
        renews = won.refresh_token if wanted == REFRESH else None
        return (ACCESS, won.access_token) if renews is None else (REFRESH, renews)
    sealed = {ACCESS: claimed.access_sealed, REFRESH: claimed.refresh_sealed}
    for name in (wanted, ACCESS):
        if (value := sealed[name]) is not None:
            return name, vault.open(value, _binding(case, name))
    return None


def _won(case: Case, profile: Profile, vault: Vault) -> TokenAnswer | None:
    """Return the tokens a refresh obtained. Their expiry is an upper bound, counted from the later withdrawal."""
    claimed = case.withdrawal
    if claimed.answer_sealed is None:
        return None
    answer = unpack(vault.open(claimed.answer_sealed, _binding(case, TOKEN_ANSWER)))
    by_app = claimed.credential is Credential.INSTALLATION
    meaning = read_outcome(
        answer, profile, started_at=claimed.created_at, scopes=(), lifetime=None, installation=by_app
    )
    return meaning.answer if isinstance(meaning, Granted) else None


def _binding(case: Case, name: str) -> Binding:
    account, claimed = case.account, case.withdrawal
    record = claimed.id if claimed.origin is Origin.CONNECT else account.id
    return token_binding(account.key.tenant, record, account.provider, name, claimed.generation)


_EXPIRED = "its access token had expired"
_DROPPED = "a signal had put its access token out of use before, and it was not kept"
_OUTLIVES = ": that one is good until it expires"

_EXPIRED_BY_NAME = f"{_EXPIRED}: what renews it was ended by its own name"
_DROPPED_BY_NAME = f"{_DROPPED}{_OUTLIVES}, and what renews it was ended by its own name"
_DROPPED_OUTLIVES = f"{_DROPPED}{_OUTLIVES}, and nothing renews it"
_UNTIL_TAKEN_OUT = "stays valid there until the person takes the app out of their settings there"
_RENEWAL_STAYS = f", by which alone the provider can be asked: what it could be renewed with {_UNTIL_TAKEN_OUT}"

_KEY_ALONE = "its client has a key to sign with and no secret to ask with: the token ends when it expires"

#: The reason for STUCK although the provider confirmed the end of the token that is stored here.
LOST = (
    "the answer to its last refresh was lost, so a newer token may live by which alone the provider can be asked: "
    f"if so it {_UNTIL_TAKEN_OUT}"
)
#: A remark for the receipt.
ACCESS_OUTLIVES = "its server ends no access tokens: the last one is good until it expires, and nothing renews it"
