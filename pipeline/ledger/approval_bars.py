"""Who does not approve a job, whatever they say: whoever asked for it, and whoever has lost their authority since.

The rule is the one of openings: a revocation ends all that was accepted before it, so somebody revoked has no word
about a job that was accepted earlier, however often it asks; about a later one, or one accepted anew, they have.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, select

from identity.model import Scope, ScopeKind
from identity.scopes import all_standings
from pipeline.ledger.intents import Approved
from pipeline.ledger.requesters import requesters
from pipeline.tables import jobs


def barred(connection: Connection, job: str, people: Collection[str]) -> dict[str, str]:
    """Those of *people* who do not approve *job*, and why. What it says lasts while the caller holds their locks."""
    asked = requesters(connection, job, people)
    why = dict.fromkeys(asked, "asked for it, and whoever asks does not approve")
    accepted = connection.execute(select(jobs.c.accepted).where(jobs.c.id == job)).scalar_one()
    for scope, standing in all_standings(connection, map(user_scope, people)).items():
        if standing.stopped:
            why[scope.key] = "is stopped"
        elif standing.revoked >= accepted:
            why[scope.key] = "was revoked since the job was accepted"
    return why


def approver_scopes(approved: Approved | None) -> list[Scope]:
    """What an opening locks, so that no approver is revoked or stopped beside it."""
    return [] if approved is None else [user_scope(one) for one in approved.by]


def user_scope(person: str) -> Scope:
    """What is locked while somebody's word is counted."""
    return Scope(kind=ScopeKind.USER, key=person)
