"""The duties of housekeeping, assembled on a runtime. Only the process that runs them builds their parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial

from identity.audit.sealer import Sealer
from identity.providers import PROFILES
from identity.refresh.keepalive import Keepalive, paced_by
from identity.refresh.keepalive_ledger import Due
from identity.token_endpoint.gate import AHEAD_KEEPS
from identity.token_endpoint.measured_lines import measure_lines
from pipeline.approvals.news import tell_of_approvals
from pipeline.broker.doorbells import measure_lying
from pipeline.db.database import WithTurn
from pipeline.duties import gauges, reconcile
from pipeline.duties.catch_up import CatchUp
from pipeline.duties.forgetting import Course
from pipeline.duties.housekeeping import Duty
from pipeline.duties.retention import prune
from pipeline.ledger.clock import ledger_now
from pipeline.revoker.due_withdrawals import measure_withdrawals
from pipeline.revoker.signal_following import SignalFollower
from pipeline.runtime import Runtime
from pipeline.schedules import punctuality


def duties_of(runtime: Runtime) -> list[Duty]:
    """Return the duties of housekeeping."""
    store, ring, revoker, clock = runtime.database, runtime.ring, runtime.revoker, runtime.clock
    sealer = Sealer(store, runtime.signer)
    what: Mapping[str, Callable[[], object]] = {
        "dispatch": partial(reconcile.dispatch, store, ring, window=runtime.settings.window),
        "reclaim": partial(reconcile.reclaim, store, runtime.settings.jobs),
        "wake": partial(reconcile.wake_due, store),
        "settle-attempts": partial(reconcile.settle_attempts, store),
        "settle-refreshes": runtime.coordinator.settle_abandoned,
        "keep-alive": _keepalive(runtime).run,
        "revocations": partial(reconcile.advance_revocations, revoker, idle=timedelta(seconds=5)),
        "signals": SignalFollower(WithTurn(store, ahead=True), ring, clock=clock).run,
        "catch-up": CatchUp(store, runtime.vault, runtime.http, clock=clock).run,
        "withdrawals": partial(reconcile.advance_withdrawals, revoker, runtime.asker.due),
        "leftovers": runtime.asker.ask_leftovers,
        "end-approvals": partial(reconcile.end_approvals, store),
        "tell-approvals": lambda: tell_of_approvals(store, runtime.workflows, ring, now=clock()),
        "seal-audit": lambda: sealer.run(now=clock()),
        "prune": partial(_prune, runtime, Course()),
        "measure": partial(gauges.measure, store),
        "measure-bells": partial(measure_lying, ring),
        "measure-lines": partial(measure_lines, store, runtime.gate, PROFILES),
        "measure-withdrawals": partial(measure_withdrawals, store),
        "measure-schedules": partial(punctuality.measure, store),
    }
    return [reconcile.in_rhythm(store, name, run) for name, run in what.items()]


def _keepalive(runtime: Runtime) -> Keepalive:
    def refresh(due: Due) -> int:
        return runtime.coordinator.refresh(due.account, after_generation=due.generation, keep=AHEAD_KEEPS)

    return Keepalive(
        runtime.database,
        refresh,
        PROFILES,
        pacing=paced_by(runtime.gate),
        clock=runtime.clock,
        stopping=runtime.stopping.is_set,
    )


def _prune(runtime: Runtime, course: Course) -> None:
    now = runtime.database.read(ledger_now)  # forgetting is irreversible, so it never uses a host's clock
    kept, within = runtime.settings.retention, timedelta(seconds=10)
    prune(runtime.database, kept, runtime.signer, now=now, within=within, course=course)
