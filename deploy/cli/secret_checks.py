"""What a secret must be before it is kept, so that who gives it is told, not who needs it later."""

from __future__ import annotations

from deploy.cli.senders import check_webhook_secret
from identity.assertions import check_private_key
from identity.connection_secrets import PRIVATE_KEY, WEBHOOK_SECRET
from identity.model import ProviderConnection
from identity.secret import Secret


def check_secret(owner: ProviderConnection, name: str, secret: Secret) -> None:
    """Raises BadInput or Misconfigured for one that could verify or sign nothing."""
    if name == WEBHOOK_SECRET:
        check_webhook_secret(owner, secret)
    elif name == PRIVATE_KEY:
        check_private_key(owner, secret)
