"""Exchanges an authorization code for tokens, and asks the provider whose they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from math import ceil
from typing import NoReturn

from identity.connect.arrival import Arrival
from identity.connect.reasons import AGAIN, OPERATOR, Why, refuse, refuse_held
from identity.connections.secrets import CLIENT_SECRET, SealedSecret, authenticator, live_secrets
from identity.errors import Misconfigured
from identity.hold import find_hold
from identity.http.client import Answer, Client, HttpRequest, NotSent
from identity.http.request_names import CONNECT_HEADER, named
from identity.keys.vault import Vault
from identity.model import Credential, TokenAnswer
from identity.oauth.answers import (
    UNNAMED_401,
    ClientRefused,
    Dead,
    Granted,
    Meaning,
    RateLimited,
    Transient,
    Unknown,
    Withheld,
    read_outcome,
)
from identity.oauth.requests import Client as OAuthClient
from identity.oauth.requests import exchange_request
from identity.providers.profile import ExternalIdentity
from identity.quoting import kept
from identity.refresh.refused_secrets import note_refused
from identity.refresh.requests import spare_secret
from identity.secret import Secret
from identity.sql.store import Store
from identity.token_endpoint.endpoint import TokenEndpoint
from identity.token_endpoint.gate import CONNECT_KEEPS, Endpoint, Gate
from identity.token_endpoint.line import Rank, Waiter


@dataclass(frozen=True, kw_only=True)
class CodeExchange:
    """Talks to the provider during a callback. A lost answer costs only a code; the person gets a new one."""

    store: Store
    vault: Vault
    http: Client
    gate: Gate
    budget: timedelta
    send: timedelta  # from before the session is used up until the code is sent
    ids: Callable[[], str]
    monotonic: Callable[[], float]

    def send_before(self) -> float:
        """Return the deadline, on the monotonic clock, for sending a code from now."""
        return self.monotonic() + self.send.total_seconds()

    def enter(self, arrival: Arrival) -> timedelta | None:
        """Count the exchange that follows, or return the wait until its turn. It goes before jobs waiting for a token.

        Raises Refusal, leaving the session unchanged, during a hold or if the turn comes after the session expires.
        """
        if self.store.read(find_hold) is not None:
            refuse_held()
        wait = self._enter(arrival, _who(arrival), keep=CONNECT_KEEPS)
        if wait is not None and arrival.at + wait >= arrival.session.expires_at:
            self.leave(arrival)  # a new session gets a new place; this one would hold up the next
            turn = f"your turn is in {ceil(wait / timedelta(minutes=1))} min, when this link has expired"
            refuse(Why.PROVIDER, f"{_no_tokens_now(arrival)}, and {turn}", f"then, {AGAIN}")
        return wait

    def leave(self, arrival: Arrival) -> None:
        """Give up the session's place in line: it asks for no token."""
        self.gate.leave(_endpoint(arrival), _who(arrival))

    def back(self, arrival: Arrival) -> None:
        """Take back what `enter` counted: no request follows."""
        self.gate.back(_endpoint(arrival))

    def _enter(self, arrival: Arrival, who: Waiter, *, keep: float) -> timedelta | None:
        return self.gate.enter(_endpoint(arrival), arrival.profile.token_pace, keep=keep, who=who)

    def tokens(
        self, arrival: Arrival, *, code: str, verifier: str, redirect_uri: str, send_before: float
    ) -> TokenAnswer:
        """Exchange *code* for tokens. Raises Refusal, Misconfigured."""
        session, owner, profile = arrival.session, arrival.owner, arrival.profile
        name = authenticator(owner, Credential.AUTHORIZATION_CODE) or CLIENT_SECRET
        secrets = self.store.read(lambda connection: live_secrets(connection, owner.id, name))
        if not secrets:
            raise Misconfigured(f"provider connection {owner.id} has no {name.replace('_', ' ')}")
        request_by = partial(exchange_request, code=code, verifier=verifier, redirect_uri=redirect_uri)
        meaning = self._ask(arrival, request_by, secrets[0], send_before=send_before)
        if isinstance(meaning, ClientRefused) and (spare := spare_secret(secrets, profile, meaning.code)):
            # The client is authenticated before the code is checked (RFC 6749 §4.1.3), so the code is still valid.
            send_before = self.send_before()
            if meaning.code != UNNAMED_401:  # an unnamed 401 may come from a gateway
                note_refused(
                    self.store,
                    secrets[0],
                    owner=owner,
                    asked=session.started,
                    spare=spare,
                    code=meaning.code,
                    tenant=session.key.tenant,
                    audit_id=self.ids(),
                    now=arrival.at,
                )
            if self._enter(arrival, Waiter(rank=Rank.NOW), keep=0) is not None:
                refuse(Why.PROVIDER, _no_tokens_now(arrival), AGAIN, final=True)
            meaning = self._ask(arrival, request_by, spare, send_before=send_before)
        return meaning.answer if isinstance(meaning, Granted) else _no_token(meaning, arrival.provider)

    def _ask(
        self,
        arrival: Arrival,
        request_by: Callable[[OAuthClient], HttpRequest],
        secret: SealedSecret,
        *,
        send_before: float,
    ) -> Meaning:
        session, owner, profile = arrival.session, arrival.owner, arrival.profile
        opened, by = secret.open(self.vault), secret.signing_for(owner)
        client = OAuthClient(connection=by, profile=profile, secret=opened, now=arrival.at, jti=self.ids())
        endpoint = TokenEndpoint(client=self.http, budget=self.budget, gate=self.gate)
        to = _endpoint(arrival)
        outcome = endpoint.send(
            named(request_by(client), CONNECT_HEADER, str(session.started)), to=to, send_before=send_before
        )
        if not isinstance(outcome, Answer):
            asked = not (isinstance(outcome, NotSent) and outcome.untried)
            refuse(Why.PROVIDER, f"{arrival.provider} {'did not answer' if asked else 'was not asked'}", final=True)
        of_code = replace(profile, dead_codes=profile.dead_codes | profile.spent_codes)
        meaning = read_outcome(outcome, of_code, started_at=arrival.at, scopes=session.scopes, lifetime=None)
        endpoint.heed(meaning, outcome, to=to)
        return meaning

    def whose(self, arrival: Arrival, token: Secret) -> ExternalIdentity | None:
        """Return whose account *token* belongs to; None if the provider cannot be asked. Raises Refusal."""
        owner, whoami = arrival.owner, arrival.profile.whoami
        if whoami is None or (question := whoami.request(owner, token)) is None:
            return None
        asked = named(question, CONNECT_HEADER, str(arrival.session.started))
        outcome = self.http.send(asked, within=self.budget)
        external = None
        if isinstance(outcome, Answer) and outcome.status == 200:
            try:
                external = _kept(whoami.read(owner, json.loads(outcome.body)))
            except (ValueError, RecursionError):
                external = None
        return external or refuse(Why.PROVIDER, f"{arrival.provider} did not say whose account this is", final=True)


def _kept(external: ExternalIdentity | None) -> ExternalIdentity | None:
    """Return it as the ledger stores it; None if an id would change, and then name another person or place."""
    if external is None or any(kept(id) != id for id in (external.id, *external.places)):
        return None
    return replace(external, login=external.login and kept(external.login))


def _endpoint(arrival: Arrival) -> Endpoint:
    return Endpoint.of(arrival.owner, Credential.AUTHORIZATION_CODE)


def _who(arrival: Arrival) -> Waiter:
    return Waiter(f"connect:{arrival.session.started}", Rank.CONNECT)


def _no_tokens_now(arrival: Arrival) -> str:
    return f"{arrival.provider} gives no tokens at the moment"


def _no_token(meaning: Transient | RateLimited | ClientRefused | Withheld | Dead | Unknown, provider: str) -> NoReturn:
    match meaning:
        case ClientRefused():
            refuse(Why.OPERATOR, f"{provider} does not accept this installation's client", OPERATOR, final=True)
        case Withheld(code=code, person=False):
            refuse(Why.OPERATOR, f"{provider} does not give what was asked for ({code})", OPERATOR, final=True)
        case Withheld(code=code):
            refuse(Why.PROVIDER, f"{provider} wants you to sign in or consent there first ({code})", final=True)
        case Dead():
            refuse(Why.PROVIDER, f"{provider} does not accept the code: it was used or has expired", final=True)
        case Transient(reason=reason) | RateLimited(reason=reason) | Unknown(reason=reason):
            refuse(Why.PROVIDER, f"{provider} gave no token ({reason})", f"{AGAIN}, or {OPERATOR}", final=True)
