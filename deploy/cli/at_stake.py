"""A sentence on what would end with a scope, for confirmation prompts."""

from __future__ import annotations

from deploy.installation import Installation
from identity.errors import Unavailable
from identity.model import Scope
from pipeline.revoker.preview import preview


def what_depends(at: Installation, scope: Scope) -> str:
    """Describe what depends on a scope, or why that is unknown: an unreadable ledger must not delay a revocation."""
    try:
        stake = at.read(lambda c: preview(c, scope, at.workflows, now=at.now()))
    except Unavailable as fault:
        return f"What depends on it could not be read: {fault}."
    return f"{stake.stopped_jobs} unfinished job(s) and {stake.accounts} active account(s) depend on it."
