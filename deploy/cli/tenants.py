"""`tenants` and `aliases`: the customers that agents work for, and their people's identities at providers."""

from __future__ import annotations

import click

from deploy.cli.command import YES, command, confirm, in_full
from deploy.cli.output import Output
from deploy.cli.rates import limit_command
from deploy.cli.stops import stop_and_open
from deploy.installation import Installation
from identity.model import Scope, ScopeKind
from pipeline.desk import tenants as acts
from pipeline.desk.rates import limit_tenant
from pipeline.views import operator_queries


@click.group()
def tenants() -> None:
    """The customers that agents work for."""


@command(tenants)
@click.argument("id")
@click.option("--name", help="The display name.  [default: its id]")
def add(at: Installation, out: Output, id: str, name: str | None) -> None:
    """Add a tenant, and the service principal that acts for it."""
    act = at.act()
    service = at.write(lambda c: acts.add(c, id, act, name=name or id))
    out.done(f"tenant {id}, which acts as {service} where it acts as itself", {"id": id, "service": service})


@command(tenants, "list")
def list_tenants(at: Installation, out: Output) -> None:
    """List the tenants."""
    out.rows(
        at.read(operator_queries.all_tenants),
        ("id", "name", "webhook_rate", "created_at", "deleted_at"),
        empty="No tenant yet: `aswhom tenants add acme`",
    )


def _tenant_scope(at: Installation, id: str) -> tuple[Scope, str | None]:
    found = at.read(lambda c: operator_queries.living_tenant(c, id))
    return Scope(kind=ScopeKind.TENANT, key=found["id"]), found["id"]


stop_and_open(tenants, _tenant_scope, what="tenant")
limit_command(
    tenants,
    limit_tenant,
    column="webhook_rate",
    help="Limit the webhook deliveries that a tenant's connections take, all together, to RATE a minute.\n\nWithin ten "
    "seconds, every web process goes by it.",
    default="ASWHOM_WEBHOOK_TENANT_RATE holds",
)


@click.group()
def aliases() -> None:
    """Links between people and their accounts at providers, made by a completed connect or here."""


@command(aliases, "add")
@click.option("--tenant", required=True)
@click.option("--user", required=True, help="Their name or principal id.")
@click.option("--provider", required=True, help="github, linear, slack …")
@click.option("--external-id", required=True, help="Their id at the provider: a number at GitHub, not a login.")
@click.option("--login", help="Their login at the provider, for display.")
def add_alias(
    at: Installation, out: Output, tenant: str, user: str, provider: str, external_id: str, login: str | None
) -> None:
    """Link a provider's user to a person."""
    principal, act = in_full(tenant, user), at.act()
    at.write(
        lambda c: acts.add_alias(
            c, act, tenant=tenant, provider=provider, external_id=external_id, principal=principal, login=login
        )
    )
    out.done(f"{provider} user {login or external_id} is {principal}", {"principal": principal})


@command(aliases, "remove")
@click.option("--tenant", required=True)
@click.option("--provider", required=True, help="As shown by `aliases list`.")
@click.option("--external-id", required=True, help="The provider's id, as shown by `aliases list`.")
@YES
def remove_alias(at: Installation, out: Output, tenant: str, provider: str, external_id: str, yes: bool) -> None:
    """Unlink a provider's user from a person, for example a wrong link before the right one is made.

    Jobs accepted before keep their user; new ones find nobody. The account that a connect stored keeps its consent:
    `aswhom revoke account ID` ends that. Approvals that this user granted become void and are asked for again, unless
    their step has opened or nobody asks for them any more.
    """
    principal = at.read(lambda c: acts.alias(c, tenant, provider, external_id))
    confirm(f"Unlink {provider} user {external_id} from {principal}?", yes=yes)
    act = at.act()
    voided = at.write(
        lambda c: acts.remove_alias(
            c, act, tenant=tenant, provider=provider, external_id=external_id, principal=principal
        )
    )
    document = {
        "principal": principal,
        "provider": provider,
        "external_id": acts.known_as(provider, external_id),
        "voided": voided,
    }
    void = f"; approvals now void, and asked for again: {', '.join(voided)}" if voided else ""
    out.done(f"{provider} user {external_id} is no longer {principal}, and nobody from now on{void}", document)


@command(aliases, "list")
@click.option("--tenant")
def list_aliases(at: Installation, out: Output, tenant: str | None) -> None:
    """List the links."""
    rows = at.read(lambda c: operator_queries.all_aliases(c, tenant))
    columns = ("tenant_id", "provider", "login", "external_id", "principal_id", "made_by")
    out.rows(rows, columns, empty="Nobody is linked yet: a completed connect links people")
