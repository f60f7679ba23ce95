"""The way back from an act to the page with its form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import request, url_for

from webhooks.console.access import page_name

#: The page that holds each act's form.
FORMS: Mapping[str, str] = {
    "cancel_job": "job",
    "replay_job": "job",
    "resolve_job": "job",
    "replay_dead": "dead",
    "replay_delivery": "delivery",
    "reconnect": "account",
    "resume_connection": "connection",
    "retry_revocation": "revocation",
    "revoke": "stake",
    "pause_schedule": "schedules",
    "resume_schedule": "schedules",
    "answer_approval": "approval",
}
# query parameters of an act's address that select the same content on its page
_KEPT = ("tenant", "kind", "key", "after")


def way_back() -> str | None:
    """Return the address of the submitted form's page; None: no form was sent. The form itself may be unreadable."""
    page = FORMS.get(page_name())
    if page is None:
        return None
    values: dict[str, Any] = {name: request.args[name] for name in _KEPT if name in request.args}
    return url_for(f"console.{page}", **values, **(request.view_args or {}))
