"""Finding the tenant of a delivery: its signing secret and the installation it names must agree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, select

from identity import audit
from identity.audit import AsWhom
from identity.providers import PROFILES
from identity.sql.prepared import Prepared
from identity.tables import installations, provider_connections
from pipeline.model import SignedDelivery

# Prepared once: every acceptance runs it, and building it takes longer than running it.
_INSTALLED = and_(
    installations.c.connection_id == provider_connections.c.id, installations.c.external_id == bindparam("installation")
)
_WHOSE = Prepared(
    select(
        provider_connections.c.tenant_id.label("owner"),
        provider_connections.c.only_listed,
        installations.c.tenant_id.label("installed"),
        installations.c.organization,
    )
    .select_from(provider_connections.outerjoin(installations, _INSTALLED))
    .where(provider_connections.c.id == bindparam("through"))
)

# Only for providers whose installation ids belong to one app, and to one host: at GitHub Enterprise, 42 is another
# installation. A Slack workspace or a Linear organization may legitimately have both an app of the platform's and a
# tenant's own.
_SIGNED, _OTHER = provider_connections.alias(), provider_connections.alias()
_LISTED = (
    select(installations.c.tenant_id)
    .join(_OTHER, _OTHER.c.id == installations.c.connection_id)
    .join(_SIGNED, and_(_SIGNED.c.provider == _OTHER.c.provider, _SIGNED.c.api_url == _OTHER.c.api_url))
    .where(
        installations.c.external_id == bindparam("installation"),
        _SIGNED.c.id == bindparam("through"),
        _SIGNED.c.provider.in_([profile.name for profile in PROFILES.values() if profile.installation_of_app]),
    )
)


@dataclass(frozen=True, kw_only=True)
class DeliveryTenant:
    """The tenant of a delivery, or why it has none."""

    tenant: str | None
    refusal: str = ""
    trespassed: str | None = None  # the tenant whose secret signed for another's installation
    shown_to: str | None = None  # the tenant whose secret signed for an installation listed for nobody
    by_workspace: bool = False  # its workspace decided, and is not yet known to be of that organization


def whose_delivery(
    connection: Connection, through: str, installation: str | None, workspace: str | None
) -> DeliveryTenant:
    """Return the tenant, by the secret that signed the delivery and the installation it names.

    *workspace* belongs to the organization *installation*; if it is listed itself, its tenant takes precedence.
    """
    named = {"through": through, "installation": installation}
    owner, only_listed, installed, _ = _WHOSE.run(connection, named).one()
    by_workspace = False
    if workspace is not None:
        *_, narrower, known = _WHOSE.run(connection, {"through": through, "installation": workspace}).one()
        if narrower is not None:
            installed, by_workspace = narrower, known != installation
    if owner is None:
        beside = "" if workspace is None else f", nor its workspace {workspace}"
        refusal = f"no tenant has installation {installation}{beside}"
        return DeliveryTenant(tenant=installed, refusal=refusal, by_workspace=by_workspace)
    if installation is not None and installed is None:
        listed = set(connection.execute(_LISTED, named).scalars())
        installed = next(iter(listed)) if listed and owner not in listed else None
    if installed is not None and installed != owner:
        refusal = f"installation {installation} belongs to another tenant than the signing secret"
        return DeliveryTenant(tenant=None, refusal=refusal, trespassed=owner)
    if installation is not None and installed is None and only_listed:
        # Anybody may install a public app, so the list says which installations are the tenant's. That still holds
        # after the last listed one was removed, or deleted at the provider.
        add = f"`aswhom installations add {through} {installation} {owner}`"
        return DeliveryTenant(
            tenant=None,
            refusal=f"{through} lists its installations, and {installation} is not one: {add}",
            shown_to=owner,
        )
    return DeliveryTenant(tenant=owner, by_workspace=by_workspace)


def record_trespass(
    connection: Connection, delivery: SignedDelivery, whose: DeliveryTenant, *, id: str, now: datetime
) -> None:
    audit.record(
        connection,
        "delivery.refused",
        AsWhom(tenant=whose.trespassed),
        id=f"{id}.refused",
        at=now,
        outcome="refused",
        reason=whose.refusal,
        detail={"delivery": id, "connection": delivery.connection, "event": delivery.event},
    )
