"""A code from the browser, exchanged for tokens, and the question whose they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import NoReturn

from identity.answers import ClientRefused, Dead, Granted, RateLimited, Transient, Unknown, read_outcome
from identity.connections import CLIENT_SECRET, live_secrets
from identity.errors import Misconfigured
from identity.gate import Endpoint, Gate
from identity.http import Answer, Client
from identity.model import Credential, ProviderConnection, TokenAnswer
from identity.oauth import Client as OAuthClient
from identity.oauth import exchange_request
from identity.providers.profile import ExternalIdentity, Profile
from identity.providers.words import provider_name
from identity.refusal import AGAIN, OPERATOR, Why, refuse
from identity.secret import Secret
from identity.store import Store
from identity.token_endpoint import TokenEndpoint
from identity.vault import Vault


@dataclass(frozen=True, kw_only=True)
class CodeExchange:
    """Speaks to the provider for one callback. A lost answer costs a code, which the person replaces."""

    store: Store
    vault: Vault
    http: Client
    gate: Gate
    budget: timedelta

    def enter(self, owner: ProviderConnection, profile: Profile) -> None:
        """Count the exchange that follows. Raises Refusal, which leaves the session as it is, where it must wait."""
        wait = self.gate.enter(_endpoint(owner), profile.token_pace)
        if wait is not None:
            seconds = ceil(wait.total_seconds())
            refuse(
                Why.PROVIDER,
                f"{provider_name(owner.provider)} gives no tokens at the moment",
                f"reload this page in {seconds} s",
            )

    def tokens(
        self,
        owner: ProviderConnection,
        profile: Profile,
        *,
        code: str,
        verifier: str,
        redirect_uri: str,
        scopes: tuple[str, ...],
        now: datetime,
    ) -> TokenAnswer:
        """What the code is worth. Raises Refusal, Misconfigured."""
        secrets = self.store.read(lambda connection: live_secrets(connection, owner.id, CLIENT_SECRET))
        if not secrets:
            raise Misconfigured(f"provider connection {owner.id} has no client secret")
        client = OAuthClient(connection=owner, profile=profile, secret=secrets[0].open(self.vault))
        request = exchange_request(client, code=code, verifier=verifier, redirect_uri=redirect_uri)
        endpoint = TokenEndpoint(client=self.http, budget=self.budget, gate=self.gate)
        outcome = endpoint.send(request, to=_endpoint(owner))
        if not isinstance(outcome, Answer):
            refuse(Why.PROVIDER, f"{provider_name(owner.provider)} did not answer", final=True)
        meaning = read_outcome(outcome, profile, started_at=now, scopes=scopes, lifetime=None)
        return meaning.answer if isinstance(meaning, Granted) else _no_token(meaning, provider_name(owner.provider))

    def whose(self, owner: ProviderConnection, profile: Profile, token: Secret) -> ExternalIdentity | None:
        """Whose account it is; None where the provider cannot be asked. Raises Refusal."""
        if profile.whoami is None:
            return None
        outcome = self.http.send(profile.whoami.request(owner, token), within=self.budget)
        external = None
        if isinstance(outcome, Answer) and outcome.status == 200:
            try:
                external = profile.whoami.read(json.loads(outcome.body))
            except (ValueError, RecursionError):
                external = None
        return external or refuse(
            Why.PROVIDER, f"{provider_name(owner.provider)} did not say whose account this is", final=True
        )


def _endpoint(owner: ProviderConnection) -> Endpoint:
    return Endpoint.of(owner, Credential.AUTHORIZATION_CODE)


def _no_token(meaning: Transient | RateLimited | ClientRefused | Dead | Unknown, provider: str) -> NoReturn:
    match meaning:
        case ClientRefused():
            refuse(Why.OPERATOR, f"{provider} does not accept this installation's client", OPERATOR, final=True)
        case Dead():
            refuse(Why.PROVIDER, f"{provider} does not accept the code: it was used or has expired", final=True)
        case Transient(reason=reason) | RateLimited(reason=reason) | Unknown(reason=reason):
            refuse(Why.PROVIDER, f"{provider} gave no token ({reason})", f"{AGAIN}, or {OPERATOR}", final=True)
