"""What a secret must be before it is kept, so that who gives it is told, not who needs it later."""

from __future__ import annotations

from identity.assertions import check_private_key
from identity.connection_secrets import PRIVATE_KEY, WEBHOOK_SECRET
from identity.errors import BadInput, Misconfigured
from identity.model import ProviderConnection
from identity.secret import Secret
from webhooks.sources import SOURCES


def check_secret(owner: ProviderConnection, name: str, secret: Secret) -> None:
    """Raises BadInput or Misconfigured for one that could verify or sign nothing."""
    if name == WEBHOOK_SECRET:
        check_webhook_secret(owner, secret)
    elif name == PRIVATE_KEY:
        check_private_key(owner, secret)


def check_webhook_secret(owner: ProviderConnection, secret: Secret) -> None:
    """Raises BadInput for a secret that could verify nothing, or a configuration that describes no sender."""
    if (source := SOURCES.get(owner.provider)) is None:
        return
    try:
        refusal = source.of(owner.config).prohibits(secret)
    except Misconfigured as fault:
        raise BadInput(str(fault)) from fault
    if refusal:
        raise BadInput(f"this is no webhook secret of {owner.provider}: {refusal}")
