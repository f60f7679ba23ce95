"""What each guard of policy and approvals is for: without it, the test that watches it fails."""

from __future__ import annotations

from tests.faults.control import Control, Line

APPROVALS, VOTES = "pipeline/approvals/requested.py", "pipeline/approvals/votes.py"
APPROVERS = "pipeline/approvals/bars.py"
TEST, WHO = "tests/approvals/test_approvals.py", "tests/approvals/test_approvers.py"
USE = "tests/approvals/test_approval_use.py"


CONTROLS = (
    Control(
        name="every rule's approval is wanted",
        file="identity/policy/decision.py",
        guard="approvals=tuple(rule.approval for rule in rules if rule.approval is not None),",
        without="approvals=tuple(rule.approval for rule in rules if rule.approval is not None)[:1],",
        test="tests/identity/test_policy_rules.py::test_what_is_permitted_is_held_to_all",
    ),
    Control(
        name="the tightest limit is the limit",
        file="identity/policy/decision.py",
        guard="max_amount=min(limits, key=lambda one: one.amount, default=None),  # of one currency, or it was refused",
        without="max_amount=next(iter(limits), None),",
        test="tests/identity/test_policy_rules.py::test_what_is_permitted_is_held_to_all",
    ),
    Control(
        name="the place of an allowance says nothing",
        file="identity/policy/decision.py",
        guard="allowances = [one for one in policy.allowances if one.covers(question)] if high_risk else []",
        without="allowances = [one for one in policy.allowances if one.covers(question)][:1] if high_risk else []",
        test="tests/identity/test_policy_rules.py::test_of_several_allowances",
    ),
    Control(
        name="what must be attributable runs as a person",
        file="identity/policy/decision.py",
        guard="if question.attribution and kind is not PrincipalKind.USER:",
        without="if False:",
        test="tests/identity/test_policy.py::test_a_step_that_no_principal_may_take",
    ),
    Control(
        name="an amount is not below nothing",
        file="identity/money.py",
        guard="if not self._is_written_shortly() or _WRITTEN.fullmatch(str(self)) is None:",
        without="if False:",
        test="tests/identity/test_money.py::test_what_policy_could_not_compare",
    ),
    Control(
        name="whoever may have the key is among those who asked",
        file="pipeline/agents_api/tool_requests.py",
        guard="replayed_by=caller.people,",
        without="",
        test="tests/payments/test_agents_payments.py::test_whoever_may_have_the_key_does_not_approve",
    ),
    Control(
        name="so is whoever may have the key by which it was accepted anew",
        file="pipeline/steps/replay.py",
        guard="replayed_by=list(dict.fromkeys((*(row.replayed_by or ()), *names_of(by, subject), *people))),",
        without="replayed_by=list(dict.fromkeys((*(row.replayed_by or ()), *names_of(by, subject)))),",
        test="tests/payments/test_agents_payments.py::test_nor_does_whoever_may_have_the_key",
    ),
    Control(
        name="a key of some tools has no job of another done again",
        file="webhooks/api/jobs.py",
        guard="if tool is not None and not who.may_execute(tool):",
        without="if False:",
        test="tests/api/test_jobs.py::test_a_key_of_some_tools_has_no_job",
    ),
    Control(
        name="a key that names no holder, where a rule wants one",
        file="pipeline/approvals/requested.py",
        guard="if (why_not := unheld(connection, intent)) is not None:",
        without="if (why_not := unheld(connection, intent)) is not None and False:",
        test="tests/payments/test_agents_payments.py::test_a_rule_may_refuse_what_a_key_asks_for",
    ),
    Control(
        name="an approval is asked for",
        file="pipeline/steps/openings.py",
        guard="if not confirm(connection, intent, now=now):",
        without="if False:",
        test=f"{TEST}::test_no_step_opens_without_the_approval and sqlite",
    ),
    Control(
        name="the version in force",
        file="pipeline/steps/before.py",
        guard="if present.policy != intent.decision.policy:",
        without="if False:",
        test="tests/ledger/test_policies.py::test_an_opening_decided_under_an_older_policy and sqlite",
    ),
    Control(
        name="who needs a capability goes by nothing else",
        file="pipeline/execution/decisions.py",
        guard="return Denied(reason=reason, policy=decision.policy, rules=decision.rules)",
        without="pass",
        test="tests/tasks/test_policy_at_work.py::test_a_step_that_needs_a_capability_whose_upstream_takes_none",
    ),
    Control(
        name="what is decided for a capability opens by nothing else",
        file="pipeline/steps/openings.py",
        guard="if intent.decision.pattern is AccessPattern.CAPABILITY and intent.capability is None:",
        without="if False:",
        test="tests/capability/test_openings.py::test_what_is_decided_for_a_capability and sqlite",
    ),
    Control(
        name="nothing opens through a connection that was removed",
        file="pipeline/steps/before.py",
        guard="if present.api_url != intent.api_url:",
        without="if False:",
        test="tests/capability/test_openings.py::test_a_job_whose_connection_was_removed and sqlite",
    ),
    Control(
        name="nothing is sent to where a connection of that id led before",
        file="pipeline/steps/before.py",
        guard="if present.api_url != intent.api_url:",
        without="if present.api_url is None:",
        test="tests/desk/test_removals.py::test_a_run_sends_no_token_to_where_a_connection_led and sqlite",
    ),
    Control(
        name="high-risk actions need an allowance",
        file="identity/policy/decision.py",
        guard="if why_not is None and high_risk and not allowances:",
        without="if False:",
        test="tests/identity/test_policy_rules.py::test_a_high_risk_action_runs_only_within_an_allowance",
    ),
    Control(
        name="what states no amount is over the limit",
        file="identity/policy/rules.py",
        guard="if self.limit is not None and (question.amount is None or question.amount.exceeds(self.limit)):",
        without="if self.limit is not None and question.amount is not None and question.amount.exceeds(self.limit):",
        test="tests/identity/test_policy_rules.py::test_a_high_risk_action_without_an_amount",
    ),
    Control(
        name="whoever asked does not approve",
        file=APPROVERS,
        guard="why = dict.fromkeys(requesters(connection, job, people), asked)",
        without="why: dict[str, str] = {}",
        test=f"{WHO}::test_whose_answer_does_not_count and sqlite",
    ),
    Control(
        name="only those whom the policy asks",
        file=VOTES,
        guard='if not any(given.principal in need["approvers"] for need in held.needs):',
        without="if False:",
        test=f"{WHO}::test_whom_the_policy_does_not_ask and sqlite",
    ),
    Control(
        name="aliases of whoever asked",
        file="pipeline/approvals/requesters.py",
        guard="known = [*_named(connection, row.tenant_id, among), *_linked(connection, row.tenant_id, among)]",
        without="known = [*_named(connection, row.tenant_id, among)]",
        test=f"{WHO}::test_an_alias_of_the_requester_does_not_approve and sqlite",
    ),
    Control(
        name="the capitals of whoever asked",
        file="pipeline/approvals/requesters.py",
        guard='return normalize("NFKC", normalize("NFKD", name).casefold().translate(_ONE_I))',
        without='return "".join(one.lower() if one.isascii() else one for one in name)',
        test=f"{WHO}::test_a_requester_is_known_whatever_the_capitals and sqlite",
    ),
    Control(
        name="an answer is of the people of the Slack that signed it",
        file="pipeline/approvals/signed_answers.py",
        guard="link = Link(provider=answer.provider, user=answer.user, through=through, by_admin=True)",
        without="link = Link(provider=answer.provider, user=answer.user, by_admin=True)",
        test="tests/tasks/test_approvals_in_slack.py::test_whose_press_does_not_count",
    ),
    Control(
        name="an answer is of whom an admin has introduced",
        file="pipeline/approvals/signed_answers.py",
        guard="link = Link(provider=answer.provider, user=answer.user, through=through, by_admin=True)",
        without="link = Link(provider=answer.provider, user=answer.user, through=through)",
        test=f"{WHO}::test_an_answer_is_of_whom_an_admin and sqlite",
    ),
    Control(
        name="an answer is of whom its link means as it is counted",
        file=VOTES,
        guard="end_if_over(connection, held, now) or _unlinked(connection, given) or "
        "_prohibition(connection, held, given)",
        without="end_if_over(connection, held, now) or _prohibition(connection, held, given)",
        test="tests/desk/test_tenants.py::test_an_answer_that_comes_after_its_link and sqlite",
    ),
    Control(
        name="a link is taken back while no answer by it is counted",
        file="pipeline/desk/tenants.py",
        guard="lock_exclusive(connection, user_scope(principal))  # an answer of theirs is counted before this, "
        "or not at all",
        without="pass",
        test="tests/desk/test_tenants.py::test_an_answer_beside_the_removal_of_its_link",
    ),
    Control(
        name="an approval is used when its step opens, and not before",
        file="pipeline/steps/openings.py",
        guard="outcome = go_on(connection, intent, held, partial(_examined, connection, intent, now))",
        without="mark_used(connection, intent, now=now); "
        "outcome = go_on(connection, intent, held, partial(_examined, connection, intent, now))",
        test=f"{USE}::test_a_yes_that_is_taken_back and sqlite",
    ),
    Control(
        name="an approval that was used lasts",
        file="pipeline/steps/openings.py",
        guard="mark_used(connection, intent, now=now)",
        without="pass",
        test=f"{USE}::test_a_step_that_has_opened_goes_on and sqlite",
    ),
    Control(
        name="an approval holds until its step has opened",
        file=APPROVALS,
        guard=".with_for_update()",
        without="",
        test=f"{USE}::test_an_opening_beside_the_end_of_its_approval",
    ),
    Control(
        name="what nobody asks for again is not said to be void",
        file=VOTES,
        guard="WANTED,",
        without="",
        test=f"{USE}::test_what_nobody_asks_for_again and sqlite",
    ),
    Control(
        name="an answer is to what was shown",
        file=VOTES,
        guard="if given.digest != held.digest:",
        without="if False:",
        test=f"{WHO}::test_whose_answer_does_not_count and sqlite",
    ),
    Control(
        name="a link alone answers nothing where people sign in",
        file="webhooks/approvals.py",
        guard="if sign_in:",
        without="if False:",
        test="tests/console/test_approvals.py::test_where_people_sign_in_the_link_of_an_approval",
    ),
    Control(
        name="silence is a no",
        file="pipeline/approvals/ends.py",
        guard="if held.expires_at <= ledger_now(connection):",
        without="if False:",
        test=f"{TEST}::test_an_approval_that_expires_is_a_no and sqlite",
    ),
    Control(
        name="an approval is for one request",
        file=APPROVALS,
        guard="approvals.c.request_hash == intent.request_hash,",
        without="approvals.c.request_hash == approvals.c.request_hash,",
        test=f"{TEST}::test_an_approval_opens_no_other_step and sqlite",
    ),
    Control(
        name="an approval is for one request as it is sent",
        file=APPROVALS,
        guard='if held is None or (intent.purpose is Purpose.CALL and held.shown.get("request_sha256") '
        "!= intent.request_sha256):",
        without="if held is None:",
        test=f"{TEST}::test_an_approval_opens_no_call_that_is_written_otherwise and sqlite",
    ),
    Control(
        name="what is sent is what approvers were shown",
        file="pipeline/execution/approval_wait.py",
        guard='parameters=action.model_dump(mode="json"),',
        without='parameters={**action.model_dump(mode="json"), "amount": "1.00"},',
        test="tests/payments/test_paid_as_shown.py::test_no_sequence_of_events",
        says="not as shown",
    ),
    Control(
        name="a yes to one payment pays no other",
        file=APPROVALS,
        guard="if held is not None and not _same(held, intent, shown):",
        without="if False:",
        also=(
            Line(
                file=APPROVALS,
                guard="approvals.c.request_hash == intent.request_hash,",
                without="approvals.c.request_hash == approvals.c.request_hash,",
            ),
            Line(
                file=APPROVALS,
                guard='if held is None or (intent.purpose is Purpose.CALL and held.shown.get("request_sha256") '
                "!= intent.request_sha256):",
                without="if held is None:",
            ),
        ),
        test="tests/payments/test_paid_as_shown.py::test_hundreds_of_sequences",
        says="not as shown",
    ),
    Control(
        name="an approver keeps their authority",
        file=APPROVERS,
        guard="elif standing.revoked >= accepted:",
        without="elif False:",
        test=f"{WHO}::test_a_yes_of_somebody_who_lost_their_authority and sqlite",
    ),
    Control(
        name="an opening waits for the revocation of an approver",
        file="pipeline/steps/openings.py",
        guard="lock_shared(connection, (*intent.lease.scope_list, *approver_scopes(intent.approval)))",
        without="lock_shared(connection, intent.lease.scope_list)",
        test=f"{TEST}::test_an_opening_beside_the_revocation and postgresql",
    ),
    Control(
        name="whoever lost their authority has no answer",
        file=VOTES,
        guard="why_not = barred(connection, held.job_id, [given.principal]).get(given.principal)",
        without="why_not = None",
        test=f"{WHO}::test_whoever_lost_their_authority_since_it_was_asked and sqlite",
    ),
    Control(
        name="a yes of whoever turns out to have asked",
        file=APPROVALS,
        guard="return frozenset(said) - set(barred(connection, held.job_id, said))",
        without="return frozenset(said)",
        test=f"{WHO}::test_a_yes_of_whoever_turns_out_to_have_asked and sqlite",
    ),
    Control(
        name="one person counts once",
        file="pipeline/approvals/needs.py",
        guard="said = set(yes)",
        without="said = set(yes) | {'acme.carol'}",
        test=f"{TEST}::test_a_quorum_of_two_needs_two_people and sqlite",
    ),
    Control(
        name="an answer comes from our own page",
        file="webhooks/approvals.py",
        guard='if not from_own_page(settings.base_url) or said not in ("yes", "no"):',
        without='if said not in ("yes", "no"):',
        test="tests/webhooks/test_approval_page.py::test_no_other_site_sends_an_answer",
    ),
    Control(
        name="a person is looked up at whoever signed",
        file="identity/principals.py",
        guard='return _alias(provider, external).where(aliases.c.tenant_id == bindparam("tenant"))',
        without="return _alias(provider, external).where(aliases.c.tenant_id.is_not(None))",
        test="tests/identity/test_connect.py::test_two_tenants_know_the_same_login_independently and sqlite",
    ),
    Control(
        name="a tool takes no parameter that it does not declare",
        file="pipeline/action.py",
        guard='model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)',
        without="model_config = ConfigDict(frozen=True, allow_inf_nan=False)",
        test="tests/api/test_execute.py::test_parameters_that_do_not_fit_are_told_of",
    ),
    Control(
        name="a parameter has the form that its schema says",
        file="tasks/actions/invoices.py",
        guard=(
            'InvoiceId = Annotated[str, Field(pattern=r"^inv_[A-Za-z0-9]{1,40}$", '
            'description="the invoice\'s id, as inv_7")]'
        ),
        without="InvoiceId = str",
        test="tests/payments/test_payments.py::test_a_parameter_that_does_not_fit_the_schema",
    ),
)
