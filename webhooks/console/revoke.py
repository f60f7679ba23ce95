"""Revoking: first a preview of what would be stopped, then the act, by a separate form."""

from __future__ import annotations

import re

from flask import Blueprint, redirect, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as BaseResponse

from identity.errors import BadInput, Unavailable
from identity.model import Scope, ScopeKind
from pipeline.desk import revocations as acts
from pipeline.desk.scopes import named_scope
from pipeline.operators import names_of
from pipeline.revocation.declaration import Cause
from pipeline.revoker.preview import preview
from webhooks import metrics
from webhooks.console.access import as_not_there, check, visitor
from webhooks.console.parts import Desk
from webhooks.pages import page

_REASON = "a person's decision"
_ID = re.compile(r"rev_[0-9a-z]{26}")  # created with the form, so that submitting it twice makes one revocation


def revoke_pages(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/revoke")
    def stake() -> BaseResponse:
        if not request.args.get("key"):
            return page("console/revoke.html", kinds=list(ScopeKind), scope=None, stake=None)
        scope, _ = desk.read(lambda c: _meant(c, desk))
        return _form(desk, scope, id=desk.ids("rev"))

    @pages.post("/revoke")
    def revoke() -> BaseResponse:
        scope, owner = desk.read(lambda c: _meant(c, desk))
        reason = request.form.get("reason", "").strip()[:500] or _REASON
        id, person, now = request.form.get("id", ""), visitor().person, desk.clock()
        if not _ID.fullmatch(id):
            raise BadInput("nothing is revoked: the form is incomplete, open it again")
        if request.form.get("typed", "").strip() != scope.key:
            return _form(desk, scope, id=id, mistyped=True)

        barred = names_of(person.by, person.known_by)
        cause = Cause(source="console", by=person.by, reason=reason, barred=barred)

        def write(c: Connection) -> bool:
            return acts.revoke_once(c, scope, cause, id=id, tenant=owner, now=now)

        response = redirect(url_for("console.revocation", id=id, done="revoked"), 303)
        if desk.ahead.write(write):
            metrics.count_effective()
            desk.bells.ring_after(response, revocations=[id])
        return response


def _form(desk: Desk, scope: Scope, *, id: str, mistyped: bool = False) -> BaseResponse:
    """Render the preview and the form, which keeps what was entered.

    The form is shown even if the preview cannot be read.
    """
    try:
        # In its turn: it may be slow, and the form can do without it.
        found = desk.store.read(lambda c: preview(c, scope, desk.workflows, now=desk.clock()))
    except Unavailable:
        found = None
    return page(
        "console/revoke.html",
        422 if mistyped else 200,
        scope=scope,
        stake=found,
        reason=_REASON,
        written=request.form.get("reason", ""),
        mistyped=mistyped,
        id=id,
    )


def _meant(c: Connection, desk: Desk) -> tuple[Scope, str | None]:
    """Return the scope to revoke, and its tenant. Raises BadInput, NotThere, NotForYou."""
    kind, key = request.values.get("kind", ""), request.values.get("key", "").strip()
    if kind not in list(ScopeKind):
        raise BadInput(f"there is nothing of kind {kind[:20]!r} to revoke")
    with as_not_there():
        scope, owner = named_scope(c, desk.workflows, ScopeKind(kind), key, tenant=None)
    check(owner)
    return scope, owner
