"""What each important guard is for: without it, the test that watches it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.control import Control, Line

OPENINGS, LEDGER = "pipeline/ledger/openings.py", "tests/ledger/test_openings.py"
SIGNALS = "pipeline/ledger/signals.py"
DELIVERIES, ACCEPTS = "pipeline/ledger/deliveries.py", "tests/ledger/test_deliveries.py"

QUICK = (
    Control(
        name="the fence",
        file=OPENINGS,
        guard='.where(jobs.c.id == bindparam("job"), jobs.c.fence == bindparam("held"), '
        "jobs.c.state == JobState.RUNNING)",
        without='.where(jobs.c.id == bindparam("job"), bindparam("held") >= 0, jobs.c.state == JobState.RUNNING)',
        test=f"{LEDGER}::test_a_worker_that_lost_its_claim_opens_nothing and sqlite",
    ),
)

# As quick, but there are many: each is a whole run of pytest.
FURTHER = (
    Control(
        name="the rule for jobs",
        file="identity/leases.py",
        guard="if refusal := prohibition(found, request.accepted):",
        without="if refusal := None:",
        test=f"{LEDGER}::test_a_job_accepted_before_a_revocation_of_any_scope and sqlite",
    ),
    Control(
        name="one intent a generation",
        file="identity/intents.py",
        guard="return new if insert_new(connection, refresh_intents, _row(new)) else None",
        without="return new if [insert_new(connection, refresh_intents, _row(new))] else None",
        test="tests/identity/test_coordinator.py::test_many_threads_present_once and False",
    ),
    Control(
        name="the intent's id on every request for a token",
        file="identity/presentation.py",
        guard="outcome = self.endpoint.send(named(request, REFRESH_HEADER, intent.id), to=to, send_before=by)",
        without="outcome = self.endpoint.send(request, to=to, send_before=by)",
        test="tests/identity/test_coordinator.py::test_a_refresh_commits_the_new_pair and sqlite",
    ),
    Control(
        name="a place of its own for every account",
        file="identity/keepalive_plan.py",
        guard='return int.from_bytes(sha256(account.encode()).digest()[:8], "big") / 2**64',
        without="return 0.0",
        test="tests/identity/test_keepalive_plan.py::test_what_is_in_use_is_refreshed",
    ),
    Control(
        name="the once key",
        file=OPENINGS,
        guard='if intent.once is not None and intent.purpose == "call":',
        without="if False:",
        test=f"{LEDGER}::test_of_two_jobs_with_one_once_key and sqlite",
    ),
    Control(
        name="the rule for grants",
        file="identity/leases.py",
        guard="if prohibition(of_grant, grant.consented):",
        without="if False:",
        test="tests/identity/test_leases.py::test_a_job_accepted_after_it_waits_for_a_new_consent",
    ),
    Control(
        name="send_before",
        file="identity/deadline.py",
        guard="if self._send_before is not None and self._monotonic() >= self._send_before:",
        without="if False:",
        test="tests/identity/test_http.py::test_nothing_leaves_after_send_before",
    ),
    Control(
        name="a body counts once",
        file=DELIVERIES,
        guard="by_body = delivery.dedupe_by_body and delivery.signal is None",
        without="by_body = False",
        test=f"{ACCEPTS}::test_a_replayed_body_under_another_id and sqlite",
    ),
    Control(
        name="a signal is never a repetition of its body",
        file=DELIVERIES,
        guard="by_body = delivery.dedupe_by_body and delivery.signal is None",
        without="by_body = delivery.dedupe_by_body",
        test=f"{ACCEPTS}::test_revoke_reconnect_revoke_with_the_same_bytes and sqlite",
    ),
    Control(
        name="a delivery id counts once",
        file=DELIVERIES,
        guard="if connection.execute(_insert_delivery(connection.dialect.name), row).rowcount == 0:",
        without="if connection.execute(_insert_delivery(connection.dialect.name), row).rowcount < 0:",
        test=f"{ACCEPTS}::test_a_sender_that_signs_its_ids and sqlite",
    ),
    Control(
        name="whose secret and whose installation agree",
        file="pipeline/ledger/whose.py",
        guard="if installed is not None and installed != owner:",
        without="if False:",
        test=f"{ACCEPTS}::test_a_secret_of_one_tenant_that_names_anothers_installation and sqlite",
    ),
    Control(
        name="an installation is its connection's",
        file="pipeline/ledger/whose.py",
        guard="installations.c.connection_id == provider_connections.c.id, "
        'installations.c.external_id == bindparam("installation")',
        without='installations.c.external_id == bindparam("installation")',
        test=f"{ACCEPTS}::test_an_installation_known_through_another_connection and sqlite",
    ),
    Control(
        name="one claim of a job",
        file="pipeline/ledger/jobs.py",
        guard=".where(jobs.c.state == JobState.QUEUED, jobs.c.due_at <= database_now())",
        without=".where(jobs.c.due_at <= database_now())",
        test="tests/ledger/test_jobs.py::test_a_claim_that_waited_for_another and postgresql",
    ),
    Control(
        name="a stale fence ends no run",
        file="pipeline/ledger/jobs.py",
        guard="which &= jobs.c.fence == fence",
        without="pass",
        test="tests/ledger/test_jobs.py::test_a_stale_fence and sqlite",
    ),
    Control(
        name="a late answer overtakes the next attempt",
        file=OPENINGS,
        guard="if intent.number > 1 and _overtaken(connection, intent):",
        without="if False:",
        test=f"{LEDGER}::test_a_second_attempt_does_not_open_over_an_answer_that_came_late and sqlite",
    ),
    Control(
        name="a doubt outlives what comes after it",
        file="identity/settlement.py",
        guard="if to is IntentState.FAILED and intent.doubtful_since is not None:",
        without="if False:",
        test="tests/identity/test_coordinator.py::test_a_second_presentation_without_effect and sqlite",
    ),
    Control(
        name="an issuer is believed of itself alone",
        file="identity/discovery.py",
        guard='if document.get("issuer") != issuer:',
        without="if False:",
        test="tests/identity/test_discovery.py::test_a_document_of_another_issuer_is_not_believed",
    ),
    Control(
        name="addresses inside addresses",
        file="identity/addresses.py",
        guard="if any(address in network for network in _REFUSED if network.version == address.version):",
        without="if False:",
        test="tests/identity/test_addresses.py::test_no_address_of_a_machine_nearby_is_connected_to",
    ),
    Control(
        name="a refused secret gives way",
        file="identity/minting.py",
        guard="return fresh[1] if blames_it and len(fresh) > 1 else None",
        without="return None",
        test="tests/identity/test_secret_rotation.py::test_a_refused_new_secret_gives_way and sqlite",
    ),
    Control(
        name="a gateway's time-out is unknown",
        file="identity/answers.py",
        guard="if status in _GATEWAY_TIMEOUTS:",
        without="if False:",
        test="tests/failure_cases/test_answers.py::test_case_10 and sqlite",
    ),
    Control(
        name="a form that may be cut holds no token",
        file="identity/answers.py",
        guard='return form if "error" in form or {"access_token", "token_type"} <= form.keys() else None',
        without="return form or None",
        test="tests/identity/test_answers.py::test_a_form_that_may_have_been_cut or test_an_answer_cut_anywhere",
    ),
    Control(
        name="Retry-After is kept",
        file="identity/coordinator.py",
        guard="case IntentState.FAILED if former.retry_at is not None and now < former.retry_at:",
        without="case IntentState.FAILED if former.retry_at is not None and now < former.started_at:",
        test="tests/failure_cases/test_answers.py::test_case_16 and sqlite",
    ),
    Control(
        name="a refusal of the newest generation alone is a death",
        file="identity/death.py",
        guard="if grant is None or grant.generation != generation:",
        without="if grant is None:",
        test="tests/identity/test_coordinator.py::test_a_refusal_of_an_older_generation and sqlite",
    ),
    Control(
        name="one probe after a breaker has cooled",
        file="identity/gate.lua",
        guard='set("probe", now + probe)',
        without="local _ = probe",
        test="tests/identity/test_gate.py::test_after_cooling_one_probe and redis",
    ),
    Control(
        name="a later consent is not reached at the provider",
        file="identity/withdrawing.py",
        guard="if reaches and (why := _reaches_others(connection, account, claimed, now=now)):",
        without="if why := None:",
        test="tests/ledger/test_provider_side.py::test_a_later_consent_is_not_reached and sqlite",
    ),
    Control(
        name="nothing is ended before the refresh on the wire has ended",
        file="identity/withdrawing.py",
        guard="if is_refreshing(connection, account.id):",
        without="if False:",
        test="tests/ledger/test_provider_side.py::test_what_a_discarded_refresh_won and sqlite",
    ),
    Control(
        name="a consent keeps the revoked credentials for their end",
        file="identity/grants.py",
        guard="take_grant("
        "connection, account, before=newest_revocation(connection, (*above, own)), revocation=None, now=now)",
        without="pass",
        test="tests/ledger/test_provider_side.py::test_a_token_of_another_generation and sqlite",
    ),
    Control(
        name="the rule in the refresh's commit",
        file="identity/settlement.py",
        guard="ruled_out = revoked_since(connection, scopes, intent.consented, or_stopped=False)",
        without="ruled_out = None",
        test="tests/identity/test_races.py::test_no_refresh_commits_after_a_revocation and sqlite",
    ),
    Control(
        name="nobody is answered before the group's COMMIT",
        file="pipeline/sqlite.py",
        guard='write.raised = CommitUnknown("the commit failed; read again by your own key")',
        without="pass",
        test="tests/ledger/test_database.py::test_a_failed_commit_answers_every_caller",
    ),
    Control(
        name="a signal's time and the consent's",
        file=SIGNALS,
        guard="if at is not None and grant is not None and "
        "_precedes(at + signal.precision, grant.consented_at, or_equals=True):",
        without="if False:",
        test="tests/ledger/test_signals.py::test_an_older_word_than_the_consent and sqlite",
    ),
    Control(
        name="the provider's order of suspensions",
        file=SIGNALS,
        guard="case Asks.SUSPEND if _precedes(at, account.suspension_said_at, or_equals=True):",
        without="case Asks.SUSPEND if False:",
        test="tests/ledger/test_signals.py::test_suspensions_count_in_the_providers_order and sqlite",
    ),
    Control(
        name="a jti counts once",
        file="pipeline/ledger/security_events.py",
        guard="if not insert_new(connection, security_events, row):",
        without="if insert_new(connection, security_events, row) is None:",
        test="tests/ledger/test_security_events.py::test_a_jti_is_taken_once and sqlite",
    ),
    Control(
        name="a security event's type",
        file="webhooks/security_event.py",
        guard="if not isinstance(kind, str) or kind.lower() not in TYPES:",
        without="if False:",
        test="tests/webhooks/test_security_event.py::test_an_id_token_and_an_unsigned_one",
    ),
    Control(
        name="the time that Linear signs",
        file="webhooks/sources/linear.py",
        guard="refusal = stale(now, sent_at.timestamp(), TOLERANCE)",
        without="refusal = None",
        test="tests/webhooks/test_linear_source.py::test_a_minute_is_tolerated",
    ),
    Control(
        name="the audit's signatures",
        file="identity/audit_chain.py",
        guard="if not signed or holds(signed[-1], keys):",
        without="if True:",
        test="tests/identity/test_audit.py::test_a_chain_made_anew_without_the_key and sqlite",
    ),
    Control(
        name="the audit refuses changes",
        file="pipeline/migrations/versions/0014_audit_append_only.py",
        guard='op.execute(f"create trigger {table}_no_update before update on {table} {refuse}")',
        without="pass",
        test="tests/identity/test_audit.py::test_the_database_refuses and sqlite",
    ),
    Control(
        name="nothing that was altered is pruned",
        file="identity/audit_pruning.py",
        guard="if isinstance(held, FirstBad):",
        without="if False:",
        test="tests/identity/test_audit.py::test_an_altered_row_is_not_pruned and sqlite",
    ),
)

SLOW = (
    Control(
        name="a signal marks what is on the wire",
        file="identity/stale_access.py",
        guard="on_its_way = overtake(connection, account.id)",
        without="on_its_way = False",
        test="tests/properties/test_schedules.py::test_no_schedule_breaks_a_promise",
    ),
    Control(
        name="the pace of a token endpoint",
        file="identity/endpoint_state.py",
        guard="wait = max(self.held - now, (self.open or now) - now, due - (burst - 1) * interval - now, 0)",
        without="wait = 0",
        test="tests/identity/test_keepalive_years.py::test_two_years_of_a_few_grants and sqlite",
    ),
    Control(
        name="one intent a generation, between processes",
        file="identity/intents.py",
        guard="return new if insert_new(connection, refresh_intents, _row(new)) else None",
        without="return new if [insert_new(connection, refresh_intents, _row(new))] else None",
        test="tests/faults/test_refreshes.py::test_eight_processes and sqlite and False",
        timeout=180,
    ),
    Control(
        name="the locks of an opening",
        file=OPENINGS,
        guard="lock_shared(connection, (*intent.lease.scope_list, *approver_scopes(intent.approval)))",
        without="pass",
        test="tests/ledger/test_revocation.py::test_openings_and_revocations_of_one_account and postgresql",
    ),
    Control(
        name="a lock is a statement of its own",  # of one that locks and reads, the snapshot is older than the lock
        file=OPENINGS,
        guard="lock_shared(connection, (*intent.lease.scope_list, *approver_scopes(intent.approval)))",
        without="pass",
        also=(
            Line(
                file="identity/leases.py",
                guard="rows = connection.execute(_STATE, named | scope_keys(job_scopes)).all()",
                without="from identity import sequence; "
                "locks = (sequence.func.pg_advisory_xact_lock_shared(sequence._advisory_key(s)) for s in job_scopes); "
                "rows = connection.execute(_STATE.add_columns(*locks), named | scope_keys(job_scopes)).all()",
            ),
        ),
        test="tests/ledger/test_revocation.py::test_an_opening_that_waited_for_a_revocation and postgresql",
        timeout=180,
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
        file=OPENINGS,
        guard='if intent.once is not None and intent.purpose == "call":',
        without="if False:",
        test="tests/faults/test_duplicates.py::test_two_deliveries and sqlite",
    ),
    Control(
        name="a revocation is effective in its own commit",
        file="pipeline/revocation.py",
        guard="leases.revoke_scope(connection, scope, number, reason=reason, now=now)",
        without="pass",
        test="tests/faults/test_revocation.py::test_a_revocation_under_load and sqlite",
    ),
    Control(
        name="send_before, after a stop",
        file="identity/deadline.py",
        guard="if self._send_before is not None and self._monotonic() >= self._send_before:",
        without="if False:",
        test="tests/faults/test_lateness.py::test_a_worker_that_stood_still_before_its_call",
    ),
    Control(
        name="only the names of errors are quoted",
        file="identity/quoting.py",
        guard='return said if _NAME.fullmatch(said) else "an error that has no name"',
        without="return said",
        test="tests/faults/test_canaries.py::test_no_secret",
    ),
    Control(
        name="the dispatcher rings again what was not heard",
        file="pipeline/reconcile.py",
        guard="ring.jobs(store.write(partial(bells.top_up, pattern=str(pattern), window=window)))",
        without="pass",
        test="tests/faults/test_broker.py::test_what_was_accepted_ends and sqlite",
    ),
    Control(
        name="a claim that lapsed is taken back",
        file="pipeline/reconcile.py",
        guard="found = store.read(lambda c: jobs.lapsed(c, limit=BATCH))",
        without="found = []",
        test="tests/faults/test_crashes.py::test_a_worker_killed_in_its_steps and sqlite",
    ),
    Control(
        name="a lost answer is not taken for none",
        file="identity/presentation.py",
        guard="if situation.minted or not profile.rotates:",
        without="if True:",
        test="tests/faults/test_crashes.py::test_a_worker_killed_in_a_refresh and sqlite",
    ),
)


def run(control: Control, folder: Path) -> tuple[int, str]:
    control.copy(folder)
    return control.run(folder)


@pytest.mark.parametrize("control", QUICK, ids=lambda control: control.name)
def test_without_its_guard_the_test_fails(control: Control, tmp_path: Path) -> None:
    control.is_noticed(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("control", FURTHER, ids=lambda control: control.name)
def test_without_a_further_guard_its_test_fails(control: Control, tmp_path: Path) -> None:
    control.is_noticed(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("control", SLOW, ids=lambda control: control.name)
def test_without_its_guard_the_whole_system_fails(control: Control, tmp_path: Path) -> None:
    control.is_noticed(tmp_path)


def test_a_copy_with_all_its_guards_passes(tmp_path: Path) -> None:
    """Else the failures above might be the copy's."""
    watched = [control.test.partition("::") for control in QUICK if control.test.startswith(LEDGER)]
    whole = Control(
        name="nothing is gone",
        file=OPENINGS,
        guard=QUICK[0].guard,
        without=QUICK[0].guard,
        test=f"{LEDGER}::" + " or ".join(f"({names})" for _, _, names in watched),
    )
    code, said = run(whole, tmp_path)
    assert code == 0, said


@pytest.mark.parametrize("control", FURTHER + SLOW, ids=lambda control: control.name)
def test_a_guard_is_where_its_control_looks(control: Control) -> None:
    """For those that are run seldom: a guard that moves is told of at once."""
    control.place()


def test_a_guard_that_moved_is_a_failure(tmp_path: Path) -> None:
    gone = Control(name="gone", file=OPENINGS, guard="no such line", without="", test=LEDGER)
    with pytest.raises(AssertionError, match="0 times"):
        gone.copy(tmp_path)
