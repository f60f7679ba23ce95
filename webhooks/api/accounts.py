"""Operations on connected accounts: their health, and links by which people connect them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from flask import Response
from flask_openapi.blueprint import APIBlueprint
from sqlalchemy import Connection

from identity.connect.reasons import ConnectRefused
from pipeline.accounts.health import health, healths
from pipeline.accounts.invitations import Invitations
from pipeline.agents_api.callers import Keyed, Requests
from pipeline.authoring.registry import Registry
from pipeline.ledger.paging import Place
from pipeline.views import tenant_views
from pipeline.views.tenant_views import Tenants
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
    ConsenterOut,
    IdempotencyHeader,
    OnePath,
)
from webhooks.pages import sentence
from webhooks.problems import CONNECT_REFUSED, NOT_THERE, Problem

Told = TypeVar("Told")


def account_operations(
    pages: APIBlueprint,
    requests: Requests,
    invitations: Invitations,
    workflows: Registry,
    *,
    clock: Callable[[], datetime],
) -> None:
    @pages.get("/accounts", responses={200: AccountPage})
    def list_accounts(query: AccountsQuery) -> Response:
        """List the connected accounts, newest first, without their credentials."""
        who, wanted = caller(), query.turn()

        def read(c: Connection) -> tuple[list[AccountOut], Place | None]:
            page = tenant_views.accounts_page(
                c,
                who.tenant,
                wanted,
                state=query.state,
                provider=query.provider,
                principal=query.principal,
                usable=query.usable,
            )
            of_each = zip(page.rows, healths(c, workflows, page.rows), strict=True)
            return [shapes.account(row, of) for row, of in of_each], page.next

        items, following = requests.read(read)
        return answer_page(items, next=following)

    @pages.get("/accounts/<id>", responses={200: AccountOut})
    def show_account(path: OnePath) -> Response:
        """Show one connected account: whether a step could use it now, why not, and which scopes are missing."""
        who = caller()

        def read(c: Connection) -> AccountOut | None:
            row = tenant_views.account(c, Tenants.of(who.tenant), path.id)
            return None if row is None else shapes.account(row, health(c, workflows, row))

        found = requests.read(read)
        if found is None:
            raise Problem.not_there("such account", listed="accounts")
        return answer(found)

    @pages.post("/connect-links", responses={201: ConnectLink})
    def create_connect_link(header: IdempotencyHeader, body: ConnectBody) -> Response:
        """Create the link by which a person connects an account. It works once, in one browser, for some minutes."""
        # Omit unset members, so that idempotency keys stay valid from before these members existed.
        left_out = {name for name in ("confirm", "nonce") if not getattr(body, name)}
        asked = body.model_dump(mode="json", exclude=left_out)
        keyed = Keyed(key=header.idempotency_key, document={"connect": asked})
        made = invitations.invite(
            caller(),
            body.user,
            body.connection,
            scopes=None if body.scopes is None else tuple(body.scopes),
            return_to=body.return_to,
            confirm=body.confirm,
            nonce=body.nonce,
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

    @pages.post("/connect-links/<id>/look", responses={200: ConsenterOut})
    def look_at_connect_link(path: OnePath, body: ConfirmBody) -> Response:
        """Show who consented through a connect link that awaits confirmation. This neither confirms nor ends it."""
        seen = _or_problem(
            invitations.look(caller(), path.id, user=body.user, code=body.code, nonce=body.nonce, now=clock())
        )
        told = ConsenterOut(
            principal=seen.key.principal,
            connection=seen.key.connection,
            login=seen.login,
            scopes=list(seen.scopes),
            until=seen.until,
        )
        return answer(told)

    @pages.post("/connect-links/<id>/confirm", responses={200: ConnectedOut})
    def confirm_connect_link(path: OnePath, body: ConfirmBody) -> Response:
        """Confirm who came back through a connect link; it connects only the person it was made for.

        Repeating the request returns the same answer. With the right code, a different user or nonce ends the link and
        withdraws what was granted with it; a wrong code changes nothing.
        """
        outcome = _or_problem(
            invitations.confirm(caller(), path.id, user=body.user, code=body.code, nonce=body.nonce, now=clock())
        )
        told = ConnectedOut(
            account=outcome.account,
            principal=outcome.key.principal,
            connection=outcome.key.connection,
            login=outcome.login,
            missing_scopes=list(outcome.missing_scopes),
        )
        return answer(told)


def _or_problem(outcome: Told | ConnectRefused | None) -> Told:
    """Unwrap the outcome of a link that awaits confirmation. Raises Problem if unknown or refused."""
    if outcome is None:
        raise Problem(NOT_THERE, "There is no such connect link in this tenant. Ask for a new one.")
    if isinstance(outcome, ConnectRefused):
        raise Problem(CONNECT_REFUSED, f"{sentence(outcome.reason)} {sentence(outcome.next_step)}")
    return outcome
