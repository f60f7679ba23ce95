"""Tool requests of agents, accepted: a job of one step, in one transaction with its idempotency key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from sqlalchemy import Connection, select

from identity import audit
from identity.accounts.states import find_account
from identity.agents.api_keys import Caller
from identity.agents.identifiers import fits, identify
from identity.audit import AsWhom, Work
from identity.capability.audiences import of_connection
from identity.connect.barred import barred
from identity.connections.registry import connection_for
from identity.errors import BadInput, Misconfigured
from identity.model import AccountKey, AccountState, Principal, PrincipalKind, ProviderConnection
from pipeline.action import Action
from pipeline.agents_api.requests import Asked, Made, keep_in, once
from pipeline.authoring.registry import Registry
from pipeline.authoring.tool_workflows import ToolCall, tool_workflow_name
from pipeline.authoring.uses import SERVICE, USER, Who
from pipeline.jobs import bells
from pipeline.jobs.new_jobs import NewJob, insert_job
from pipeline.model import Bell
from pipeline.tables import jobs
from pipeline.views import tenant_views


def accept_tool(
    connection: Connection, asked: Asked, workflows: Registry, action: Action[Any], *, identifier: str, request: str
) -> Made:
    """Accept the job of one tool. *request*: the id of the request in the log.

    Raises BadInput, Misconfigured, PolicyDenied, NotLetIn or KeyReused; then nothing was written.
    """

    def make() -> tuple[Bell, ...]:
        caller = asked.caller
        # After the idempotency key's row: a revocation requested with a key takes its lock after that row.
        keep_in(connection, caller, asked.now)
        identified = identify(connection, caller.tenant, identifier)
        if identified.principal.kind is PrincipalKind.USER:
            caller.check_user(identified.principal.id)
        owner = connection_for(connection, caller.tenant, action.facts.provider)
        fits(connection, identified, owner)
        principal = identified.principal
        who = _who(principal)
        if who is USER:
            _check_connectable(connection, owner, principal, action)
        workflow = replace(workflows.for_tool(type(action), who), agent=caller.agent)
        call = ToolCall(parameters=action.model_dump(mode="json"), requested_by=caller.key, held_by=caller.held_by)
        insert_job(
            connection,
            NewJob(
                id=asked.id,
                tenant=caller.tenant,
                workflow=workflow,
                user=principal.id if who is USER else None,
                event=call.model_dump(mode="json"),
                config={},
                request=request,
                # They cannot approve it either: the holder of the key can name anybody as the user.
                replayed_by=caller.people,
            ),
            now=asked.now,
        )
        audit.record(
            connection,
            "tool.requested",
            AsWhom(tenant=caller.tenant, agent=caller.agent, on_behalf_of=principal.id),
            Work(job=asked.id, action=action.action_name()),
            id=f"{asked.id}.requested",
            at=asked.now,
            outcome="accepted",
            reason=f"identifier {identifier}",
            detail={"key": caller.key, "request": request, "idempotent": asked.idempotency_key is not None},
        )
        return bells.ring_due(connection, caller.tenant, workflow.pattern)

    def same(connection: Connection, made: str) -> bool:
        """True if the earlier job is the same request: a default spelled out, or `tenant:acme` for `acme`."""
        row = connection.execute(select(jobs).where(jobs.c.id == made)).one_or_none()
        if row is None:
            return False
        try:
            principal = identify(connection, asked.caller.tenant, identifier).principal
        except BadInput:
            return False
        who = _who(principal)
        wanted = (tool_workflow_name(type(action), who), principal.id if who is USER else None)
        parameters = action.model_dump(mode="json")
        return (row.workflow, row.user_id, row.event.get("parameters")) == (*wanted, parameters)

    return once(connection, replace(asked, same=same), make, exists=jobs.c.id, look=tenant_views.job)


def usable(
    connection: Connection, caller: Caller, offered: Sequence[type[Action[Any]]], *, identifier: str
) -> list[type[Action[Any]]]:
    """Return the offered actions not refused outright for *identifier*; parameters and policy are not checked.

    Raises UnknownIdentifier, BadInput or PolicyDenied.
    """
    principal = identify(connection, caller.tenant, identifier).principal
    who = _who(principal)
    if who is USER:
        caller.check_user(principal.id)

    @cache
    def reached(provider: str) -> ProviderConnection | None:
        try:
            return connection_for(connection, caller.tenant, provider)
        except Misconfigured:
            return None

    def fits_whom(action: type[Action[Any]]) -> bool:
        owner = reached(action.facts.provider)
        if owner is None:
            return False
        if who is SERVICE:
            return not action.facts.attribution
        return _lacking(connection, owner, principal) is None

    return [action for action in offered if fits_whom(action)]


def _who(principal: Principal) -> Who:
    return USER if principal.kind is PrincipalKind.USER else SERVICE


def _check_connectable(connection: Connection, owner: ProviderConnection, user: Principal, action: Action[Any]) -> None:
    """Refuse a job that would wait for a consent nobody can give. Raises Misconfigured."""
    if (lacking := _lacking(connection, owner, user)) is not None:
        raise Misconfigured(
            f"{user.id} is not connected to {owner.id}, and nobody can connect there as themselves: {lacking}"
        )


def _lacking(connection: Connection, owner: ProviderConnection, user: Principal) -> str | None:
    """Return why *user* cannot connect there; None: they can, already did, or need not."""
    if of_connection(connection, owner.id) is not None:
        return None  # capabilities need no account
    account = find_account(connection, AccountKey(tenant=user.tenant, connection=owner.id, principal=user.id))
    if account is not None and account.state is not AccountState.PENDING:
        return None
    return barred(connection, owner)
