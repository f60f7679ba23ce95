"""Notes about filters that name nothing: a typo would otherwise look like an empty result."""

from __future__ import annotations

from collections.abc import Callable, Collection

from deploy.cli.output import Output
from deploy.installation import Installation
from identity.errors import BadInput
from pipeline.views import audit_queries, operator_queries


def tell_unknown(
    at: Installation,
    out: Output,
    *,
    tenant: str | None = None,
    workflow: str | None = None,
    action: str | None = None,
    kind: str | None = None,
) -> None:
    """Print a note for each filter whose value does not exist."""
    if tenant is not None:
        _note(out, lambda: at.read(lambda c: operator_queries.tenant(c, tenant)))
    if workflow is not None:
        _note(out, lambda: at.workflows.get(workflow))
    if action is not None and action not in at.workflows.actions:
        out.note(f"no action is named {action}: there are {_listed(at.workflows.actions)}")
    if kind is not None:
        there = at.read(audit_queries.recent_kinds)
        if not any(one == kind or one.startswith(f"{kind}.") for one in there):
            out.note(f"no recent record is of kind {kind}: there are {_listed(there)}")


def _note(out: Output, look: Callable[[], object]) -> None:
    try:
        look()
    except BadInput as error:
        out.note(str(error))


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) or "none"
