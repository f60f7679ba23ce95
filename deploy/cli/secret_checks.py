"""Validation of a secret before it is stored, so that the person who supplies it learns of a mistake."""

from __future__ import annotations

from collections.abc import Sequence

from identity.connections.registration import service_account
from identity.connections.secrets import PRIVATE_KEY, WEBHOOK_SECRET, SealedSecret
from identity.errors import BadInput, Misconfigured
from identity.model import ProviderConnection
from identity.oauth.assertions import check_private_key
from identity.secret import Secret
from webhooks.sources import SOURCES


def check_secret(owner: ProviderConnection, name: str, secret: Secret) -> None:
    """Raise BadInput or Misconfigured for a secret that could not verify or sign anything."""
    if name == WEBHOOK_SECRET:
        check_webhook_secret(owner, secret)
    elif name == PRIVATE_KEY:
        check_private_key(owner, secret)


def key_with_id(
    owner: ProviderConnection, name: str, secret: Secret, key_id: str | None, *, live: Sequence[SealedSecret]
) -> tuple[Secret, str | None]:
    """Return the key and its own `kid`, both extracted if a Google service account's file was given.

    *live* are the live keys of that name. Raise BadInput if one already has this `kid`, or if they have one and this
    key has none.
    """
    if name != PRIVATE_KEY:
        return secret, key_id
    if secret.reveal().lstrip().startswith("{"):
        secret, named = service_account(secret)
        ours = owner.config.get("service_account")
        if ours is None:
            raise BadInput(f"that is a service account's file, but {owner.id} uses none: give only the key it contains")
        if named["service_account"] != ours:
            raise BadInput(f"that is the key of another service account than {owner.id} acts by")
        key_id = named["key_id"] if key_id is None else key_id
    others = {one.key_id or owner.config.get("key_id") for one in live} - {None}
    if key_id is None and others:
        raise BadInput(
            f"the key that {owner.id} has is named {', '.join(sorted(filter(None, others)))}, and a server that "
            "selects by that would refuse the new one: say by --key-id how the provider calls the new one"
        )
    if key_id in others:
        raise BadInput(f"a live key of {owner.id} is named {key_id} already: say how the provider calls the new one")
    return secret, key_id


def check_webhook_secret(owner: ProviderConnection, secret: Secret) -> None:
    """Raise BadInput for a secret that could not verify anything, or a configuration that describes no sender."""
    if (source := SOURCES.get(owner.provider)) is None:
        return
    try:
        refusal = source.of(owner.config).prohibits(secret)
    except Misconfigured as fault:
        raise BadInput(str(fault)) from fault
    if refusal:
        raise BadInput(f"this is no webhook secret of {owner.provider}: {refusal}")
