"""The request that gets an account its next access token, and the meaning of its answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from identity.accounts.grants import SealedAnswer, seal_answer
from identity.accounts.states import Account
from identity.connections.secrets import PRIVATE_KEY, SealedSecret
from identity.errors import Misconfigured
from identity.http.client import Answer, HttpRequest, Outcome
from identity.keys.vault import Vault
from identity.model import MINTED, Credential, TokenAnswer
from identity.oauth.answers import (
    UNNAMED_401,
    UNRECOGNISED_WAIT,
    WANT_PERSON,
    WITHHELD,
    ClientRefused,
    Dead,
    Granted,
    Meaning,
    Transient,
    Withheld,
    read_outcome,
)
from identity.oauth.requests import (
    Client,
    Narrowing,
    client_credentials_request,
    installation_request,
    jwt_bearer_request,
    refresh_request,
)
from identity.providers.permissions import permissions
from identity.providers.profile import Profile
from identity.refresh.intents import RefreshIntent
from identity.refresh.situation import Situation

# RFC 7523 §3.1 uses the first for anything wrong with an assertion. Google uses the second for a person whom the
# service account may not act for: https://developers.google.com/identity/protocols/oauth2/service-account#error-codes
_OF_ASSERTION = (Dead(code="invalid_grant"), ClientRefused(code="unauthorized_client"))
_KEY_REFUSED = "401: the app's key or id was refused"
#: The installation cannot give what the token was requested for; the installation itself is alive.
OUT_OF_REACH = Dead(code="422: it lacks a permission or repository")


@dataclass(frozen=True, kw_only=True)
class AssertionRefused:
    """The assertion was refused: the key or this machine's clock is at fault, or the consent is gone.

    The codes do not distinguish these, so neither the account nor the key nor the client is given up for them.
    """

    code: str


def token_request(
    situation: Situation, profile: Profile, vault: Vault, *, now: datetime, jti: str
) -> HttpRequest | None:
    """Return the request; None if nothing can renew the token. Raises Misconfigured.

    *jti* is the id of the assertion that the request may carry, never used before.
    """
    account, owner = situation.account, situation.connection
    if account.credential is Credential.STATIC:
        return None
    if account.credential in (Credential.AUTHORIZATION_CODE, Credential.ROTATING):
        if (sealed := situation.grant.refresh_sealed) is None:
            return None
        refresh_token = vault.open(sealed, situation.refresh_binding)
        return refresh_request(_client(situation, profile, vault, now, jti), refresh_token=refresh_token)
    client = _client(situation, profile, vault, now, jti)
    if _lifts_bound(situation):
        raise Misconfigured(
            f"account {account.id} is narrowed to no scope that a token could be asked for, and one that is asked for "
            "without any has them all: revoke it, or connect it anew"
        )
    match account.credential:
        case Credential.CLIENT_CREDENTIALS:
            return client_credentials_request(client, scopes=owner.scopes)
        case Credential.JWT_BEARER:
            return jwt_bearer_request(client, subject=account.external_id, scopes=situation.grant.scopes)
        case Credential.INSTALLATION:
            if account.external_id is None:
                raise Misconfigured(f"account {account.id} does not say which installation it is")
            only = Narrowing(
                repositories=account.resources,
                permissions=permissions(situation.grant.scopes),
            )
            return installation_request(
                owner, installation=account.external_id, private_key=client.secret, now=now, only=only
            )


def narrowing_to(account: Account, repository: str, scopes: Collection[str]) -> Narrowing | None:
    """Return how to narrow the request for a token limited to *repository* (owner/name) and *scopes*.

    None if the account cannot have such a token, or is itself narrowed to other repositories.
    """
    name = repository.rpartition("/")[2]
    asked = permissions(sorted(scopes))
    if account.external_id is None or account.credential is not Credential.INSTALLATION or asked is None:
        return None
    if account.resources is not None:
        names = {resource.casefold(): resource for resource in account.resources}
        if (found := names.get(name.casefold())) is None:
            return None
        name = found
    return Narrowing(repositories=(name,), permissions=asked)


def _lifts_bound(situation: Situation) -> bool:
    """True if the account was narrowed and yet its request would name no scopes, which grants all of them."""
    grant = situation.grant
    match situation.account.credential:
        case Credential.INSTALLATION:
            named = permissions(grant.scopes) is not None
        case Credential.JWT_BEARER:
            named = bool(grant.scopes)
        case _:
            return False
    return grant.ceiling is not None and not named


def read_token(
    situation: Situation, profile: Profile, outcome: Outcome, *, started_at: datetime, scopes: Sequence[str]
) -> Meaning | AssertionRefused:
    """Return the meaning of the request's outcome. *scopes* are those it was made for."""
    if situation.account.credential is not Credential.INSTALLATION:
        meaning = read_outcome(
            outcome,
            profile,
            started_at=started_at,
            scopes=tuple(scopes),
            lifetime=situation.last_lifetime,
        )
        if (
            situation.account.credential is Credential.JWT_BEARER
            and isinstance(meaning, Dead | ClientRefused)
            and meaning in _OF_ASSERTION
        ):
            return AssertionRefused(code=meaning.code)
        if isinstance(meaning, Withheld) and situation.minted:
            return replace(meaning, person=False)  # no person signs in for it: its operator acts
        return _bounded(meaning, scopes) if situation.account.credential is Credential.JWT_BEARER else meaning
    # https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app
    match outcome:
        case Answer(status=401):
            return ClientRefused(code=_KEY_REFUSED)
        case Answer(status=404):
            return Dead(code="404: the installation is gone")
        case Answer(status=422):
            # This account's own narrowing. The connection serves other tenants and is not at fault.
            return OUT_OF_REACH
    meaning = read_outcome(
        outcome,
        profile,
        started_at=started_at,
        scopes=tuple(scopes),
        lifetime=situation.last_lifetime,
        installation=True,
    )
    return _bounded(meaning, scopes)


def _bounded(meaning: Meaning, scopes: Sequence[str]) -> Meaning:
    """Refuse a token without scopes: if that were stored, the next token would be requested without a bound."""
    if isinstance(meaning, Granted) and scopes and not meaning.answer.scopes:
        reason = "a token with none of the permissions that were asked for"
        return Transient(reason=reason, retry_after=UNRECOGNISED_WAIT, recognised=False)
    return meaning


def spare_secret(secrets: Sequence[SealedSecret], profile: Profile, code: str) -> SealedSecret | None:
    """Return the other live secret, as in the overlap of a rotation, if the refusal may be the first one's fault.

    *code* is that of a refused client. A refusal without a code may be a gateway's and proves nothing about the secret,
    so the other is presented for this request only.
    """
    blames_it = may_be_of_secret(profile, code)
    fresh = [secret for secret in secrets if secret.refused_at is None]
    return fresh[1] if blames_it and len(fresh) > 1 else None


def in_words(code: str) -> str:
    """Render the code of a refusal for people."""
    return "401 without an error code" if code == UNNAMED_401 else code[:60]


def may_be_of_secret(profile: Profile, code: str) -> bool:
    """True if a refusal of the client may be due to its secret or key rather than its registration."""
    return code in ("invalid_client", UNNAMED_401, _KEY_REFUSED) or code in profile.secret_codes


def may_be_of_account(code: str, credential: Credential) -> bool:
    """True if a refusal of the client may concern only one account, or nobody, and so must not pause the others.

    A server of many organisations answers `unauthorized_client` once one of them has removed the client, which its
    admin may do at will. A 401 that names no error may be a proxy's.
    """
    if code == UNNAMED_401:
        return True
    return code == "unauthorized_client" and credential in (Credential.AUTHORIZATION_CODE, Credential.ROTATING)


def may_be_withheld(code: str, credential: Credential) -> bool:
    """True if a refresh refused without effect waits for somebody to act: an admin at the provider, or the operator.

    Refusals of a signed assertion are handled separately (`AssertionRefused`).
    """
    if credential in MINTED and code in WANT_PERSON:
        return True
    of_assertion = credential is Credential.JWT_BEARER and code == "unauthorized_client"
    return code in WITHHELD or (may_be_of_account(code, credential) and not of_assertion)


def untried_key(secrets: Sequence[SealedSecret], intent: RefreshIntent, *, now: datetime) -> SealedSecret | None:
    """Return another live key to sign with after the first one's assertion was refused; none before its switch date.

    A key that was refused for other accounts is tried as well, because that may be out of date.
    """
    untried = (one for one in secrets[1:] if one.id not in intent.refused_keys and one.used_from <= now)
    return next(untried, None)


def next_credentials(situation: Situation, vault: Vault, answer: TokenAnswer) -> SealedAnswer:
    """Seal the answer as the next generation, with the old refresh token if the provider sent none."""
    if answer.refresh_token is None and (old := situation.grant.refresh_sealed) is not None:
        answer = replace(answer, refresh_token=vault.open(old, situation.refresh_binding))
    account = situation.account
    return seal_answer(
        vault,
        answer,
        tenant=account.key.tenant,
        account=account.id,
        provider=account.provider,
        generation=situation.generation + 1,
    )


def _client(situation: Situation, profile: Profile, vault: Vault, now: datetime, jti: str) -> Client:
    owner, wanted = situation.connection, situation.secret_name
    if not situation.secrets:
        what = "private key" if wanted == PRIVATE_KEY else "client secret"
        raise Misconfigured(f"provider connection {owner.id} has no {what}: `aswhom connections add-secret {owner.id}`")
    first = situation.secrets[0]
    return Client(connection=first.signing_for(owner), profile=profile, secret=first.open(vault), now=now, jti=jti)
