"""Connected accounts: whether they can be used, why not, and links for the people who connect them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flask import Response, jsonify
from flask_openapi.blueprint import APIBlueprint
from sqlalchemy import Connection

from pipeline.accounts.health import health, healths
from pipeline.accounts.invitations import Invitations
from pipeline.ledger import views
from pipeline.requests import Keyed, Requests
from pipeline.workflow import Registry
from webhooks.api import shapes
from webhooks.api.access import caller
from webhooks.api.models import (
    AccountOut,
    AccountPage,
    AccountsQuery,
    ConnectBody,
    ConnectLink,
    IdempotencyHeader,
    OnePath,
)
from webhooks.api.pages import turn
from webhooks.cursors import cursor
from webhooks.problems import Problem


def account_operations(
    pages: APIBlueprint,
    requests: Requests,
    invitations: Invitations,
    workflows: Registry,
    *,
    clock: Callable[[], datetime],
) -> None:
    """Add the operations on accounts."""

    @pages.get("/accounts", responses={200: AccountPage})
    def list_accounts(query: AccountsQuery) -> Response:
        """The connected accounts, newest first, without their credentials."""
        who, wanted = caller(), turn(query)

        def read(c: Connection) -> tuple[list[AccountOut], str | None]:
            page = views.accounts_page(
                c, who.tenant, wanted, state=query.state, provider=query.provider, principal=query.principal
            )
            of_each = zip(page.rows, healths(c, workflows, page.rows), strict=True)
            return [shapes.account(row, of) for row, of in of_each], cursor(page.next)

        items, following = requests.read(read)
        return jsonify(items=[item.model_dump(mode="json") for item in items], next=following)

    @pages.get("/accounts/<id>", responses={200: AccountOut})
    def show_account(path: OnePath) -> Response:
        """One connected account: whether a step could open with it now, why not, and which scopes are missing."""
        who = caller()

        def read(c: Connection) -> AccountOut | None:
            row = views.account(c, who.tenant, path.id)
            return None if row is None else shapes.account(row, health(c, workflows, row))

        found = requests.read(read)
        if found is None:
            raise Problem.not_there("such account", listed="accounts")
        return jsonify(found.model_dump(mode="json"))

    @pages.post("/connect-links", responses={201: ConnectLink})
    def create_connect_link(header: IdempotencyHeader, body: ConnectBody) -> tuple[Response, int]:
        """Make the link by which a person connects an account. Good once, in one browser, for some minutes."""
        keyed = Keyed(key=header.idempotency_key, document={"connect": body.model_dump(mode="json")})
        made = invitations.invite(
            caller(),
            body.user,
            body.connection,
            scopes=None if body.scopes is None else tuple(body.scopes),
            return_to=body.return_to,
            keyed=keyed,
            now=clock(),
        )
        link = ConnectLink(
            url=made.url,
            principal=made.key.principal,
            connection=made.key.connection,
            scopes=list(made.scopes),
            expires_at=made.expires_at,
        )
        return jsonify(link.model_dump(mode="json")), 201
