"""What each guard of a step's own word about revocations is for: without it, the test that watches it fails."""

from __future__ import annotations

from tests.faults.control import Control

STEPS = "tests/steps/test_stricter_steps.py"
TAKING = "tests/revocation/test_collecting.py"
MEANWHILE = "tests/revocation/test_jobs_meanwhile.py"
NARROWINGS = "tests/revocation/test_narrowing_receipts.py"

CONTROLS = (
    Control(
        name="a step stricter than its action is not skipped",
        file="pipeline/authoring/uses.py",
        guard="return declared if asked is None else asked",
        without="return declared",
        test=f"{STEPS}::test_of_two_steps_of_one_action and sqlite",
    ),
    Control(
        name="no step is looser than its action",
        file="pipeline/authoring/uses.py",
        guard="if asked not in (None, STOP, declared):",
        without="if False:",
        test=f"{STEPS}::test_a_step_that_is_looser_than_its_action and sqlite",
    ),
    Control(
        name="people who are named in one tenant's workspace are not another's",
        file="pipeline/revocation/signal_targets.py",
        guard="return named & (accounts.c.tenant_id.in_(whose.tenants) | accounts.c.tenant_id.not_in(placed))",
        without="return named",
        test="tests/revocation/test_signals.py::test_people_named_in_a_tenants_workspace and sqlite",
    ),
    Control(
        name="the end of one workspace says nothing of another's tokens",
        file="pipeline/revoker/collecting.py",
        guard="if row.source in _OF_WORKSPACE and may_be_elsewhere(connection, AccountKey.parse(row.key)):",
        without="if False:",
        test="tests/revocation/test_provider_side.py::test_the_end_of_one_workspace and sqlite",
    ),
    Control(
        name="a token that a lost refresh may have ended does not make a signal true",
        file="pipeline/revoker/inquiry.py",
        guard="return SignalDoubt.UNKNOWN if case.presented else SignalDoubt.DEAD",
        without="return SignalDoubt.DEAD",
        test="tests/revocation/test_provider_side.py::test_a_token_that_our_own_lost_refresh and sqlite",
    ),
    Control(
        name="nobody is asked about a token while its refresh is under way",
        file="pipeline/revoker/inquiry.py",
        guard="alive = None if case.refreshing else self._ask(case, profile.liveness, revocation)",
        without="alive = self._ask(case, profile.liveness, revocation)",
        test="tests/revocation/test_provider_side.py::test_nobody_is_asked_about_a_token and sqlite",
    ),
    Control(
        name="what a pass had no time to take is taken by the next",
        file="pipeline/revoker/provider_side.py",
        guard="found = self._store.read(lambda c: [*late(c, limit), *overdue(c, now, limit), *uncollected(c, limit)])",
        without="found = self._store.read(lambda c: [*late(c, limit), *overdue(c, now, limit)])",
        test=f"{TAKING}::test_what_a_pass_has_no_time_to_take and sqlite",
    ),
    Control(
        name="a held token that expired keeps no collection from its end",
        file="pipeline/revoker/collecting.py",
        guard="or_(columns.state != WithdrawalState.HELD, alive(now)),",
        without="",
        test=f"{TAKING}::test_tokens_that_expired_while and sqlite",
    ),
    Control(
        name="where nothing is asked for, an earlier revocation keeps what it has not taken yet",
        file="pipeline/revoker/collecting.py",
        guard="since = 0 if why is None else newest_before(connection, account.key, row.number)",
        without="since = 0",
        test="tests/revocation/test_provider_side.py::test_a_replayed_signal_decides_nothing and sqlite",
    ),
    Control(
        name="a receipt says that something is still to be taken",
        file="pipeline/revoker/provider_side.py",
        guard="if is_pending(connection, revocation):",
        without="if False:",
        test=f"{TAKING}::test_what_a_pass_has_no_time_to_take and sqlite",
    ),
    Control(
        name="what a deletion's revocation has not taken is not shredded",
        file="deploy/cli/tenant_deletion.py",
        guard='if row["collected_at"] is None:',
        without="if False:",
        test="tests/deploy/test_tenant_deletion.py::test_what_its_revocation_has_not_taken_yet",
    ),
    Control(
        name="a job cancelled after the compensations keeps the receipt back",
        file="pipeline/revoker/progress.py",
        guard="if row.receipt is None and page_numbers(connection, revocation) - compensated:",
        without="if False:",
        test=f"{MEANWHILE}::test_a_job_cancelled_between_the_compensations_and_the_receipt and sqlite",
    ),
    Control(
        name="a page that names a running job is not compensated yet",
        file="pipeline/revocation/pages.py",
        guard="if not still_stopping(connection, page.stopping):",
        without="if True:",
        test=f"{MEANWHILE}::test_a_job_told_to_stop_before_the_receipt and sqlite and before_compensations",
        says="AssertionError: the job still runs",
    ),
    Control(
        name="a job that was cancelled and accepted again did not finish by itself",
        file="pipeline/revocation/job_ends.py",
        guard="by_itself = (jobs.c.state == JobState.DONE) & (jobs.c.accepted < before)",
        without="by_itself = jobs.c.state != JobState.CANCELLED",
        test=f"{MEANWHILE}::test_a_job_replayed_before_the_receipt and sqlite",
    ),
    Control(
        name="a revocation ends no wait for another consent",
        file="pipeline/revoker/cancelling.py",
        guard="if (key := consenting(waits_for)) is not None and scope in key.scopes",
        without="",
        test=f"{MEANWHILE}::test_a_wait_for_another_consent and sqlite",
    ),
    Control(
        name="a revocation looks for jobs once more before it drains",
        file="pipeline/revoker/revoker.py",
        guard="for then in (*OnRevoke, OnRevoke.STOP):",
        without="for then in OnRevoke:",
        test=f"{MEANWHILE}::test_a_job_committed_after_its_set_was_passed and sqlite",
    ),
    Control(
        name="a revision that is outdated before it is written is composed anew",
        file="pipeline/revocation/receipt.py",
        guard="connection.execute(update(revocations).where(issued).values(open_ends=revocations.c.open_ends + 1))",
        without="connection.execute(update(revocations).where(issued).values(open_ends=1))",
        test="tests/revocation/test_receipts.py::test_what_changes_while_a_revision_is_composed and sqlite",
    ),
    Control(
        name="an answer of two meanings ends nothing by itself",
        file="identity/withdrawals/withdrawer.py",
        guard="if alive is False:",
        without="if asked.doubt is not None and outcome.status in asked.doubt.statuses:",
        test="tests/revocation/test_provider_side.py::test_an_answer_of_two_meanings and sqlite",
    ),
    Control(
        name="no rule of revocations finds a narrowing",
        file="pipeline/revocation/narrowing.py",
        guard='"kind": NARROWING,',
        without='"kind": "account",',
        test=f"{NARROWINGS}::test_nothing_is_revoked_by_it and sqlite",
    ),
    Control(
        name="a narrowing's receipt names what needed what was taken, and no other call",
        file="pipeline/revocation/narrowing.py",
        guard="return [call for call in calls if counts(call)]",
        without="return [*calls]",
        test=f"{NARROWINGS}::test_its_receipt_names_each_call and sqlite",
    ),
    Control(
        name="a call of an action that is not installed may have needed what was taken",
        file="pipeline/revocation/narrowing.py",
        guard="return action is None or needs(action)",
        without="return action is not None and needs(action)",
        test=f"{NARROWINGS}::test_its_receipt_names_each_call and sqlite",
    ),
    Control(
        name="what a narrowing took is signed",
        file="pipeline/revocation/receipt_content.py",
        guard='**({} if row.narrowing is None else {"narrowing": row.narrowing}),',
        without="",
        test=f"{NARROWINGS}::test_it_holds_by_its_signature_alone and sqlite",
    ),
    Control(
        name="a command says that it has revoked when it has",
        file="deploy/cli/revoke.py",
        guard="made = at.write(write, ahead=True)",
        without='import os, time; out.document({"id": id}); os.dup2(os.open(os.devnull, os.O_WRONLY), 1); '
        "time.sleep(3); made = at.write(write, ahead=True)",
        test="tests/faults/test_revocation_rounds.py::sqlite-10 and not sqlite-100",
        says="after the revocation, and not on its receipt",
        timeout=280,
    ),
)
