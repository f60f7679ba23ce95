"""`installations`: whose an installation of a connection is."""

from __future__ import annotations

import click

from deploy.cli.command import YES, command, confirm
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.connections.installations import is_last_listed
from identity.providers import PROFILES
from pipeline.desk import tenants as acts
from pipeline.ledger import operator_queries


@click.group()
def installations() -> None:
    """Whose an installation of a connection is: by the platform's own, the tenant of a delivery is found by it."""


@command(installations, "add")
@click.argument("connection")
@click.argument("external_id")
@click.argument("tenant")
def add_installation_of(at: Installation, out: Output, connection: str, external_id: str, tenant: str) -> None:
    """Say that installation (or workspace, or organization) EXTERNAL_ID of CONNECTION is TENANT's.

    A tenant's own connection takes any for the tenant's until its first is listed, and from then on none but those that
    are: list each. A workspace or organization goes by its id (at Linear its UUID), not its name.
    """
    act, place = at.act(), {"connection_id": connection, "external_id": external_id, "tenant": tenant}
    took_any = at.write(lambda c: acts.add_installation(c, act, **place))
    document = {"connection": connection, "external_id": external_id, "tenant": tenant}
    done = f"installation {external_id} of {connection} is {tenant}'s"
    out.done(f"{done}. {acts.only_listed(connection, tenant)}" if took_any else done, document)


@command(installations, "remove")
@click.argument("connection")
@click.argument("external_id")
@YES
def remove_installation_of(at: Installation, out: Output, connection: str, external_id: str, yes: bool) -> None:
    """Take back whose installation EXTERNAL_ID of CONNECTION is, so that it can be another tenant's.

    One of a tenant's own connection is no longer listed, and its deliveries are kept as ignored: those of the last one
    too, since anybody may install a public app. What is said of the end of any workspace or organization is the
    tenant's then, so that none is lost: list another one before. Jobs that its deliveries have begun stay the tenant's
    they were begun for. It is refused while the tenant's accounts act through it, whose end the provider says by it
    alone: a service's by its id, and in a workspace everybody's, unless the tenant has another one there. Revoke those
    first. The last that a tenant's own connection lists may go before.
    """
    tenant = at.read(lambda c: acts.installation(c, connection, external_id))
    owner = at.read(lambda c: operator_queries.provider_connection(c, connection))
    if owner["tenant_id"] == tenant:
        then = "what names it is kept as ignored from now on, and no provider sends it again"
        if at.read(lambda c: is_last_listed(c, connection, external_id)):
            then += f"; none is listed then, so {connection} takes nothing that names an installation until one is"
            profile = PROFILES.get(owner["provider"])
            if profile is not None and not profile.installation_of_app:
                then += (
                    f", but for the end of any workspace or organization: it ends {tenant}'s accounts, whosever it is"
                )
        question = f"No longer list installation {external_id} of {connection} ({then})?"
        done = f"installation {external_id} of {connection} is no longer listed: {then}"
    else:
        question = f"Let installation {external_id} of {connection}, {tenant}'s, be nobody's?"
        done = f"installation {external_id} of {connection} is no longer {tenant}'s"
    confirm(question, yes=yes)
    act = at.act()
    at.write(
        lambda c: acts.remove_installation(c, act, connection_id=connection, external_id=external_id, tenant=tenant)
    )
    out.done(done, {"connection": connection, "external_id": external_id, "tenant": tenant})


@command(installations, "list")
def list_installations(at: Installation, out: Output) -> None:
    """Whose is which."""
    columns = ("connection_id", "external_id", "tenant_id", "created_at")
    out.rows(at.read(operator_queries.all_installations), columns, empty="None yet: `aswhom installations add`")
