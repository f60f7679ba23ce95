"""Workflows that are enabled, or have unfinished jobs, but are not installed here."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from identity.tables import tenants
from pipeline.authoring.registry import Registry
from pipeline.tables import jobs, workflow_settings

_IS_ON = workflow_settings.c.enabled & workflow_settings.c.tenant_id.in_(
    select(tenants.c.id).where(tenants.c.deleted_at.is_(None))
)


@dataclass(frozen=True, kw_only=True)
class MissingWorkflow:
    """A workflow that only the ledger knows."""

    name: str
    on_for: tuple[str, ...]  # tenants
    unfinished: int  # jobs

    @property
    def sentence(self) -> str:
        """The fault, and what to do."""
        on = f", is on for {', '.join(self.on_for)}" if self.on_for else ""
        waits = f", and {self.unfinished} job(s) of it wait" if self.unfinished else ""
        off = f", or `aswhom workflows disable {self.name} --tenant {self.on_for[0]}`" if self.on_for else ""
        off += f", or `aswhom jobs list --workflow {self.name}` and cancel them" if self.unfinished else ""
        return f"{self.name} is not installed{on}{waits}: is its module in ASWHOM_WORKFLOWS? Install it{off}"


def not_installed(connection: Connection, workflows: Registry, *, tenant: str | None = None) -> list[str]:
    """Return the workflows enabled for one tenant, or for any, that are not installed.

    A web process without them ignores their deliveries.
    """
    on = select(workflow_settings.c.workflow).where(_IS_ON).distinct()
    if tenant is not None:
        on = on.where(workflow_settings.c.tenant_id == tenant)
    return sorted(name for name in connection.execute(on).scalars() if workflows.find(name) is None)


def missing_workflows(
    connection: Connection, workflows: Registry, *, tenant: str | None = None
) -> list[MissingWorkflow]:
    """Return the missing workflows of one tenant, or of all, by name."""
    on = select(workflow_settings.c.workflow, workflow_settings.c.tenant_id).where(_IS_ON)
    unfinished = select(jobs.c.workflow, func.count()).where(jobs.c.finished_at.is_(None)).group_by(jobs.c.workflow)
    if tenant is not None:
        on = on.where(workflow_settings.c.tenant_id == tenant)
        unfinished = unfinished.where(jobs.c.tenant_id == tenant)
    on_for: dict[str, list[str]] = {}
    for name, whose in connection.execute(on.order_by(workflow_settings.c.tenant_id)):
        on_for.setdefault(name, []).append(whose)
    waiting: dict[str, int] = dict(connection.execute(unfinished).all())
    return [
        MissingWorkflow(name=name, on_for=tuple(on_for.get(name, ())), unfinished=waiting.get(name, 0))
        for name in sorted(on_for.keys() | waiting.keys())
        if workflows.find(name) is None
    ]
