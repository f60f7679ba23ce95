"""Exclusion of approvers: requesters of a job, and people revoked since, cannot approve it.

The rule is that of openings: a revocation ends all that was accepted before it. A revoked person has no say in a job
accepted earlier, however often it asks, but does in one accepted or replayed later.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, select

from identity.accounts.scopes import all_standings
from identity.model import Scope, ScopeKind
from pipeline.approvals.requesters import requesters
from pipeline.authoring.declared_workflow import COMPENSATION
from pipeline.jobs.intents import Approved
from pipeline.tables import jobs


def barred(connection: Connection, job: str, people: Collection[str]) -> dict[str, str]:
    """Return who of *people* cannot approve *job*, and why. It holds while the caller keeps their locks."""
    workflow, accepted = connection.execute(select(jobs.c.workflow, jobs.c.accepted).where(jobs.c.id == job)).one()
    asked = "asked for it, and whoever asks does not approve"
    if workflow.endswith(COMPENSATION):
        asked = "asked for the job that it compensates, or revoked, and neither approves it"
    why = dict.fromkeys(requesters(connection, job, people), asked)
    for scope, standing in all_standings(connection, map(user_scope, people)).items():
        if standing.stopped:
            why[scope.key] = "is stopped"
        elif standing.revoked >= accepted:
            why[scope.key] = "was revoked since the job was accepted"
    return why


def approver_scopes(approved: Approved | None) -> list[Scope]:
    """Return the scopes an opening locks, so that no approver is revoked or stopped concurrently."""
    return [] if approved is None else [user_scope(one) for one in approved.by]


def user_scope(person: str) -> Scope:
    """Return the scope that is locked while a person's answer is counted."""
    return Scope(kind=ScopeKind.USER, key=person)
