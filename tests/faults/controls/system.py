"""What guards are for that a whole system shows: without one, its test fails."""

from __future__ import annotations

from tests.faults.control import Control, Line

OPENINGS, LEDGER = "pipeline/steps/openings.py", "tests/steps/test_openings.py"
SIGNALS = "pipeline/revocation/signals.py"
DELIVERIES, ACCEPTS = "pipeline/deliveries/acceptance.py", "tests/deliveries/test_deliveries.py"

CONTROLS = (
    Control(
        name="a signal marks what is on the wire",
        file="identity/refresh/stale_access.py",
        guard="on_its_way = overtake(connection, account.id)",
        without="on_its_way = False",
        test="tests/properties/test_schedules.py::test_no_schedule_breaks_a_promise",
    ),
    Control(
        name="the pace of a token endpoint",
        file="identity/token_endpoint/endpoint_state.py",
        guard="free = max(max(self.due, now) - (burst - 1) * interval, self.shut)",
        without="free = now",
        test="tests/identity/test_keepalive_years.py::test_two_years_of_a_few_grants and sqlite",
    ),
    Control(
        name="one intent a generation, between processes",
        file="identity/refresh/intents.py",
        guard="return new if insert_new(connection, refresh_intents, _row(new)) else None",
        without="return new if [insert_new(connection, refresh_intents, _row(new))] else None",
        test="tests/faults/test_refreshes.py::test_eight_processes and sqlite and without",
        says="AssertionError: the grant was destroyed",
        timeout=180,
    ),
    Control(
        name="the locks of an opening",
        file=OPENINGS,
        guard="lock_shared(connection, (*intent.lease.scope_list, *approver_scopes(intent.approval)))",
        without="pass",
        test="tests/revocation/test_revocation.py::test_openings_and_revocations_of_one_account and postgresql",
    ),
    Control(
        name="the lock of a narrowing",
        file="identity/accounts/narrowing.py",
        guard="number, at = lock_exclusive_number_and_time(connection, account.key.scope)",
        without="number, at = lock_exclusive_number_and_time(connection, "
        'type(account.key.scope)(kind="account", key="another"))',
        test="tests/revocation/test_narrowing.py::test_an_opening_beside_a_narrowing and postgresql",
    ),
    Control(
        name="a lock is a statement of its own",  # of one that locks and reads, the snapshot is older than the lock
        file=OPENINGS,
        guard="lock_shared(connection, (*intent.lease.scope_list, *approver_scopes(intent.approval)))",
        without="pass",
        also=(
            Line(
                file="identity/accounts/leases.py",
                guard="rows = _STATE.run(connection, named | scope_keys(job_scopes)).all()",
                without="from identity import sequence; "
                "locks = (sequence.func.pg_advisory_xact_lock_shared(sequence._advisory_key(s)) for s in job_scopes); "
                "rows = connection.execute(_STATE.statement.add_columns(*locks), named | scope_keys(job_scopes)).all()",
            ),
        ),
        test="tests/revocation/test_revocation.py::test_an_opening_that_waited_for_a_revocation and postgresql",
        timeout=180,
    ),
    Control(
        name="the one order of locks",
        file="identity/sql/sequence.py",
        guard="ordered = sorted(scopes, key=lambda scope: (LOCK_ORDER.index(scope.kind), scope.key))",
        without="ordered = list(scopes)",
        test="tests/db/test_lock_order.py::test_an_opening_locks",
    ),
    Control(
        name="the locks of an acceptance for a key",
        file="pipeline/agents_api/requests.py",
        guard="lock_shared(connection, scopes_of_agent(caller.tenant, caller.agent))",
        without="pass",
        test="tests/api/test_meanwhile.py::test_what_is_being_accepted",
    ),
    Control(
        name="a cancel waits for a claim",
        file="pipeline/desk/jobs.py",
        guard="job = connection.execute(found.with_for_update()).one_or_none()",
        without="job = connection.execute(found).one_or_none()",
        test="tests/api/test_jobs.py::test_a_job_that_a_worker_claims_meanwhile and postgresql",
    ),
    Control(
        name="an act with a key is done once",
        file="pipeline/agents_api/requests.py",
        guard="rung = change(connection) if before is None else ()",
        without="rung = change(connection)",
        test="tests/api/test_jobs.py::test_an_act_with_a_key and sqlite",
    ),
    Control(
        name="the attempt's id on every request",
        file="pipeline/upstream.py",
        guard="ATTEMPT_HEADER: attempt,",
        without="",
        test="tests/faults/test_duplicates.py::test_two_deliveries and sqlite",
    ),
    Control(
        name="whose token a call is made with, as it is written down",
        file=OPENINGS,
        guard='"principal_id": intent.principal,',
        without='"principal_id": intent.principal and intent.principal.partition(".")[0] + ".grace",',
        test="tests/faults/test_duplicates.py::test_two_deliveries and sqlite",
    ),
    Control(
        name="once keys between deliveries",
        file="pipeline/steps/before.py",
        guard="if intent.once is None or intent.purpose is not Purpose.CALL:",
        without="if True:",
        test="tests/faults/test_duplicates.py::test_two_deliveries and sqlite",
    ),
    Control(
        name="a revocation is effective in its own commit",
        file="pipeline/revocation/declaration.py",
        guard="revoke_scope(connection, scope, number, reason=reason, now=now)",
        without="pass",
        test="tests/faults/test_revocation.py::test_a_revocation_under_load and sqlite",
    ),
    Control(
        name="send_before, after a stop",
        file="identity/http/deadline.py",
        guard="if self._send_before is not None and self._monotonic() >= self._send_before:",
        without="if False:",
        also=(
            Line(
                file="identity/http/client.py",
                guard="if send_before is not None and began >= send_before:",
                without="if False:",
            ),
        ),
        test="tests/faults/test_lateness.py::test_a_worker_that_stood_still_before_its_call",
    ),
    Control(
        name="only the names of errors are quoted",
        file="identity/quoting.py",
        guard='return said if is_name(said) else "an error that has no name"',
        without="return said",
        test="tests/faults/test_canaries.py::test_no_secret",
    ),
    Control(
        name="the dispatcher rings again what was not heard",
        file="pipeline/duties/reconcile.py",
        guard="ring.jobs(store.write(partial(bells.top_up, pattern=pattern, shares=shares)))",
        without="pass",
        test="tests/faults/test_broker.py::test_what_was_accepted_ends and sqlite",
        timeout=240,
    ),
    Control(
        name="the bell at acceptance",
        file=DELIVERIES,
        guard="return (*rung, *first_bells(connection, here.tenant, without))",
        without="return ()",
        test="tests/faults/test_lateness.py::test_fresh_deliveries_end_without_housekeeping and not half",
    ),
    Control(
        name="a claim that lapsed is taken back",
        file="pipeline/duties/reconcile.py",
        guard="found = store.read(lambda c: claims.lapsed(c, limit=BATCH))",
        without="found = []",
        test="tests/faults/test_crashes.py::test_a_worker_killed_in_its_steps and sqlite",
        timeout=240,
    ),
    Control(
        name="a lost answer is not taken for none",
        file="identity/refresh/conclusion.py",
        guard="if situation.minted or not profile.rotates:",
        without="if True:",
        test="tests/faults/test_crashes.py::test_a_worker_killed_in_a_refresh and sqlite",
        timeout=240,
    ),
    Control(
        name="what cannot be looked up is asked of a person",
        file="pipeline/execution/step.py",
        guard="if step.action.facts.recovery is Recovery.ASK and step.action.facts.effect is not Effect.READ:",
        without="if False:",
        test="tests/tasks/test_every_step.py::test_a_worker_killed_at_a_step and after_call and link_pull_request-4",
    ),
    Control(
        name="no function hides how its run ended",
        file="pipeline/execution/worker.py",
        guard="run.raise_how_it_ended()",
        without="pass",
        test="tests/execution/test_hidden_endings.py::test_no_function_hides and is_in_doubt-catches_everything-sqlite",
    ),
    Control(
        name="no step is taken after the one that ended the run",
        file="pipeline/run.py",
        guard="self.raise_how_it_ended()",
        without="pass",
        test="tests/execution/test_hidden_endings.py::test_no_step_is_taken and sqlite-catches_everything",
    ),
    Control(
        name="what a job has done is not left out",
        file="pipeline/execution/worker.py",
        guard="runner.raise_if_left_out()",
        without="pass",
        test="tests/execution/test_divergence.py::test_a_function_that_leaves_a_step_out and sqlite",
    ),
    Control(
        name="what a job has done is not passed over on the way to another step",
        file="pipeline/execution/step.py",
        guard="self.raise_if_left_out(before=position)",
        without="pass",
        test="tests/execution/test_parts.py::test_a_done_step_that_a_part_leaves_out and sqlite",
    ),
    Control(
        name="what ended is not left out before a replay opens it",
        file="pipeline/execution/step.py",
        guard="if stored.state != StepState.OPEN:",
        without="if False:",
        test="tests/execution/test_divergence.py::test_a_replay_is_advised_where and sqlite and refused",
    ),
    Control(
        name="what may have been done, or was tried since a replay, is not left out",
        file="pipeline/execution/step.py",
        guard="return all(row.state == AttemptState.NO_EFFECT and row.opened <= self._job.accepted for row in tried)",
        without="return True",
        test="tests/execution/test_divergence.py::test_what_was_tried_since and sqlite",
    ),
    Control(
        name="a sleep is not left out",
        file="pipeline/execution/step.py",
        guard="return any(came_out_since(before, stored) for before in self._stored.values())",
        without="return True",
        test="tests/execution/test_divergence.py::test_a_job_of_a_replayed_delivery and sqlite",
    ),
    Control(
        name="what may have been done is searched for before it is sent again",
        file="pipeline/execution/step.py",
        guard="if known is Known.UNSETTLED and not step.repeats and step.action.facts.recovery.searches:",
        without="if False:",
        test="tests/tasks/test_every_step.py::test_a_worker_killed_at_a_step and after_call and link_pull_request-3",
    ),
    Control(
        name="a process that is told to stop begins no further step",
        file="pipeline/execution/step.py",
        guard="if self._services.stopping():",
        without="if False:",
        test="tests/execution/test_winding_down.py::test_a_run_whose_process and sqlite",
    ),
    Control(
        name="a broker that refuses a command is asked again",
        file="pipeline/broker/celery.py",
        guard='"broker_channel_error_retry": True,',
        without='"broker_channel_error_retry": False,',
        test="tests/celery/test_outage.py::test_a_worker_consumes_again_from_a_broker_that_was_a_replica",
        timeout=180,
    ),
    Control(
        name="workers draw on one budget",
        file="pipeline/runtime.py",
        guard="budgets=Budgets(self.redis, prefix=self.settings.key_prefix, cooldown=self.redis_cooldown),",
        without="budgets=Budgets(None, prefix=self.settings.key_prefix),",
        test="tests/system/test_budgets.py::test_three_workers",
        says="the workers asked for more than there was",
    ),
)
