"""Connected accounts: whether they can be used, why not, and links for the people who connect them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flask import Response
from flask_openapi.blueprint import APIBlueprint
from sqlalchemy import Connection

from identity.connect.reasons import ConnectRefused
from pipeline.accounts.health import health, healths
from pipeline.accounts.invitations import Invitations
from pipeline.ledger import views
from pipeline.ledger.paging import Place
from pipeline.requests import Keyed, Requests
from pipeline.workflow import Registry
from webhooks.api import shapes
from webhooks.api.access import caller
from webhooks.api.answers import answer, answer_page
from webhooks.api.models import (
    AccountOut,
    AccountPage,
    AccountsQuery,
    ConfirmBody,
    ConnectBody,
    ConnectedOut,
    ConnectLink,
    IdempotencyHeader,
    OnePath,
)
from webhooks.pages import sentence
from webhooks.problems import CONNECT_REFUSED, NOT_THERE, Problem


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
        who, wanted = caller(), query.turn()

        def read(c: Connection) -> tuple[list[AccountOut], Place | None]:
            page = views.accounts_page(
                c, who.tenant, wanted, state=query.state, provider=query.provider, principal=query.principal
            )
            of_each = zip(page.rows, healths(c, workflows, page.rows), strict=True)
            return [shapes.account(row, of) for row, of in of_each], page.next

        items, following = requests.read(read)
        return answer_page(items, next=following)

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
        return answer(found)

    @pages.post("/connect-links", responses={201: ConnectLink})
    def create_connect_link(header: IdempotencyHeader, body: ConnectBody) -> Response:
        """Make the link by which a person connects an account. Good once, in one browser, for some minutes."""
        # A request without it is the one it was before there was such a member.
        asked = body.model_dump(mode="json", exclude=None if body.confirm else {"confirm"})
        keyed = Keyed(key=header.idempotency_key, document={"connect": asked})
        made = invitations.invite(
            caller(),
            body.user,
            body.connection,
            scopes=None if body.scopes is None else tuple(body.scopes),
            return_to=body.return_to,
            confirm=body.confirm,
            keyed=keyed,
            now=clock(),
        )
        link = ConnectLink(
            id=made.id,
            url=made.url,
            principal=made.key.principal,
            connection=made.key.connection,
            scopes=list(made.scopes),
            confirm=made.confirm,
            expires_at=made.expires_at,
        )
        return answer(link, 201)

    @pages.post("/connect-links/<id>/confirm", responses={200: ConnectedOut})
    def confirm_connect_link(path: OnePath, body: ConfirmBody) -> Response:
        """Say who came back by a connect link: it connects its own person alone. Said again, it is answered alike.

        Another user or code ends it, and what was granted with it.
        """
        outcome = invitations.confirm(caller(), path.id, user=body.user, code=body.code, now=clock())
        match outcome:
            case None:
                raise Problem(NOT_THERE, "There is no such connect link in this tenant. Ask for a new one.")
            case ConnectRefused(reason=reason, next_step=next_step):
                raise Problem(CONNECT_REFUSED, f"{sentence(reason)} {sentence(next_step)}")
        told = ConnectedOut(
            account=outcome.account,
            principal=outcome.key.principal,
            connection=outcome.key.connection,
            login=outcome.login,
            missing_scopes=list(outcome.missing_scopes),
        )
        return answer(told)
