"""Whether a connect may begin now: no revocation is in its way, here or there, and it leads back where it may."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection

from identity.accounts import find_account
from identity.connect.return_targets import is_confidential, may_return
from identity.connect.sessions import ConnectSession
from identity.errors import BadInput, PolicyDenied, Unavailable
from identity.providers.profile import Profile
from identity.scopes import revoked_since
from identity.withdrawals.reach import awaits_provider


def check_may_begin(connection: Connection, session: ConnectSession, profile: Profile) -> None:
    """Raises BadInput, PolicyDenied or Unavailable where it may not. The caller holds the grant's locks."""
    key, return_to = session.key, session.return_to
    if refusal := revoked_since(connection, key.scopes, session.started):
        raise PolicyDenied(f"no account is connected now: {refusal.reason}")
    account = find_account(connection, key)
    if account is not None and awaits_provider(connection, account, profile, now=session.created_at):
        raise Unavailable(
            f"access of {key} is being ended at {profile.title}, and a consent of now would end with it: "
            "try again in a moment",
            retry_after=timedelta(seconds=5),
        )
    if session.confirm:
        _check_confirmable(session)
    if return_to is not None and not may_return(connection, key.tenant, return_to):
        raise BadInput(f"{return_to} is no return target of {key.tenant}: add it with `aswhom connect add-return`")


def _check_confirmable(session: ConnectSession) -> None:
    if session.return_to is None or session.nonce_hash is None:
        raise BadInput(
            "who connects by this link is to be confirmed by your product, so your product makes it: have it ask "
            "POST /v1/connect-links for one, with `return_to` and with `nonce`; none is made by hand"
        )
    if not is_confidential(session.return_to):
        raise BadInput(
            f"{session.return_to} is reached in clear text, and who listens there could confirm this connect: "
            "give an https:// return target"
        )
