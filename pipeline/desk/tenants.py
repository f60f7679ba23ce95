"""Operator actions on tenants, and on providers' names for their people and installations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from identity.audit import Act
from identity.connections import installations
from identity.connections.registry import get_connection, lock_connection
from identity.errors import BadInput
from identity.model import AccountKey, PrincipalKind
from identity.people import names_of
from identity.principals import (
    BY_ADMIN,
    ensure_principal,
    ensure_tenant,
    link_alias,
    resolve_alias,
    to_unlink,
    unlink_alias,
)
from identity.providers import PROFILES
from identity.providers.salesforce import SALESFORCE, whole_person
from identity.sql.sequence import lock_exclusive
from pipeline.approvals.bars import user_scope
from pipeline.approvals.votes import unsay
from pipeline.desk.changes import record_change
from pipeline.views import operator_queries

_NAMED = 3  # accounts that a refusal names, each with its command


def add(connection: Connection, id: str, act: Act, *, name: str) -> str:
    """Add a tenant and the service principal that acts for it; return its id. Raises BadInput if the id is taken."""
    if not ensure_tenant(connection, id=id, name=name, now=act.now):
        if operator_queries.tenant(connection, id)["deleted_at"] is not None:
            raise BadInput(f"tenant {id} was deleted, and the audit still names it: take another id")
        raise BadInput(f"there is a tenant {id} already: choose another id")
    service = f"{id}.service"
    ensure_principal(connection, id=service, tenant=id, kind=PrincipalKind.SERVICE, name="service", now=act.now)
    record_change(connection, "tenant.added", id, {"tenant": id, "name": name}, act)
    return service


def add_user(connection: Connection, tenant: str, principal: str, *, now: datetime) -> None:
    """Make the user's principal if it is missing. Raises BadInput."""
    operator_queries.living_tenant(connection, tenant)
    name = principal.removeprefix(f"{tenant}.")
    ensure_principal(connection, id=principal, tenant=tenant, kind=PrincipalKind.USER, name=name, now=now)


def add_alias(
    connection: Connection, act: Act, *, tenant: str, provider: str, external_id: str, principal: str, login: str | None
) -> None:
    """Link a provider's user to this person, who is created if new. Raises BadInput."""
    add_user(connection, tenant, principal, now=act.now)
    if provider not in (known := names_of(connection, tenant)):
        raise BadInput(
            f"no people are known as those of {provider}: it is no provider, and no connection or transmitter that "
            f"tenant {tenant} has gives its people that name. There are {', '.join(sorted(known))}"
        )
    external_id = known_as(provider, external_id)
    linked = link_alias(
        connection,
        tenant=tenant,
        provider=provider,
        external_id=external_id,
        principal=principal,
        login=login,
        made_by=f"{BY_ADMIN}{act.by}",
        now=act.now,
    )
    if not linked:
        holder = resolve_alias(connection, tenant, provider, external_id)
        raise BadInput(
            f"{provider} user {external_id} is linked to {holder}: where that is wrong, take it back with "
            f"`{to_unlink(tenant, provider, external_id)}`"
        )
    detail = {"principal": principal, "provider": provider, "external_id": external_id}
    record_change(connection, "alias.added", tenant, detail, act)


def alias(connection: Connection, tenant: str, provider: str, external_id: str) -> str:
    """Return the principal a provider's user is linked to. Raises BadInput if there is none."""
    principal = resolve_alias(connection, tenant, provider, known_as(provider, external_id))
    if principal is None:
        raise _nobody(tenant, provider, external_id)
    return principal


def remove_alias(
    connection: Connection, act: Act, *, tenant: str, provider: str, external_id: str, principal: str
) -> list[str]:
    """Unlink a provider's user from *principal*. Returns the approvals this voids.

    Raises BadInput if they are linked to nobody or to another. Jobs keep the user they were accepted for, and accounts
    their consent: this changes whom the next delivery means. Approvals that user said yes to are requested again,
    unless their step has opened.
    """
    external_id = known_as(provider, external_id)
    lock_exclusive(connection, user_scope(principal))  # an answer of theirs is counted before this, or not at all
    linked = unlink_alias(connection, tenant=tenant, provider=provider, external_id=external_id)
    if linked is None:
        raise _nobody(tenant, provider, external_id)
    if linked != principal:
        raise BadInput(
            f"{provider} user {external_id} is linked to {linked} by now, and not to {principal}: look again"
        )
    voided = unsay(
        connection, tenant=tenant, principal=principal, provider=provider, external_id=external_id, now=act.now
    )
    detail = {"principal": principal, "provider": provider, "external_id": external_id, "voided": voided}
    record_change(connection, "alias.removed", tenant, detail, act)
    return voided


def known_as(provider: str, external_id: str) -> str:
    """Return a provider's user id as aliases store it: an admin may have copied Salesforce's 15-character form."""
    return whole_person(external_id) if provider == SALESFORCE.name else external_id


def _with_each(ended: Sequence[AccountKey]) -> str:
    """Return the commands that end these accounts; for many, also where to find the rest."""
    with_each = f"with {', '.join(f'`aswhom revoke account {key}`' for key in ended[:_NAMED])}"
    left = len(ended) - _NAMED
    return (
        with_each if left <= 0 else f"{with_each}, and {left} more of `aswhom accounts list --tenant {ended[0].tenant}`"
    )


def _nobody(tenant: str, provider: str, external_id: str) -> BadInput:
    return BadInput(f"nobody is linked to {provider} user {external_id} in {tenant}: see `aswhom aliases list`")


def add_installation(connection: Connection, act: Act, *, connection_id: str, external_id: str, tenant: str) -> bool:
    """Assign an installation of a connection to a tenant. Raises BadInput if it is assigned already, or cannot be.

    Returns whether the tenant's own connection accepted any installation as the tenant's until now.
    """
    owner = operator_queries.provider_connection(connection, connection_id)["tenant_id"]
    operator_queries.living_tenant(connection, tenant)
    if owner not in (None, tenant):
        raise BadInput(f"{connection_id} is {owner}'s own connection: what comes through it is never {tenant}'s")
    took_any = installations.takes_any(connection, connection_id)
    if not installations.add_installation(
        connection, owner=connection_id, external_id=external_id, tenant=tenant, now=act.now
    ):
        raise BadInput(
            f"whose installation {external_id} is was said before: see `aswhom installations list`; "
            f"`aswhom installations remove {connection_id} {external_id}` takes it back"
        )
    detail = {"connection": connection_id, "external_id": external_id}
    record_change(connection, "installation.added", tenant, detail, act)
    return took_any


def list_own(
    connection: Connection, act: Act, *, connection_id: str, external_id: str, tenant: str, instead_of: str | None
) -> Sequence[str]:
    """List an installation that the tenant's service acts through, at the tenant's own connection.

    From then on no other installation is taken for the tenant's: anybody may install a public app, and send by it. That
    includes *instead_of*, through which the service acted before. A platform connection is left alone: there the
    assignment decides whose deliveries are, so it is made explicitly. Returns what this changes, in words.
    """
    if operator_queries.provider_connection(connection, connection_id)["tenant_id"] != tenant:
        return ()
    changes = [only_listed(connection_id, tenant)] if installations.takes_any(connection, connection_id) else []
    if instead_of not in (None, external_id) and installations.remove_installation(
        connection, owner=connection_id, external_id=instead_of, tenant=tenant
    ):
        changes.append(f"installation {instead_of} is no longer listed: what names it is kept as ignored")
        removed = dataclasses.replace(act, audit_id=f"{act.audit_id}.unlisted")
        gone = {"connection": connection_id, "external_id": instead_of}
        record_change(connection, "installation.removed", tenant, gone, removed)
    if installations.add_installation(
        connection, owner=connection_id, external_id=external_id, tenant=tenant, now=act.now
    ):
        detail = {"connection": connection_id, "external_id": external_id}
        listed = dataclasses.replace(act, audit_id=f"{act.audit_id}.listed")
        record_change(connection, "installation.added", tenant, detail, listed)
    return changes


def only_listed(connection_id: str, tenant: str) -> str:
    """Return the effect of the first listing at a tenant's own connection."""
    return (
        f"from now on {connection_id} takes what comes through its listed installations alone: what names another is "
        f"kept as ignored, so list each that is {tenant}'s (`aswhom installations add {connection_id} ID {tenant}`)"
    )


def installation(connection: Connection, connection_id: str, external_id: str) -> str:
    """Return the tenant of a connection's installation. Raises BadInput if it has none."""
    owner = operator_queries.provider_connection(connection, connection_id)["tenant_id"]
    tenant = installations.tenant_of_installation(connection, connection_id, external_id)
    if tenant is None and owner is not None:
        raise BadInput(f"{connection_id}, {owner}'s own, lists no {external_id}: see `aswhom installations list`")
    if tenant is None:
        raise BadInput(f"{connection_id} has no installation {external_id}: see `aswhom installations list`")
    return tenant


def remove_installation(connection: Connection, act: Act, *, connection_id: str, external_id: str, tenant: str) -> None:
    """Take an installation away from *tenant*.

    Raises BadInput if it is nobody's or another's, or while accounts of the tenant act through it and nobody would hear
    of their end.
    """
    lock_connection(connection, connection_id)  # of a tenant's last two, one sees that it is the last
    whose = installation(connection, connection_id, external_id)
    if whose != tenant:
        raise BadInput(
            f"installation {external_id} of {connection_id} is {whose}'s by now, and not {tenant}'s: look again"
        )
    owner = get_connection(connection, connection_id)
    profile = PROFILES.get(owner.provider)
    of_app = profile is not None and profile.installation_of_app
    acting = installations.acting_through(connection, connection_id, external_id, tenant=tenant, of_app=of_app)
    # A tenant's own connection that lists none accepts any installation as the tenant's, so it hears of every end.
    heard = owner.tenant == tenant and installations.is_last_listed(connection, connection_id, external_id)
    if acting and not heard:
        raise BadInput(
            f"{len(acting)} account(s) of {tenant} act through installation {external_id}, and nobody would hear of "
            f"their end at the provider: end them first, {_with_each(acting)}"
        )
    # On PostgreSQL, the provider may have deleted it, and an operator given it to another tenant, since it was read.
    if not installations.remove_installation(connection, owner=connection_id, external_id=external_id, tenant=tenant):
        raise BadInput(f"installation {external_id} of {connection_id} is no longer {tenant}'s: look again")
    detail = {"connection": connection_id, "external_id": external_id}
    record_change(connection, "installation.removed", tenant, detail, act)
