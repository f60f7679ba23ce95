"""Links from ids to the pages of what they name, for visitors who may see them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flask import url_for
from markupsafe import Markup, escape

from webhooks.console import access

#: The page for each id prefix; an account may have the id of the connect session that created it.
PAGES: Mapping[str, str] = {
    "job": "job",
    "del": "delivery",
    "rev": "revocation",
    "acc": "account",
    "con": "account",
    "apr": "approval",
}
_IN_TEXT = re.compile(r"\b(?:job|del|rev|acc|con|apr)_[0-9a-z]{26}\b")  # as `identity.ids` generates them


def page_of(id: str) -> str | None:
    """Return the endpoint of the page that an id leads to; None: its prefix has no page."""
    return PAGES.get(id.partition("_")[0].partition("-")[0])


def is_ours(id: str) -> bool:
    """True if the id was generated here. People name tenants, users and connections, and may choose such a prefix."""
    return _IN_TEXT.fullmatch(id) is not None


def to(id: str, tenant: str | None, said: str | None = None) -> Markup:
    """Link an id of *tenant*'s to its page if the visitor may see it; *said* replaces the id as the text."""
    page, text = page_of(id), escape(id if said is None else said)
    if page is None or not access.visitor().may(access.NEEDS[page], tenant):
        return text
    return Markup('<a class="id" href="{}" title="{}">{}</a>').format(url_for(f"console.{page}", id=id), id, text)


def linked(text: str | None, tenant: str | None) -> Markup:
    """Return *text* about something of *tenant*'s with each id linked to its page."""
    said, shown, end = text or "", Markup(), 0
    for found in _IN_TEXT.finditer(said):
        shown += said[end : found.start()] + to(found[0], tenant)
        end = found.end()
    return shown + said[end:]
