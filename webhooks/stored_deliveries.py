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
from webhooks.sources.reading import UNREADABLE, Content


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
    return stored, workflows.consider(row["source"], _event(row, content), content.document)


def _event(row: dict[str, Any], content: Content) -> str:
    """Return the event of *row*, read anew if its source could not read it on arrival. Raises BadInput."""
    if row["event"] != UNREADABLE or content.event is None:
        return str(row["event"])
    if content.event == UNREADABLE:
        raise BadInput(f"{row['id']} cannot be read by this version either: do by hand what it meant")
    if content.acts:
        raise BadInput(
            f"{row['id']} is a signal or an answer to an approval, and a replay carries out neither: withdraw by hand "
            "with `aswhom revoke`, or let the person answer again"
        )
    return content.event
