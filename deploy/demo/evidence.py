"""Comparison of the ledger with the sandbox's logs: who did each step, and with which kind of token."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.demo.sight import Sight
from deploy.demo.stage import Stage
from pipeline.states import JobState

UPSTREAMS = ("github", "linear", "slack", "salesforce", "stripe", "invoices")
TOKENS = {"delegated": "user", "capability": "capability"}
SERVICE_TOKENS = {"github": "installation", "linear": "app", "slack": "bot", "stripe": "key"}
# The workflows that the acts start, and their queues. Each must have a done job: an ended one may have done nothing.
WORKFLOWS = {
    "update_opportunity": "delegated",
    "billing_reconciliation": "service",
    "announce_review": "service",
    "link_pull_request": "hybrid",
    "close_issues": "hybrid",
    "pay_invoice": "capability",
}
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The ledger's contents, and what the sandbox saw."""

    document: Row
    attempts: Iterable[Row]
    records: int  # number of audit records
    reads: frozenset[str]  # read-only actions
    logs: Mapping[str, Iterable[Row]]  # requests seen by each upstream
    presentations: Iterable[Row]  # credentials presented to the authorization server


def gathered(stage: Stage, sight: Sight, document: Row) -> Evidence:
    """Collect the evidence at the end of the story."""
    return Evidence(
        document=document,
        attempts=sight.attempts(),
        records=sight.records(),
        reads=sight.reads(),
        logs={name: stage.sandbox(name, "log") for name in UPSTREAMS},
        presentations=stage.sandbox("auth", "presentations"),
    )


def disagreements(evidence: Evidence) -> list[str]:
    """Describe every disagreement between the ledger and the sandbox's logs. None are expected."""
    return [
        *_of_attempts(evidence),
        *_of_requests(evidence),
        *_of_presentations(evidence),
        *_of_the_story(evidence),
    ]


def _of_attempts(evidence: Evidence) -> list[str]:
    """Compare each attempt with the one request that its upstream saw."""
    seen: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for provider, log in evidence.logs.items():
        for entry in log:
            seen[provider, entry["attempt"]].append(entry)
    found = []
    for attempt in evidence.attempts:
        provider, id = attempt["action"].partition(".")[0], attempt["id"]
        match seen.get((provider, id), []):
            case []:
                if attempt["status"] is not None:
                    found.append(f"attempt {id} was answered, but {provider} never saw it")
            case [request]:
                found += _of_one(attempt, request, provider, reads=attempt["action"] in evidence.reads)
            case requests:
                found.append(f"attempt {id} came to {provider} {len(requests)} times")
    return found


def _of_one(attempt: Row, request: Row, provider: str, *, reads: bool) -> list[str]:
    id, whose, pattern = attempt["id"], attempt["principal_id"], attempt["pattern"]
    found = []
    kind = TOKENS.get(pattern) or SERVICE_TOKENS[provider]
    if request["token_kind"] not in (kind, "none"):
        found.append(f"attempt {id} is {pattern}, but {provider} saw a {request['token_kind']} token")
    tenant, _, name = whose.partition(".")
    if request["tenant"] not in (None, tenant):
        found.append(f"attempt {id} is {tenant}'s, but {provider} saw a token of {request['tenant']}'s")
    if pattern in TOKENS and request["actor"] not in (None, name, whose):
        found.append(f"attempt {id} is {whose}'s, but {provider} saw {request['actor']}")
    done = 200 <= (request["status"] or 0) < 300 and (reads or request["effect"])
    if attempt["state"] == "effect" and not done:
        found.append(f"attempt {id} had its effect, but {provider} answered {request['status']} and did nothing")
    if attempt["state"] == "no_effect" and request["effect"]:
        found.append(f"attempt {id} had no effect, but {provider} did what it asked")
    return found


def _of_requests(evidence: Evidence) -> list[str]:
    """Check that each request with an effect carries one of our attempts, exactly once."""
    known = {attempt["id"] for attempt in evidence.attempts}
    found = []
    for provider, log in evidence.logs.items():
        ours = [entry for entry in log if entry["attempt"] or (entry["effect"] and not _is_no_step(entry))]
        found += [f"{provider} saw a request of no attempt: {e['path']}" for e in ours if e["attempt"] not in known]
        done = Counter(entry["idempotency_key"] for entry in log if entry["effect"] and entry["idempotency_key"])
        found += [f"{provider} did one step {number} times" for number in done.values() if number > 1]
    return found


def _is_no_step(entry: Row) -> bool:
    """True for the app's own requests: minting an installation token, and ending a revoked credential."""
    return "/access_tokens" in entry["path"] or entry["revocation"] is not None


def _of_presentations(evidence: Evidence) -> list[str]:
    """Check that no refresh token was presented twice, and that people's committed and granted renewals agree."""
    shown = [entry for entry in evidence.presentations if entry["kind"] == "refresh_token"]
    often = Counter(entry["fingerprint"] for entry in shown)
    found = [f"a refresh token was presented {number} times" for number in often.values() if number > 1]
    granted = Counter(entry["refresh"] for entry in shown if entry["outcome"] == "ok")
    ours = {
        row["refresh"]
        for row in evidence.document["refreshes"]
        if row["credential"] == "authorization_code" and row["outcome"] == "committed"
    }
    found += [f"refresh {id} is committed, but was not granted once" for id in sorted(ours) if granted[id] != 1]
    found += [f"a refresh was granted that is not committed: {id}" for id in granted if id not in ours]
    return found


def _of_the_story(evidence: Evidence) -> list[str]:
    """Check that everything the story is about happened."""
    document = evidence.document
    receipt, ended = document["receipt"], document["provider_receipt"]
    renewed = {
        refresh["provider"]
        for refresh in document["refreshes"]
        if refresh["principal"] == "acme.ada" and refresh["outcome"] == "committed"
    }
    done = [step for step in document["steps"] if step["status"] == "done"]
    cancelled = [job["job"] for job in document["cancelled_jobs"]]
    finished = {(job["workflow"], job["pattern"]) for job in document["jobs"] if job["state"] == JobState.DONE}
    checked = [(row["exit"], row["verified"], row["revocation"]) for row in document["verified"]]
    withdrawn, revoked = receipt.get("revocation"), ended.get("revocation")
    commented = {entry["attempt"] for entry in evidence.logs["github"] if entry["effect"]}
    stopped = {attempt["id"] for attempt in evidence.attempts if attempt["job_id"] in cancelled}
    wanted = {
        **{f"no {pattern} job of {name} is done": (name, pattern) in finished for name, pattern in WORKFLOWS.items()},
        **{f"job {job['job']} is dead": job["state"] != JobState.DEAD for job in document["jobs"]},
        "no token was refreshed in the middle": "github" in renewed,
        "no session was renewed at Salesforce": "salesforce" in renewed,
        "the deal is not won, by who owns it": (document["deal"]["stage"], document["deal"]["by"])
        == ("Closed Won", "ada"),
        "no difference was noted at Stripe": any("aswhom_reconciliation" in row for row in document["noted"]),
        "no queued job was cancelled": bool(cancelled),
        "GitHub did something for a job that was cancelled": not stopped & commented,
        "an auditor could not tell the receipts from the altered one": checked
        == [(0, True, revoked), (0, True, withdrawn), (0, True, withdrawn), (1, False, withdrawn)],
        "the receipt does not list the cancelled jobs": set(receipt.get("cancelled_jobs", ())) == set(cancelled),
        "nothing was compensated": any(c["outcome"] == "done" for c in receipt.get("compensations", ())),
        "the receipt does not say that the provider ended what an operator revoked": ended["provider"]["answer"]
        == "done",
        "GitHub did not end what an operator revoked": any(
            entry["revocation"] == revoked and entry["effect"] and entry["tenant"] == "globex"
            for entry in evidence.logs["github"]
            if entry["revocation"] is not None
        ),
        "the audit's chain is broken": document["audit_verified"],
        "the audit has fewer records than there were calls": evidence.records >= len(list(evidence.attempts)) > 0,
        "not every pattern was used": {step["pattern"] for step in done} >= {"delegated", "service", "capability"},
        "no job was hybrid": bool(_of_several(done)),
        "not each invoice was paid once": [m["amount"] for m in document["payments"]] == ["480.00", "12500.00"],
        "nobody approved the larger one": document["approved_by"] == ["acme.grace"],
        "a token that was replayed was not refused as spent, and as another request's": [
            (answer["status"], answer["reason"] in reasons)
            for answer, reasons in zip(document["replays"], (("closed", "spent"), ("request",)), strict=False)
        ]
        == [(401, True), (401, True)],
        "not three tenants' work was done": {step["principal"] for step in done}
        >= {"acme.ada", "acme.grace", "globex.linus", "acme.service", "globex.service", "initech.service"},
    }
    return [fault for fault, holds in wanted.items() if not holds]


def _of_several(done: Iterable[Row]) -> set[str]:
    """Return the jobs that acted both as a person and as the platform."""
    patterns: dict[str, set[str]] = defaultdict(set)
    for step in done:
        patterns[step["job"]].add(step["pattern"])
    return {job for job, used in patterns.items() if used >= {"delegated", "service"}}
