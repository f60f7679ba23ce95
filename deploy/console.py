"""Serving of the console, and how people sign in. Without sign-in it is never reachable from elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from deploy.exposure import stays_here
from identity.errors import AswhomError, Misconfigured
from identity.secret import Secret
from identity.sql.store import CommitUnknown

if TYPE_CHECKING:
    from deploy.installation import Installation
    from deploy.settings import Settings
    from identity.console.sign_in import SignInSettings
    from pipeline.runtime import Runtime
    from webhooks.console.parts import Console

_OF_PROVIDER = ("console_issuer", "console_client_id", "console_client_secret")


def console(settings: Settings, runtime: Runtime) -> Console | None:
    """Return the console's parts, or None if it is not served."""
    from identity.console.sign_in import SignIn
    from pipeline.db.database import WithTurn
    from webhooks.console.parts import Console

    if not is_served(settings):
        return None
    provider = sign_in_of(settings)
    return Console(
        store=runtime.database,
        ahead=WithTurn(runtime.database, ahead=True),
        workflows=runtime.workflows,
        ids=runtime.ids,
        public_key=runtime.signer.public_key(),
        invitations=runtime.invitations,
        approving=runtime.approving,
        sign_in=SignIn(provider, runtime.http) if provider is not None else None,
        lifetime=settings.console_session,
        idle=settings.console_idle or None,
        label=settings.console_label,
    )


def new_link(at: Installation) -> tuple[str, datetime]:
    """Return a link that signs an owner in, and its expiry. Raise Misconfigured if no console is served."""
    from identity.console.sessions import make_link

    if not is_served(at.settings):
        raise Misconfigured(
            f"no console is served at {at.settings.base_url}, which is reached from elsewhere: set "
            "ASWHOM_CONSOLE_ISSUER, so that people sign in"
        )
    token, act = Secret(secrets.token_urlsafe(32)), at.act()
    expires_at = at.write(lambda c: make_link(c, token, act))
    return f"{at.settings.base_url}/console/link/{token.reveal()}", expires_at


def way_in(settings: Settings, *, unrecorded: bool) -> str | None:
    """Return how to open the console, for the person who has just started everything, or None if none is served.

    Only if the output is *unrecorded* does it contain a sign-in link: logs are read by others, and sent to other
    machines.
    """
    from deploy.installation import Installation

    if not is_served(settings):
        return None
    place = f"the console is at {settings.base_url}/console/"
    if settings.console_issuer is not None:
        return place
    if not unrecorded:
        return f"{place}; `aswhom console link` prints a link that signs you in"
    try:
        with Installation(settings) as at:
            url, _ = new_link(at)
    except (AswhomError, CommitUnknown) as fault:  # the ledger is busy, which is no reason to stop
        return f"{place}; `aswhom console link` prints a link that signs you in ({fault})"
    return f"the console: {url} signs you in once, within ten minutes; `aswhom console link` prints another"


def is_served(settings: Settings) -> bool:
    """Return the setting, or by default whether serving the console is safe."""
    if settings.console is not None:
        return settings.console
    return settings.console_issuer is not None or stays_here(settings)


def sign_in_of(settings: Settings) -> SignInSettings | None:
    """Return the console's registration with the OpenID provider, or None."""
    from identity.console.sign_in import SignInSettings

    if settings.console_issuer is None or settings.console_client_id is None or settings.console_client_secret is None:
        return None
    return SignInSettings(
        issuer=settings.console_issuer,
        client_id=settings.console_client_id,
        client_secret=Secret(settings.console_client_secret.get_secret_value()),
        redirect_uri=f"{settings.base_url}/console/callback",
        scopes=settings.console_scopes,
        roles_claim=settings.console_roles_claim,
    )


def console_faults(settings: Settings) -> Iterator[str]:
    """Yield each fault as a sentence: the settings, the problem and the remedy."""
    missing = [name for name in _OF_PROVIDER if getattr(settings, name) is None]
    if 0 < len(missing) < len(_OF_PROVIDER):
        named = " and ".join(f"ASWHOM_{name.upper()}" for name in missing)
        yield f"people cannot sign in at the console without {named}: set all three, or none"
    if settings.console and settings.console_issuer is None and not stays_here(settings):
        yield (
            f"ASWHOM_CONSOLE is set, and {settings.base_url}, on {settings.listen}, is reached from elsewhere: set "
            "ASWHOM_CONSOLE_ISSUER, so that people sign in, or listen on 127.0.0.1 alone"
        )
