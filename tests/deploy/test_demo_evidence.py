"""The demo's reckoning: what agrees is quiet, and whatever the sandbox saw otherwise is told."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from deploy.demo.evidence import Evidence, disagreements

Change = Callable[[dict[str, Any]], None]


def step(job: str, principal: str, pattern: str) -> dict[str, Any]:
    return {"job": job, "principal": principal, "pattern": pattern, "status": "done"}


def job(id: str, workflow: str, pattern: str, state: str = "done") -> dict[str, Any]:
    return {"job": id, "workflow": workflow, "pattern": pattern, "state": state}


def verified(revocation: str, *, holds: bool) -> dict[str, Any]:
    return {"exit": 0 if holds else 1, "verified": holds, "revocation": revocation}


def refresh(id: str, principal: str, provider: str, credential: str) -> dict[str, Any]:
    whose = {"principal": principal, "provider": provider, "credential": credential}
    return {"refresh": id, "outcome": "committed", **whose}


def attempt(
    id: str, action: str, principal: str, pattern: str, *, state: str = "effect", job: str = "job_1"
) -> dict[str, Any]:
    who = {"principal_id": principal, "pattern": pattern, "job_id": job}
    return {"id": id, "action": action, "state": state, "status": 200, **who}


def request(attempt: str | None, kind: str, actor: str | None, **more: Any) -> dict[str, Any]:
    usual = {"tenant": "acme", "status": 200, "effect": True, "revocation": None, "path": "/x"}
    return {"attempt": attempt, "token_kind": kind, "actor": actor, "idempotency_key": attempt, **usual, **more}


def sound() -> dict[str, Any]:
    """A small story in which everything agrees, as what `Evidence` is made of."""
    document = {
        "steps": [
            step("job_1", "acme.ada", "delegated"),
            step("job_1", "acme.service", "service"),
            step("job_2", "acme.ada", "capability"),
            *(step("job_3", who, "delegated") for who in ("acme.grace", "globex.linus")),
            *(step("job_4", who, "service") for who in ("globex.service", "initech.service")),
        ],
        "refreshes": [
            refresh("ref_1", "acme.ada", "github", "authorization_code"),
            refresh("ref_2", "acme.service", "github", "installation"),
            refresh("ref_3", "acme.ada", "salesforce", "authorization_code"),
        ],
        "jobs": [
            job("job_1", "link_pull_request", "hybrid"),
            job("job_2", "pay_invoice", "capability"),
            job("job_3", "announce_review", "service"),
            job("job_4", "close_issues", "hybrid"),
            job("job_5", "link_pull_request", "hybrid", "cancelled"),
            job("job_6", "update_opportunity", "delegated"),
            job("job_7", "billing_reconciliation", "service"),
        ],
        "cancelled_jobs": [{"job": "job_5"}],
        "deal": {"stage": "Closed Won", "by": "ada"},
        "noted": [{"subscription": "sub_1", "aswhom_reconciliation": "agreed 3, invoiced 2 eur"}],
        "receipt": {"revocation": "rev_0", "cancelled_jobs": ["job_5"], "compensations": [{"outcome": "done"}]},
        "provider_receipt": {"revocation": "rev_1", "provider": {"answer": "done"}},
        "verified": [
            verified("rev_1", holds=True),
            verified("rev_0", holds=True),
            verified("rev_0", holds=True),
            verified("rev_0", holds=False),
        ],
        "payments": [{"amount": "480.00"}, {"amount": "12500.00"}],
        "approved_by": ["acme.grace"],
        "replays": [{"status": 401, "reason": "closed"}, {"status": 401, "reason": "request"}],
        "audit_verified": True,
    }
    return {
        "document": document,
        "attempts": [
            attempt("att_1", "github.Comment", "acme.ada", "delegated"),
            attempt("att_2", "slack.PostMessage", "acme.service", "service"),
            attempt("att_3", "github.GetPull", "acme.service", "service"),
            attempt("att_4", "invoices.PayInvoice", "acme.ada", "capability"),
            attempt("att_5", "linear.CreateIssue", "acme.ada", "delegated", state="no_effect", job="job_5"),
            attempt("att_6", "salesforce.UpdateOpportunity", "acme.ada", "delegated", job="job_6"),
            attempt("att_7", "stripe.AnnotateSubscription", "acme.service", "service", job="job_7"),
        ],
        "records": 20,
        "reads": frozenset({"github.GetPull"}),
        "logs": {
            "github": [
                request("att_1", "user", "ada"),
                request("att_3", "installation", "aswhom-sandbox[bot]", effect=False),
                request(None, "app", "aswhom-sandbox", tenant="globex", revocation="rev_1"),
            ],
            "slack": [request("att_2", "bot", "U1")],
            "invoices": [request("att_4", "capability", "acme.ada")],
            "linear": [request("att_5", "user", "ada", status=429, effect=False)],
            "salesforce": [request("att_6", "user", "ada")],
            "stripe": [request("att_7", "key", "acct_1")],
        },
        "presentations": [
            {"kind": "refresh_token", "fingerprint": "f1", "refresh": "ref_1", "outcome": "ok"},
            {"kind": "refresh_token", "fingerprint": "f3", "refresh": "ref_3", "outcome": "ok"},
            {"kind": "authorization_code", "fingerprint": "f0", "refresh": None, "outcome": "ok"},
        ],
    }


def of(log: str, number: int, **seen: Any) -> Change:
    return lambda it: it["logs"][log][number].update(seen)


def told(name: str, **said: Any) -> Change:
    return lambda it: it["document"][name].update(said)


def verdict(number: int, **said: Any) -> Change:
    return lambda it: it["document"]["verified"][number].update(said)


def without(*path: str | int) -> Change:
    def change(it: dict[str, Any]) -> None:
        *above, last = path
        found: Any = it
        for name in above:
            found = found[name]
        del found[last]

    return change


def twice(*path: str | int) -> Change:
    def change(it: dict[str, Any]) -> None:
        found: Any = it
        for name in path:
            found = found[name]
        found.append(deepcopy(found[0]))

    return change


def test_what_agrees_is_quiet() -> None:
    assert disagreements(Evidence(**sound())) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (of("slack", 0, tenant="globex"), "att_2 is acme's, but slack saw a token of globex's"),
        (of("github", 0, token_kind="installation"), "att_1 is delegated, but github saw a installation token"),
        (of("github", 0, actor="grace"), "att_1 is acme.ada's, but github saw grace"),
        (of("invoices", 0, actor="globex.ada"), "att_4 is acme.ada's, but invoices saw globex.ada"),
        (of("slack", 0, effect=False), "att_2 had its effect, but slack answered 200 and did nothing"),
        (of("github", 1, status=404), "att_3 had its effect, but github answered 404"),
        (of("linear", 0, effect=True), "att_5 had no effect, but linear did what it asked"),
        (of("salesforce", 0, actor="grace"), "att_6 is acme.ada's, but salesforce saw grace"),
        (of("stripe", 0, token_kind="user"), "att_7 is service, but stripe saw a user token"),
        (without("logs", "stripe", 0), "att_7 was answered, but stripe never saw it"),
        (without("logs", "slack", 0), "att_2 was answered, but slack never saw it"),
        (without("attempts", 0), "github saw a request of no attempt"),
        (twice("logs", "github"), "att_1 came to github 2 times"),
        (twice("logs", "slack"), "slack did one step 2 times"),
        (twice("presentations"), "a refresh token was presented 2 times"),
        (without("presentations", 0), "refresh ref_1 is committed, but was not granted once"),
        (without("document", "refreshes", 0), "a refresh was granted that is not committed: ref_1"),
        (of("github", 2, effect=False), "GitHub did not end what an operator revoked"),
        (of("github", 2, tenant="acme"), "GitHub did not end what an operator revoked"),
        (told("provider_receipt", provider={"answer": "pending"}), "does not say that the provider ended"),
        (lambda it: it["document"]["refreshes"][0].update(provider="linear"), "no token was refreshed in the middle"),
        (lambda it: it["document"]["refreshes"][2].update(provider="linear"), "no session was renewed at Salesforce"),
        (told("deal", stage="Prospecting"), "the deal is not won"),
        (told("deal", by=""), "the deal is not won, by who owns it"),
        (lambda it: it["document"].update(noted=[]), "no difference was noted at Stripe"),
        *(
            (verdict(row, **said), "could not tell the receipts")
            for row, said in ((0, {"verified": False}), (1, {"exit": 1}), (1, {"revocation": "rev_1"}))
        ),
        (verdict(3, exit=0, verified=True), "could not tell the receipts"),
        (without("document", "verified", 3), "could not tell the receipts"),
        (told("receipt", cancelled_jobs=["job_6"]), "does not list the cancelled jobs"),
        (lambda it: it["attempts"][0].update(job_id="job_5"), "GitHub did something for a job that was cancelled"),
        (told("receipt", compensations=[]), "nothing was compensated"),
        (lambda it: it.update(records=4), "fewer records than there were calls"),
        (lambda it: it["document"]["replays"][0].update(reason="key"), "not refused as spent"),
        (without("document", "replays", 1), "not refused as spent"),
        (without("document", "steps", 1), "no job was hybrid"),
        (without("document", "payments", 1), "not each invoice was paid once"),
        (without("document", "steps", 6), "not three tenants' work was done"),
        (without("document", "jobs", 0), "no hybrid job of link_pull_request is done"),
        (without("document", "jobs", 1), "no capability job of pay_invoice is done"),
        (without("document", "jobs", 2), "no service job of announce_review is done"),
        (lambda it: it["document"]["jobs"][3].update(state="dead"), "no hybrid job of close_issues is done"),
        (without("document", "jobs", 5), "no delegated job of update_opportunity is done"),
        (without("document", "jobs", 6), "no service job of billing_reconciliation is done"),
        (lambda it: it["document"]["jobs"][5].update(pattern="hybrid"), "no delegated job of update_opportunity"),
        (lambda it: it["document"]["jobs"][4].update(state="dead"), "job job_5 is dead"),
    ],
)
def test_whatever_was_otherwise_is_told(change: Change, says: str) -> None:
    story = sound()
    change(story)
    assert [one for one in disagreements(Evidence(**story)) if says in one], says


def test_an_empty_story_does_not_agree() -> None:
    story = sound()
    empty = replace(
        Evidence(**story), attempts=[], logs={name: [] for name in story["logs"]}, presentations=[], records=0
    )
    assert len(disagreements(empty)) >= 3
