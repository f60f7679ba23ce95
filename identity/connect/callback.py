"""The callback: checks a provider's answer and turns it into a stored consent, once.

The checks, in order: the state is ours; the answer came to the address of that state's provider connection and, if the
provider sends `iss`, from its issuer; in the same browser; in time; for the first time; from the expected account; in a
workspace of the tenant. If the product that made the link must confirm whose browser it was, the consent waits for that
(`identity.connect.confirmation`), and the last two checks follow the confirmation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from sqlalchemy import Connection

from identity import audit
from identity.accounts.scopes import revoked_since
from identity.audit import AsWhom
from identity.connect.arrival import Arrival
from identity.connect.code_exchange import CodeExchange
from identity.connect.confirmation import as_kept
from identity.connect.leftovers import Leftover, leave
from identity.connect.outcomes import Awaiting, Connected, InLine
from identity.connect.reasons import AGAIN, OPERATOR, Refusal, Why, refuse, refuse_revoked
from identity.connect.refusals import Refusals, in_words
from identity.connect.return_targets import is_confidential, may_return
from identity.connect.storing import Storing
from identity.connect_sessions.sessions import (
    CONFIRMED_WITHIN,
    ConnectSession,
    await_confirmation,
    digest,
    open_verifier,
    use_up,
)
from identity.connections.authorization import authorization
from identity.keys.vault import Vault
from identity.model import AccountKey, ProviderConnection
from identity.providers.profile import ExternalIdentity, Profile
from identity.sql.store import Store, write_idempotent


@dataclass(frozen=True, kw_only=True)
class Callback:
    """Finishes connect sessions."""

    store: Store
    vault: Vault
    exchange: CodeExchange
    refusals: Refusals
    storing: Storing
    redirect_uri: Callable[[str], str]
    ids: Callable[[], str]
    token: Callable[[], str]

    def finish(
        self, arrival: Arrival, params: Mapping[str, str], *, also: Callable[[Connection, AccountKey], None]
    ) -> Connected | Awaiting | InLine | None:
        """Return the outcome; None if the session has expired or another callback has claimed it. Raises Refusal.

        The caller has checked that the answer belongs to this session, which is used up here. Raises KeyMissing, with
        the session unchanged, if it was sealed under a vault key that this process does not have.
        """
        session = arrival.session
        if session.finished_at is not None or arrival.at >= session.expires_at:
            return None
        try:
            code = self._code(arrival, params)
        except Refusal:
            if not self._use_up(arrival):
                return None
            self.exchange.leave(arrival)
            raise
        # Before the session is used up: if this process lacks the vault key, the person can try again at another.
        _, verifier = open_verifier(self.vault, session, arrival.owner.provider)
        if (wait := self.exchange.enter(arrival)) is not None:
            return InLine(session=session.id, turn_in=wait)  # the session is unchanged
        send_before = self.exchange.send_before()
        used_up = False
        try:
            used_up = self._use_up(arrival)
        finally:
            if not used_up:
                self.exchange.back(arrival)
        if not used_up:
            return None
        with in_words():
            return self._consent(arrival, code, verifier, send_before=send_before, also=also)

    def _use_up(self, arrival: Arrival) -> bool:
        return self.store.write(lambda connection: use_up(connection, arrival.session.id, now=arrival.at))

    def _code(self, arrival: Arrival, params: Mapping[str, str]) -> str:
        """Return the code to exchange. Raises Refusal."""
        if (error := params.get("error")) is not None:
            _refuse_error(error, arrival.provider)
        code = params.get("code") or refuse(Why.PROVIDER, "the provider sent no code", final=True)
        scopes, started = arrival.session.key.scopes, arrival.session.started
        if self.store.read(lambda connection: revoked_since(connection, scopes, started)):
            refuse_revoked()
        if arrival.is_to_be_confirmed and not self.store.read(lambda c: _is_confirmable(c, arrival.session)):
            refuse(Why.OPERATOR, "this link was made by no place that could confirm that it is you", final=True)
        return code

    def _consent(
        self,
        arrival: Arrival,
        code: str,
        verifier: str,
        *,
        send_before: float,
        also: Callable[[Connection, AccountKey], None],
    ) -> Connected | Awaiting:
        session, owner = arrival.session, arrival.owner
        redirect_uri = self.redirect_uri(owner.id)
        answer = self.exchange.tokens(
            arrival, code=code, verifier=verifier, redirect_uri=redirect_uri, send_before=send_before
        )
        won = Leftover(
            key=session.key,
            provider=owner.provider,
            client_id=owner.client_id,
            started=session.started,
            answer=answer,
        )
        with self.refusals.leaving(won, now=arrival.at):
            authorization(owner, answer.access_token, token_type=answer.token_type)  # raises if the token is unusable
            external = self.exchange.whose(arrival, answer.access_token)
        won = replace(won, external_id=external.id if external else None)
        with self.refusals.leaving(won, now=arrival.at):
            if arrival.is_to_be_confirmed:
                return self._keep(arrival, won, external)
            return self.storing.consent(arrival, answer, external, also=also)

    def _keep(self, arrival: Arrival, won: Leftover, external: ExternalIdentity | None) -> Awaiting:
        """Keep the tokens unused until confirmed; without a confirmation they end like those of a refused connect."""
        session, until, code = arrival.session, arrival.at + CONFIRMED_WITHIN, self.token()
        sealed, account_id, audit_id = won.sealed(self.vault), self.ids(), self.ids()

        def write(connection: Connection) -> None:
            leave(connection, won, sealed, account_id=account_id, now=arrival.at, until=until)
            if not await_confirmation(connection, session.id, digest(code), as_kept(won.answer, external), until=until):
                return  # an earlier run of this write committed unnoticed
            audit.record(
                connection,
                "connect.awaiting",
                AsWhom.of_account(session.key),
                id=audit_id,
                at=arrival.at,
                outcome="awaiting",
                reason=f"to be confirmed by {until:%Y-%m-%d %H:%M:%S} UTC",
                detail={"connection": session.key.connection, "consented": session.started},
            )

        write_idempotent(self.store, write)
        return Awaiting(session=session.id, key=session.key, until=until, code=code)


def _is_confirmable(connection: Connection, session: ConnectSession) -> bool:
    """Check again: since the link was made, the connection may demand confirmation, or the target be gone."""
    to = session.return_to
    if to is None or session.nonce_hash is None or not is_confidential(to):
        return False
    return may_return(connection, session.key.tenant, to)


def check_issuer(owner: ProviderConnection, profile: Profile, params: Mapping[str, str]) -> None:
    """Check `iss` (RFC 9207), which names the authorization server that answered. Raises Refusal."""
    expected, sent = owner.config.get("issuer"), params.get("iss")
    must = profile.sends_iss or owner.config.get("sends_iss") == "true"
    if must and (expected is None or sent is None):
        refuse(Why.UNTRUSTED, "the answer does not say which provider it comes from")
    if expected is not None and sent is not None and sent != expected:
        refuse(Why.UNTRUSTED, "the answer comes from another provider")


def _refuse_error(error: str, name: str) -> NoReturn:
    if error == "access_denied":
        refuse(Why.DECLINED, f"access was declined at {name}", f"if that was a mistake, {AGAIN}", final=True)
    code = error[:40] if error.isascii() and error.replace("_", "").isalnum() else "unnamed"
    refuse(Why.PROVIDER, f"{name} answered {code}", f"{AGAIN}, or {OPERATOR}", final=True)
