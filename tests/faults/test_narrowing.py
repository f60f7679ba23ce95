"""A narrowing beside running processes, proven from the upstream's own log."""

from __future__ import annotations

from pipeline.states import JobState, Wait
from tests.faults.books import balance
from tests.faults.gated import start_gated
from tests.faults.receipts import receipt_of
from tests.faults.revoking import narrowing
from tests.system.rig import System


def test_after_a_narrowing_only_the_call_that_was_out_needs_what_it_took(system: System) -> None:
    """One worker thread, stopped between its intent and the socket; two more jobs wait behind it."""
    system.connect("acme", "ada")
    for _ in range(3):
        system.pull("acme/shop", "ada", "bug")
    narrow = narrowing(system, system.account("acme", "linear-acme", "ada"), "read", "comments:create")
    # The first pass reads the pull request, as the service; the second makes an issue, as her.
    gate = start_gated(system, "before_call", passes=2, concurrency=1)
    made = narrow().id
    gate.open()
    receipt = receipt_of(system, made)
    (call,) = receipt["in_flight"]
    assert (call["ended"], call["outcome"]) == ("ended", "effect")
    assert receipt["narrowing"]["took"] == ["issues:create", "write"]
    found = sorted((job.state, job.wait) for job in system.settled())
    assert found == [(JobState.DONE, None), *[(JobState.WAITING, Wait.CONSENT)] * 2], (
        "its job needs nothing of it after"
    )
    issues = [entry for entry in system.sandbox("linear", "log") if entry["operation"] == "issueCreate"]
    assert [entry["attempt"] for entry in issues] == [call["attempt"]]
    balance(system)
