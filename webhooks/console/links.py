"""Ids as links: each leads to the page of what it names, for whoever may see that."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flask import url_for
from markupsafe import Markup, escape

from webhooks.console import access

#: The page of a thing, by how its id begins; an account may have that of the connect session that made it.
PAGES: Mapping[str, str] = {
    "job": "job",
    "del": "delivery",
    "rev": "revocation",
    "acc": "account",
    "con": "account",
    "apr": "approval",
}
_IN_TEXT = re.compile(r"\b(?:job|del|rev|acc|con|apr)_[0-9a-z]{26}\b")  # as `identity.ids` makes them


def page_of(id: str) -> str | None:
    """The endpoint of the page that an id leads to; None: it begins like nothing that has a page."""
    return PAGES.get(id.partition("_")[0].partition("-")[0])


def is_ours(id: str) -> bool:
    """Whether an id was made here. Tenants, users and connections are named by people, who may begin like one."""
    return _IN_TEXT.fullmatch(id) is not None


def to(id: str, tenant: str | None, said: str | None = None) -> Markup:
    """A thing of *tenant*'s by its id, as a link for whoever may see it; *said* stands in the place of the id."""
    page, text = page_of(id), escape(id if said is None else said)
    if page is None or not access.visitor().may(access.NEEDS[page], tenant):
        return text
    return Markup('<a class="id" href="{}" title="{}">{}</a>').format(url_for(f"console.{page}", id=id), id, text)


def linked(text: str | None, tenant: str | None) -> Markup:
    """A sentence about something of *tenant*'s, in which each id leads to its page."""
    said, shown, end = text or "", Markup(), 0
    for found in _IN_TEXT.finditer(said):
        shown += said[end : found.start()] + to(found[0], tenant)
        end = found.end()
    return shown + said[end:]
