"""Whether a connect may begin now: no revocation is in its way, here or there, and it leads back where it may."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection

from identity.accounts import find_account
from identity.connect.return_targets import may_return
from identity.connect.sessions import ConnectSession
from identity.errors import BadInput, PolicyDenied, Unavailable
from identity.providers.profile import Profile
from identity.scopes import grant_scopes, revoked_since
from identity.withdrawals.reach import awaits_provider


def check_may_begin(connection: Connection, session: ConnectSession, profile: Profile) -> None:
    """Raises BadInput, PolicyDenied or Unavailable where it may not. The caller holds the grant's locks."""
    key, return_to = session.key, session.return_to
    if refusal := revoked_since(connection, grant_scopes(key), session.started):
        raise PolicyDenied(f"no account is connected now: {refusal.reason}")
    account = find_account(connection, key)
    if account is not None and awaits_provider(connection, account, profile, now=session.created_at):
        raise Unavailable(
            f"access of {key} is being ended at {profile.title}, and a consent of now would end with it: "
            "try again in a moment",
            retry_after=timedelta(seconds=5),
        )
    if return_to is None and session.confirm:
        raise BadInput(
            "who connects by this link is to be confirmed by your product, and the link leads to none: give a return "
            "target (`return_to`, `--return-to`)"
        )
    if return_to is not None and not may_return(connection, key.tenant, return_to):
        raise BadInput(f"{return_to} is no return target of {key.tenant}: add it with `aswhom connect add-return`")
