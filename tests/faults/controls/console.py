"""What each guard of the console is for: without it, the test that watches it fails."""

from __future__ import annotations

from tests.faults.control import Control

ACCESS, SIGN_IN = "tests/console/test_access.py", "tests/console/test_sign_in.py"
ODD_PROVIDER, ACTS = "tests/console/test_odd_provider.py", "tests/console/test_acts.py"

CONTROLS = (
    Control(
        name="a form carries its session's token",
        file="webhooks/console/door.py",
        guard='if request.method == "POST" and (not self.is_ours() or not _carries(g.visitor.csrf)):',
        without='if request.method == "POST" and not self.is_ours():',
        test=f"{ACCESS}::test_a_form_that_is_not_from_a_page",
    ),
    Control(
        name="a page needs its role",
        file="webhooks/console/door.py",
        guard="if need is None or not g.visitor.may_anywhere(need):",
        without="if False:",
        test=f"{ACCESS}::test_a_role_may_what_the_documents_say and auditor",
    ),
    Control(
        name="a thing is its tenant's",
        file="webhooks/console/access.py",
        guard="if visitor().may(need(), tenant):",
        without="if True:",
        test=f"{ACCESS}::test_a_tenants_people_act_on_nothing",
    ),
    Control(
        name="the browser that began to sign in",
        file="identity/console/sign_in.py",
        guard='if not hmac.compare_digest(answer.get("state", "").encode(), _derived(browser, "state").encode()):',
        without="if False:",
        test=f"{ODD_PROVIDER}::test_an_answer_that_is_not_of_this_sign_in",
    ),
    Control(
        name="an address that was verified",
        file="identity/console/roles.py",
        guard='if name == "email" and claims.get("email_verified") is not True:',
        without="if False:",
        test=f"{SIGN_IN}::test_an_address_that_nobody_verified and sqlite",
    ),
    Control(
        name="whoever takes a role away waits for a sign-in by it",
        file="identity/console/roles.py",
        guard="rows = connection.execute(everybodys.with_for_update(read=True)).all()",
        without="rows = connection.execute(everybodys).all()",
        test=f"{SIGN_IN}::test_whoever_takes_a_role_away",
    ),
    Control(
        name="a form of the console comes from our own page",
        file="webhooks/console/door.py",
        guard='if request.method == "POST" and (not self.is_ours() or not _carries(g.visitor.csrf)):',
        without='if request.method == "POST" and not _carries(g.visitor.csrf):',
        test=f"{ACCESS}::test_a_form_that_is_not_from_a_page",
    ),
    Control(
        name="a person's word is of the call that they were shown",
        file="pipeline/steps/resolution.py",
        guard="if not closing or set(found_out.calls) != {attempt.id for attempt in closing}:",
        without="if False:",
        test=f"{ACTS}::test_a_persons_word_counts_for_the_call and sqlite",
    ),
    Control(
        name="a button replays what it counted",
        file="pipeline/views/dead_letters.py",
        guard="found = select(jobs.c.id, jobs.c.reason).where(REPLAYABLE, jobs.c.id.in_(shown))",
        without="found = select(jobs.c.id, jobs.c.reason).where(REPLAYABLE)",
        test=f"{ACTS}::test_all_that_one_cause_killed and sqlite",
    ),
    Control(
        name="a form that is sent twice revokes once",
        file="pipeline/desk/revocations.py",
        guard="if found is None:",
        without="if True:",
        test=f"{ACTS}::test_revoking_shows_first and sqlite",
    ),
)
