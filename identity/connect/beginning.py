"""Checks before a connect begins: no revocation blocks it, here or at the provider, and its target is allowed."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil

from sqlalchemy import Connection

from identity.accounts.scopes import revoked_since
from identity.accounts.states import Account, find_account
from identity.connect.return_targets import is_confidential, may_return
from identity.connect_sessions.sessions import ConnectSession
from identity.errors import BadInput, PolicyDenied, Unavailable
from identity.providers.profile import Profile
from identity.withdrawals.reach import awaits_provider, links_awaited

_SOON = timedelta(seconds=5)


def check_may_begin(connection: Connection, session: ConnectSession, profile: Profile) -> None:
    """Raise BadInput, PolicyDenied or Unavailable if it must not begin. The caller holds the grant's locks."""
    key, return_to = session.key, session.return_to
    if refusal := revoked_since(connection, key.scopes, session.started):
        raise PolicyDenied(f"no account is connected now: {refusal.reason}")
    account = find_account(connection, key)
    if account is not None and awaits_provider(connection, account, profile, now=session.created_at):
        raise _ended_first(connection, account, profile, now=session.created_at)
    if session.confirm:
        _check_confirmable(session)
    if return_to is not None and not may_return(connection, key.tenant, return_to):
        raise BadInput(f"{return_to} is no return target of {key.tenant}: add it with `aswhom connect add-return`")


def _ended_first(connection: Connection, account: Account, profile: Profile, *, now: datetime) -> Unavailable:
    says = f"access of {account.key} is being ended at {profile.title}, and a consent of now would end with it"
    until = links_awaited(connection, account, now=now)
    if until is None:
        return Unavailable(f"{says}: try again in a moment", retry_after=_SOON)
    left = max(until - now, _SOON)
    return Unavailable(
        f"{says}. That waits for a link that was made for it before, and still works: go on by that one, or ask again "
        f"once it has ended, in {ceil(left / timedelta(minutes=1))} min",
        retry_after=left,
    )


def _check_confirmable(session: ConnectSession) -> None:
    if session.return_to is None or session.nonce_hash is None:
        raise BadInput(
            "who connects by this link is to be confirmed by your product, so your product makes it: have it ask "
            "POST /v1/connect-links for one, with `return_to` and with `nonce`; none is made by hand while "
            f"provider connection {session.key.connection} has `confirm=true`"
        )
    if not is_confidential(session.return_to):
        raise BadInput(
            f"{session.return_to} is reached in clear text, and who listens there could confirm this connect: "
            "give an https:// return target"
        )
