"""Decisions for the steps of one run, all under one policy, and what they are based on."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection

from identity.capability.audiences import of_connection
from identity.capability.model import Audience
from identity.connections.registry import connection_for
from identity.model import AccessPattern, ProviderConnection
from identity.policy.decision import Decision, Denied, decide
from identity.policy.rules import Policy
from identity.principals import service_principal
from pipeline.action import Action
from pipeline.authoring.declared_workflow import Workflow
from pipeline.authoring.uses import Who
from pipeline.execution.services import Services
from pipeline.jobs.claims import ClaimedJob
from pipeline.policy.question import prohibition, question_of


class Ground(NamedTuple):
    """The basis of a decision about a provider's action."""

    through: ProviderConnection
    service: str  # the tenant's service principal
    audience: Audience | None  # the upstream as capabilities name it
    policy: Policy  # one for the whole run: the opening refuses what was decided under another


class Decisions:
    """The decisions of one run of one job."""

    def __init__(self, services: Services, workflow: Workflow, job: ClaimedJob) -> None:
        self._services = services
        self._workflow = workflow
        self._job = job
        self._grounds: dict[str, Ground] = {}  # by provider

    def of(self, action: Action[Any], named: Who | None) -> Decision | Denied:
        """Return the principal *action* runs as, given the workflow's *named*, or why it is denied."""
        ground = self.ground_for(action.facts.provider)
        question = question_of(
            self._workflow,
            action,
            agent=self._job.agent,
            named=named,
            triggered=self._job.triggered,
            has_user=self._job.user is not None,
        )
        decision = decide(question, ground.policy)
        if isinstance(decision, Decision) and decision.pattern is AccessPattern.CAPABILITY:
            reason = prohibition(action, ground.audience)
            if reason is not None:
                return Denied(reason=reason, policy=decision.policy, rules=decision.rules)
        return decision

    def ground_for(self, provider: str) -> Ground:
        """Return the basis of decisions about that provider's actions, read once, in one transaction."""
        found = self._grounds.get(provider)
        if found is None:
            tenant, before = self._job.tenant, next(iter(self._grounds.values()), None)

            def look(c: Connection) -> Ground:
                through = connection_for(c, tenant, provider)
                policy = before.policy if before else self._services.policies.current(c, tenant)
                return Ground(through, service_principal(c, tenant).id, of_connection(c, through.id), policy)

            found = self._grounds[provider] = self._services.store.read(look)
        return found
