"""`installations`: which tenant owns an installation of a connection."""

from __future__ import annotations

import click

from deploy.cli.command import YES, command, confirm
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.connections.installations import is_last_listed
from identity.providers import PROFILES
from pipeline.desk import tenants as acts
from pipeline.views import operator_queries


@click.group()
def installations() -> None:
    """Which tenant owns which installation. For the platform's connections, this finds the tenant of a delivery."""


@command(installations, "add")
@click.argument("connection")
@click.argument("external_id")
@click.argument("tenant")
def add_installation_of(at: Installation, out: Output, connection: str, external_id: str, tenant: str) -> None:
    """Record that installation (or workspace, or organization) EXTERNAL_ID of CONNECTION belongs to TENANT.

    A tenant's own connection accepts every installation until the first one is listed. From then on it accepts only
    listed ones, so list each of them. Identify a workspace or organization by its id (at Linear its UUID), not its
    name.
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
    """Remove the record of who owns installation EXTERNAL_ID of CONNECTION, so that another tenant can own it.

    On a tenant's own connection the installation is no longer listed, and its deliveries are stored as ignored. That
    also holds after the last one is removed, since anybody may install a public app. But with none listed, a signal
    that any workspace or organization ended counts as the tenant's, so that none is lost: list another one first. Jobs
    that its deliveries started keep their tenant.

    The command is refused while the tenant has accounts whose end the provider only signals through this installation:
    service accounts by its id, and in a workspace everybody's, unless the tenant has another one there. Revoke those
    accounts first. The last installation that a tenant's own connection lists may be removed before they are.
    """
    tenant = at.read(lambda c: acts.installation(c, connection, external_id))
    owner = at.read(lambda c: operator_queries.provider_connection(c, connection))
    if owner["tenant_id"] == tenant:
        then = "deliveries that name it are stored as ignored from now on, and no provider sends them again"
        if at.read(lambda c: is_last_listed(c, connection, external_id)):
            then += f"; none is listed then, so {connection} ignores everything that names an installation until one is"
            profile = PROFILES.get(owner["provider"])
            if profile is not None and not profile.installation_of_app:
                then += (
                    f", except that the end of any workspace or organization ends {tenant}'s accounts, whoever owned it"
                )
        question = f"No longer list installation {external_id} of {connection} ({then})?"
        done = f"installation {external_id} of {connection} is no longer listed: {then}"
    else:
        question = f"Take installation {external_id} of {connection} from {tenant}, so that nobody owns it?"
        done = f"installation {external_id} of {connection} is no longer {tenant}'s"
    confirm(question, yes=yes)
    act = at.act()
    at.write(
        lambda c: acts.remove_installation(c, act, connection_id=connection, external_id=external_id, tenant=tenant)
    )
    out.done(done, {"connection": connection, "external_id": external_id, "tenant": tenant})


@command(installations, "list")
def list_installations(at: Installation, out: Output) -> None:
    """List installations and the tenants that own them."""
    columns = ("connection_id", "external_id", "tenant_id", "created_at")
    out.rows(at.read(operator_queries.all_installations), columns, empty="None yet: `aswhom installations add`")
