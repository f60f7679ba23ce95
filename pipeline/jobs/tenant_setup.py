"""Setup of a tenant for the jobs of a delivery, read in one statement: settings, people, service, connections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, select

from identity.connections.registry import fitting_id
from identity.principals import FIRST_SERVICE, LAST_SERVICE, alias_of, only_service
from identity.sql.prepared import Prepared
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.matching import Match
from pipeline.events import ExternalUser
from pipeline.jobs.pins import enabled_of


@dataclass(frozen=True, kw_only=True)
class TenantSetup:
    """The setup of a tenant, for certain workflows and people."""

    tenant: str
    configs: Mapping[str, Mapping[str, Any]]  # of those workflows that are enabled
    people: Mapping[tuple[str, str], str]  # linked users by provider and the provider's id
    services: tuple[str, ...]  # at most two are read, which stand for more
    connections: Mapping[str, str]  # of providers for which exactly one fits

    @property
    def service(self) -> str:
        """The tenant's service principal. Raises Misconfigured if there is none, or more than one."""
        return only_service(self.tenant, self.services)

    def principal(self, user: ExternalUser | None) -> str | None:
        """Return the principal linked to a provider's user, if any."""
        return None if user is None else self.people.get((user.provider, user.id))


def setup_for(
    connection: Connection, tenant: str, through: str, matches: Sequence[Match], *, also: Sequence[Workflow] = ()
) -> TenantSetup:
    """Read the setup for what a delivery through that connection would start, and whether *also* are enabled."""
    users = {(match.user.provider, match.user.id) for match in matches if match.user is not None}
    workflows = [*(match.workflow for match in matches), *also]
    return setup_of(connection, tenant, workflows, users=users, through=through)


def setup_of(
    connection: Connection,
    tenant: str,
    workflows: Sequence[Workflow],
    *,
    users: Iterable[tuple[str, str]] = (),
    through: str | None = None,
) -> TenantSetup:
    """Read the setup for these workflows, and these *users* as the provider connection *through* names them."""
    names = sorted({workflow.name for workflow in workflows})
    reached = sorted({provider for workflow in workflows for provider in workflow.providers})
    named = sorted(users)
    bound: dict[str, str | None] = {"tenant": tenant, "through": through}
    bound |= {f"workflow_{place}": name for place, name in enumerate(names)}
    bound |= {f"reached_{place}": provider for place, provider in enumerate(reached)}
    for place, (provider, external) in enumerate(named):
        bound |= {f"provider_{place}": provider, f"external_{place}": external}
    first, last, *found = _statement(len(names), len(named), len(reached)).run(connection, bound).one()
    configs, found = found[: len(names)], found[len(names) :]
    people, connections = found[: len(named)], found[len(named) :]
    return TenantSetup(
        tenant=tenant,
        configs={name: config for name, config in zip(names, configs, strict=True) if config is not None},
        people={user: principal for user, principal in zip(named, people, strict=True) if principal is not None},
        services=() if first is None else (first,) if first == last else (first, last),
        connections={name: one for name, one in zip(reached, connections, strict=True) if one is not None},
    )


@cache
def _statement(workflows: int, users: int, providers: int) -> Prepared:
    """Build the statement once per shape: every acceptance runs one."""
    return Prepared(
        select(
            FIRST_SERVICE,
            LAST_SERVICE,
            *(enabled_of(f"workflow_{place}").scalar_subquery().label(f"config_{place}") for place in range(workflows)),
            *(
                alias_of(f"provider_{place}", f"external_{place}").scalar_subquery().label(f"person_{place}")
                for place in range(users)
            ),
            *(
                fitting_id(f"reached_{place}").scalar_subquery().label(f"connection_{place}")
                for place in range(providers)
            ),
        )
    )
