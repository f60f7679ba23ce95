"""Re-reads stored deliveries: which workflows would match a body that was received before."""

from __future__ import annotations

from typing import Any

from identity.errors import BadInput
from identity.model import ProviderConnection
from pipeline.approvals.news import SOURCE as OURS
from pipeline.authoring.matching import Considered
from pipeline.authoring.registry import Registry
from pipeline.deliveries.replay import Stored
from webhooks.sources import SOURCES
from webhooks.sources.document import Malformed


def reconsider(row: dict[str, Any], owner: ProviderConnection, workflows: Registry) -> tuple[Stored, list[Considered]]:
    """Return the delivery of *row*, received by *owner*, and each workflow's verdict on it. Raises BadInput."""
    if not row["body"]:
        raise BadInput(f"the body of {row['id']} was forgotten, as its retention says: nothing can be made of it")
    if row["source"] == OURS:  # from a sender configured with our reserved name before it was reserved
        raise BadInput(f"{row['id']} came from outside as {OURS}: nothing is made of it")
    try:
        content = SOURCES[owner.provider].of(owner.config).content(row["body"])
    except Malformed as error:
        raise BadInput(f"the body of {row['id']} cannot be read: {error}") from error
    stored = Stored(
        id=row["id"],
        connection=owner.id,
        outcome=row["outcome"],
        installation=content.installation,
        workspace=content.workspace,
    )
    return stored, workflows.consider(row["source"], row["event"], content.document)
