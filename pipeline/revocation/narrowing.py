"""Narrowings: a signed receipt of when an account lost scopes, and how each call that needed them ended.

It is stored, signed and shown like those of revocations, but nothing is revoked: no rule reads its number, no job is
cancelled and no credential ends. It lists the calls in flight at that number whose actions need a removed scope. The
process that carries it out finds them, since it knows the actions; the request that narrows need not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from identity.accounts.narrowing import Narrowed, narrow
from identity.accounts.scope_bounds import covered
from identity.accounts.states import Account
from identity.audit import Act
from identity.model import AccountKey
from identity.sql.columns import database_now, is_one
from pipeline.action import Action
from pipeline.authoring.registry import Registry
from pipeline.batches import in_batches
from pipeline.revocation.declaration import Cause, Stage, flying, load_without_receipt, under
from pipeline.revocation.tables import NARROWING, revocations
from pipeline.states import AttemptState
from pipeline.tables import IS_OPEN, attempts, job_scopes, jobs, steps

_Needs = Callable[[type[Action[Any]]], bool]


def narrow_account(
    connection: Connection, account: Account, act: Act, *, id: str, keep: tuple[str, ...], source: str, reason: str
) -> Narrowed:
    """Let an account keep only these scopes, effective with this transaction. Raises BadInput as `narrow` does."""
    narrowed = narrow(connection, account, replace(act, why=reason), keep=keep)
    declare_narrowing(connection, account.key, narrowed, Cause(source=source, by=act.by, reason=reason), id=id)
    return narrowed


def declare_narrowing(connection: Connection, key: AccountKey, narrowed: Narrowed, cause: Cause, *, id: str) -> None:
    """Record a narrowing, so that a receipt is made of it. O(1); `Revoker.advance` does the rest."""
    row = {
        "id": id,
        "number": narrowed.number,
        "kind": NARROWING,
        "key": str(key),
        "tenant_id": key.tenant,
        "source": cause.source,
        "signal_id": cause.signal,
        "requested_by": cause.by,
        "reason": cause.reason,
        "state": Stage.EFFECTIVE,
        "effective_at": narrowed.at,
        "moved_at": narrowed.at,
        "collected_at": narrowed.at,  # no credential ends with it
        "narrowing": {name: list(getattr(narrowed, name)) for name in ("had", "keeps", "took")},
    }
    connection.execute(insert(revocations), row)


def find_calls(connection: Connection, revocation: str, workflows: Registry) -> None:
    """Store which calls in flight needed a removed scope, and start waiting for them.

    A call of an action that is not installed here counts: nobody knows that it did not need one.
    """
    row = load_without_receipt(connection, revocation)
    needs = _needing(row.narrowing["had"], row.narrowing["keeps"])
    found = _those(connection, flying(connection, AccountKey.parse(row.key).scope, row.number), needs, workflows)
    reached = update(revocations).where(revocations.c.id == revocation, revocations.c.state == Stage.EFFECTIVE)
    connection.execute(
        reached.values(state=Stage.DRAINING, moved_at=database_now(), calls=[attempt.id for attempt in found])
    )


@dataclass(frozen=True, kw_only=True)
class NarrowingAtStake:
    """The effect of narrowing an account, at the moment of reading."""

    calls_in_flight: int  # that need a scope to be removed
    unknown_calls: int
    jobs: dict[str, int]  # unfinished, by workflow: those with an action that needs one


def preview_narrowing(
    connection: Connection, account: Account, had: Sequence[str], keep: Sequence[str], workflows: Registry
) -> NarrowingAtStake:
    """Count the calls to wait for, and the jobs that may come to need consent. Nothing is locked or changed."""
    needs, mine = _needing(had, keep), account.key.scope
    # Two queries, each worded as its partial index: there may be millions of ended attempts.
    out, unknown = (
        connection.execute(select(attempts).where(under(mine, attempts), which)).all()
        for which in (IS_OPEN, is_one(attempts.c.state, AttemptState.UNKNOWN))
    )
    waiting = (
        select(jobs.c.workflow, func.count().label("number"))
        .join(job_scopes, job_scopes.c.scopes_sha256 == jobs.c.scopes_sha256)
        .where(job_scopes.c.kind == mine.kind, job_scopes.c.key == mine.key, jobs.c.finished_at.is_(None))
        .group_by(jobs.c.workflow)
        .order_by(jobs.c.workflow)
    )
    return NarrowingAtStake(
        calls_in_flight=len(_those(connection, out, needs, workflows)),
        unknown_calls=len(_those(connection, unknown, needs, workflows)),
        jobs={
            row.workflow: row.number
            for row in connection.execute(waiting)
            if (workflow := workflows.find(row.workflow)) is None
            or any(needs(action) for action in workflow.uses if action.facts.provider == account.provider)
        },
    )


def _needing(had: Iterable[str], keeps: Iterable[str]) -> _Needs:
    """Return a test of whether an action needs a scope that *had* allows and *keeps* does not."""

    def needs(action: type[Action[Any]]) -> bool:
        before, after = (covered(action.facts.provider, scopes) for scopes in (had, keeps))
        return bool((action.facts.scopes & before) - after)

    return needs


def _those(connection: Connection, calls: Sequence[Row[Any]], needs: _Needs, workflows: Registry) -> list[Row[Any]]:
    """Return the calls whose actions need a removed scope, or are not known."""
    known = {**workflows.actions}
    for declared in workflows:
        known |= {action.action_name(): action for action in declared.compensating.uses}
    of_step: dict[str, str] = {}
    for some in in_batches([call.step_id for call in calls]):
        named = select(steps.c.id, steps.c.action).where(steps.c.id.in_(some))
        of_step |= {row.id: row.action for row in connection.execute(named)}

    def counts(call: Row[Any]) -> bool:
        action = known.get(of_step[call.step_id])
        return action is None or needs(action)

    return [call for call in calls if counts(call)]
