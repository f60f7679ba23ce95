"""Operator actions on provider connections, each with its audit row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import ColumnClause, Connection, column, exists, func, inspect, or_, select, table

from identity import people
from identity.accounts.stops import set_stopped
from identity.audit import Act
from identity.connect_sessions.sessions import forget_sessions, latest_link
from identity.connect_sessions.tables import connect_sessions
from identity.connections.discovery import Metadata
from identity.connections.registration import (
    Change,
    audited_values,
    authentication_fields,
    changed_fields,
    client_fields,
)
from identity.connections.registry import (
    add_connection,
    get_connection,
    lock_against_references,
    lock_connection,
    paused_reason,
    remove_connection,
    rewrite_connection,
)
from identity.connections.registry import resume_connection as use_again
from identity.connections.secrets import SealedSecret, add_secret
from identity.errors import BadInput
from identity.http.addresses import AddressPolicy
from identity.model import ProviderConnection, Scope, ScopeKind
from identity.providers.profile import Profile
from identity.tables import accounts, connection_secrets, grants, provider_connections, transmitters
from identity.transmitters import leave_connection
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import MOVES
from pipeline.deliveries.redeliveries import forget_asked
from pipeline.desk.changes import record_change
from pipeline.tables import attempts
from pipeline.views import operator_queries


def add(connection: Connection, owner: ProviderConnection, secrets: Sequence[SealedSecret], act: Act) -> None:
    """Add a provider connection with its secrets.

    Raises BadInput if its id is taken, its tenant does not exist, or its users would be confused with other people.
    """
    if owner.tenant is not None:
        operator_queries.living_tenant(connection, owner.tenant)
    if (why := people.taken_for(connection, owner)) is not None:
        raise BadInput(f"{why}: give its people a name that nobody else's have, as with --config people={owner.id}")
    if not add_connection(connection, owner, now=act.now):
        raise BadInput(
            f"there is a provider connection {owner.id} already: choose another id, with --id if you named none"
        )
    for secret in secrets:
        add_secret(connection, secret)
    detail = {
        "connection": owner.id,
        "provider": owner.provider,
        "client_id": owner.client_id,
        "api_url": owner.api_url,
        "token_url": owner.token_url,
        "secrets": [secret.id for secret in secrets],
    }
    record_change(connection, "connection.added", owner.tenant, detail, act)


def readdress(
    connection: Connection, id: str, found: Metadata, act: Act
) -> tuple[ProviderConnection, ProviderConnection]:
    """Use the endpoints its issuer names now, and expect `iss` only if the issuer says that it sends it.

    Endpoints it no longer names stay, as they may have been set by hand. A connection paused by the former token
    endpoint's refusal resumes if the endpoint changes. Returns the connection before and after. Raises Misconfigured.
    """
    lock_connection(connection, id)
    before = get_connection(connection, id)  # keeps changes made by others since the issuer was asked
    kept = {name: value for name, value in before.config.items() if name != "sends_iss"}
    after = replace(
        before, authorize_url=found.authorize_url, token_url=found.token_url, config={**kept, **found.config()}
    )
    if after != before:
        rewrite_connection(connection, after)
        detail = {"connection": id, "authorize_url": after.authorize_url, "token_url": after.token_url}
        record_change(connection, "connection.discovered", after.tenant, detail, act)
        if after.token_url != before.token_url:
            _use_again(connection, after, replace(act, audit_id=f"{act.audit_id}.resumed"))
    return before, after


def name_people(connection: Connection, id: str, name: str, act: Act) -> int:
    """Give the connection's users a name of their own; return how many aliases moved.

    Raises BadInput if it is taken.
    """
    lock_connection(connection, id)
    owner = get_connection(connection, id)
    moved = people.name_people(connection, owner, name)
    detail = {"connection": id, "people": name, "before": owner.people, "moved": moved}
    record_change(connection, "connection.people_named", owner.tenant, detail, act)
    return moved


def change(
    connection: Connection, id: str, change: Change, profile: Profile, policy: AddressPolicy, act: Act
) -> list[str]:
    """Correct a connection, effective from its next use; return the changed fields. Raises BadInput.

    The client it requests tokens as cannot change once it has accounts: only the client that won their tokens can renew
    and end them. A change of how it authenticates resumes a paused connection, as a new secret does: earlier refusals
    no longer count.
    """
    lock_against_references(connection, id)
    before = get_connection(connection, id)
    after = change.of(before, profile, policy)
    if names := changed_fields(before, after):
        bound = client_fields(profile).intersection(names)
        if bound and (held := _accounts(connection, id)):
            raise BadInput(
                f"{id} has {held} account(s), and only its present client can renew and end their tokens: "
                f"{min(bound)} stays. Add another connection, under another id, then `aswhom connections stop {id}`: "
                "of those that fit a tenant, a stopped one does not count"
            )
        rewrite_connection(connection, after)
        detail = {"connection": id, "changed": names, "before": audited_values(before, names)}
        detail["after"] = audited_values(after, names)
        record_change(connection, "connection.changed", after.tenant, detail, act)
        if authentication_fields(profile).intersection(names):
            _use_again(connection, after, replace(act, audit_id=f"{act.audit_id}.resumed"))
    return names


def _accounts(connection: Connection, id: str) -> int:
    """Count accounts with a grant or an unfinished withdrawal, in any state.

    A revoked account may still have tokens to end at the provider.
    """
    won = exists().where(grants.c.account_id == accounts.c.id)
    unended = exists().where(withdrawals.c.account_id == accounts.c.id, withdrawals.c.state.not_in(MOVES.terminal))
    held = select(func.count()).where(accounts.c.connection_id == id, or_(won, unended))
    return connection.execute(held).scalar_one()


def _use_again(connection: Connection, owner: ProviderConnection, act: Act) -> bool:
    """Forget the provider's earlier refusals. True: something had paused the connection."""
    paused = paused_reason(connection, owner.id) is not None
    use_again(connection, owner.id)
    detail = {"connection": owner.id, "was_paused": paused}
    record_change(connection, "connection.resumed", owner.tenant, detail, act)
    return paused


def remove(connection: Connection, id: str, act: Act) -> None:
    """Delete a connection, its secrets, and its expired connect links.

    Raises BadInput, with what is in the way, while anything refers to it. A stop ends with it: a later connection with
    its id is not stopped.
    """
    tenant = operator_queries.provider_connection(connection, id)["tenant_id"]
    # Before the rows, as an opening locks its scopes first. What an opening wrote is therefore seen below, including
    # attempts, which have no foreign key; one that waits for the lock finds no connection, stopped or not.
    scope, opened = Scope(kind=ScopeKind.CONNECTION, key=id), replace(act, audit_id=f"{act.audit_id}.opened")
    was_stopped = set_stopped(connection, scope, opened, stopped=False, tenant=tenant)
    lock_against_references(connection, id)
    owner = get_connection(connection, id)
    forget_sessions(connection, id, now=act.now)
    leave_connection(connection, id)
    if found := _references(connection, id):
        raise BadInput(
            f"{id} has a history, which is kept: {', '.join(found)}. Correct it with `aswhom connections set {id}`, "
            f"or let nothing go through it with `aswhom connections stop {id}`: another one can take its place then"
        )
    if links := people.links_left(connection, owner):
        raise BadInput(
            f"{links} people are linked as {owner.people}'s, and would be taken for those of whatever server comes "
            "under that name next: see `aswhom aliases list`"
        )
    remove_connection(connection, id)
    forget_asked(connection, id)
    detail = {"connection": id, "provider": owner.provider, "client_id": owner.client_id, "was_stopped": was_stopped}
    record_change(connection, "connection.removed", owner.tenant, detail, act)


def resume(connection: Connection, id: str, act: Act) -> bool:
    """Fetch tokens through it again; False: it was in use. Raises BadInput if there is none.

    In either case, the provider's answer to an earlier request no longer pauses it.
    """
    operator_queries.provider_connection(connection, id)
    lock_connection(connection, id)
    return _use_again(connection, get_connection(connection, id), act)


def _references(connection: Connection, id: str) -> list[str]:
    """Return what refers to it, in words, by the database's foreign keys; its secrets are deleted with it.

    Attempts name it without a foreign key: those with an account refer to one of its accounts, the rest are calls with
    capabilities.
    """
    found = []
    for (_, name), keys in sorted(inspect(connection).get_multi_foreign_keys().items()):
        referring = [key for key in keys if key["referred_table"] == provider_connections.name]
        for key in referring if name != connection_secrets.name else ():
            to: ColumnClause[str] = column(key["constrained_columns"][0])
            if number := connection.execute(select(func.count()).select_from(table(name)).where(to == id)).scalar_one():
                found.append(f"{name} ({number}{_in_the_way(connection, name, id)})")
    calls = exists().where(attempts.c.account_id == "", attempts.c.connection_id == id)
    if connection.execute(select(calls)).scalar_one():
        found.append("calls with capabilities")
    return found


def _in_the_way(connection: Connection, table: str, id: str) -> str:
    """Return until when rows of *table* block the deletion, if they go at all."""
    if table == transmitters.name:
        return ", until `aswhom transmitters remove`"
    if table == connect_sessions.name:
        until = latest_link(connection, id)
        return f", connect links that work until {until:%Y-%m-%d %H:%M} UTC" if until else ""
    return ""
