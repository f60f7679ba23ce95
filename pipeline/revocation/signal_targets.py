"""Targets of a signal: accounts of its provider connection, found by the sender's own ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, false, select

from identity.connections.installations import were_seen, whose_installations
from identity.model import AccountKey, Credential
from identity.tables import accounts, grants, installations
from pipeline.signal import Asks, Bots, Holders, Installation, Nobody, People, Signal, Whom, Workspaces


def accounts_meant(
    connection: Connection, through: str, whom: Iterable[Whom], *, tenant: str | None = None
) -> list[AccountKey]:
    """Return the accounts of this connection that the signal affects, in lock order. *tenant*: only this tenant's."""
    condition: ColumnElement[bool] = false()
    for one in whom:
        condition |= _condition(connection, through, one)
    found = (
        select(accounts.c.tenant_id, accounts.c.principal_id)
        .select_from(accounts.outerjoin(grants, grants.c.account_id == accounts.c.id))
        .where(accounts.c.connection_id == through, condition)
    )
    if tenant is not None:
        found = found.where(accounts.c.tenant_id == tenant)
    rows = connection.execute(found)
    keys = {AccountKey(tenant=row.tenant_id, connection=through, principal=row.principal_id) for row in rows}
    return sorted(keys, key=str)


@dataclass(frozen=True, kw_only=True)
class Unreached:
    """A revocation that matches nobody although it may mean accounts of ours, with advice."""

    says: str
    seen: bool  # somebody has connected in the place that is listed for no tenant


def unlisted_place(connection: Connection, through: str, signal: Signal) -> Unreached | None:
    """Return the first revoked place that is listed for no tenant, or None.

    The sender was answered and will not repeat it, so accounts connected there stay active here.
    """
    for one in signal.whom if signal.asks is Asks.REVOKE else ():
        match one:
            case Workspaces(ids=ids, within=within) | Bots(workspaces=ids, within=within):
                if not whose_installations(connection, through, ids, within=within).tenants:
                    named = sorted(ids)
                    add = f"`aswhom installations add {through} {named[0]} TENANT`"
                    says = f"no tenant has {', '.join(named)}: if one has, end its accounts by hand, and list it: {add}"
                    around = ids if within is None else {*ids, within}
                    return Unreached(says=says, seen=were_seen(connection, through, around))
            case _:
                pass
    return None


def unknown_people(connection: Connection, through: str, signal: Signal) -> Unreached | None:
    """Return the first revoked people of a listed place, or None. The caller knows that they have no account here.

    Slack gives a person of a workspace that joined an organization a second id; the stored one is the consent's.
    """
    for one in signal.whom if signal.asks is Asks.REVOKE else ():
        match one:
            case People(ids=ids, workspaces=places, within=within) if places:
                if whose_installations(connection, through, places, within=within).tenants:
                    named, where = (", ".join(sorted(some)) for some in (ids, places))
                    hand = "if one is a user of yours under another id, end it by hand: `aswhom revoke account`"
                    return Unreached(says=f"no account is of {named} in {where}: {hand}", seen=False)
            case _:
                pass
    return None


def _condition(connection: Connection, through: str, whom: Whom) -> ColumnElement[bool]:
    person = accounts.c.credential == Credential.AUTHORIZATION_CODE
    match whom:
        case People(ids=ids, workspaces=workspaces, within=within):
            named = person & accounts.c.external_id.in_(ids)
            whose = whose_installations(connection, through, workspaces, within=within)
            if not whose.tenants:  # a place listed for no tenant limits nothing: whose people connected is not known
                return named
            # Nor is it known where the people of a tenant without a listing connected.
            placed = select(installations.c.tenant_id).where(installations.c.connection_id == through)
            return named & (accounts.c.tenant_id.in_(whose.tenants) | accounts.c.tenant_id.not_in(placed))
        case Installation(id=id):
            return (accounts.c.credential == Credential.INSTALLATION) & (accounts.c.external_id == id)
        case Workspaces(ids=ids, within=within):
            whose = whose_installations(connection, through, ids, within=within)
            return accounts.c.tenant_id.in_(whose.tenants)
        case Bots(workspaces=workspaces, ids=ids, within=within):
            whose = whose_installations(connection, through, workspaces, within=within)
            named = accounts.c.external_id.is_(None) | accounts.c.external_id.in_(ids | workspaces | whose.listed)
            return accounts.c.tenant_id.in_(whose.tenants) & ~person & named
        case Holders(digest=digest, of_prefix=of_prefix):
            column = grants.c.refresh_prefix_digest if of_prefix else grants.c.refresh_digest
            return column == digest
        case Nobody():
            return false()
