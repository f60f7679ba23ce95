"""The ledger held against the sandbox's own logs: who did each step, and with which kind of token."""

from __future__ import annotations

from collections import Counter
from typing import Any

from deploy.demo.sight import Sight
from deploy.demo.stage import Stage, by_id

UPSTREAMS = ("github", "linear", "slack", "invoices")
TOKENS = {"delegated": "user", "capability": "capability"}
SERVICE_TOKENS = {"github": "installation", "linear": "app", "slack": "bot"}


def disagreements(stage: Stage, sight: Sight, document: dict[str, Any]) -> list[str]:
    """Everything in which the ledger and the sandbox's logs do not agree, in words; none is what is hoped for."""
    logs = {name: stage.sandbox(name, "log") for name in UPSTREAMS}
    found = _of_attempts(sight, {name: by_id(log) for name, log in logs.items()})
    found += _of_requests(sight, logs)
    found += _of_presentations(stage)
    found += _of_the_story(document)
    return found


def _of_attempts(sight: Sight, logs: dict[str, dict[str, Any]]) -> list[str]:
    """Each attempt, beside the request that the upstream saw."""
    found = []
    for attempt in sight.attempts():
        provider = attempt["action"].partition(".")[0]
        seen = logs[provider].get(attempt["id"])
        if seen is None:
            if attempt["status"] is not None:
                found.append(f"attempt {attempt['id']} was answered, but {provider} never saw it")
            continue
        delegated = attempt["pattern"] in ("delegated", "capability")
        kind = TOKENS.get(attempt["pattern"]) or SERVICE_TOKENS[provider]
        if seen["token_kind"] not in (kind, "none"):
            found.append(
                f"attempt {attempt['id']} is {attempt['pattern']}, but {provider} saw a {seen['token_kind']} token"
            )
        if delegated and seen["actor"] is not None and not f".{attempt['principal_id']}".endswith(f".{seen['actor']}"):
            found.append(f"attempt {attempt['id']} is {attempt['principal_id']}'s, but {provider} saw {seen['actor']}")
        if attempt["state"] == "effect" and not 200 <= (seen["status"] or 0) < 300:
            found.append(f"attempt {attempt['id']} had its effect, but {provider} answered {seen['status']}")
    return found


def _of_requests(sight: Sight, logs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Each request that changed something carries an attempt of ours, once."""
    known = {attempt["id"] for attempt in sight.attempts()}
    found = []
    for provider, log in logs.items():
        ours = [entry for entry in log if entry["attempt"] or (entry["effect"] and not _is_no_step(entry))]
        found += [f"{provider} saw a request of no attempt: {e['path']}" for e in ours if e["attempt"] not in known]
        done = Counter(entry["idempotency_key"] for entry in log if entry["effect"] and entry["idempotency_key"])
        found += [f"{provider} did one step {number} times" for number in done.values() if number > 1]
    return found


def _is_no_step(entry: dict[str, Any]) -> bool:
    """The app's own requests: minting an installation's token, and ending what was revoked."""
    return "/access_tokens" in entry["path"] or entry["revocation"] is not None


def _of_presentations(stage: Stage) -> list[str]:
    shown = Counter(
        entry["fingerprint"] for entry in stage.sandbox("auth", "presentations") if entry["kind"] == "refresh_token"
    )
    return [f"a refresh token was presented {number} times" for number in shown.values() if number > 1]


def _of_the_story(document: dict[str, Any]) -> list[str]:
    """What the story is about has to be in it."""
    renewed = [r for r in document["refreshes"] if r["principal"] == "acme.ada" and r["outcome"] == "committed"]
    patterns = {step["pattern"] for step in document["steps"] if step["status"] == "done"}
    wanted = {
        "no token was refreshed in the middle": bool(renewed),
        "no queued job was cancelled": bool(document["cancelled_jobs"]),
        "the receipt's signature does not hold": document["receipt"].get("signature_holds", False),
        "the receipt does not list the cancelled jobs": set(document["receipt"].get("cancelled_jobs", ()))
        == {job["job"] for job in document["cancelled_jobs"]},
        "nothing was compensated": any(c["outcome"] == "done" for c in document["receipt"].get("compensations", ())),
        "the provider did not end what an operator revoked": document["provider_receipt"].get("signature_holds", False)
        and document["provider_receipt"]["provider"]["answer"] == "done",
        "the audit's chain is broken": document["audit_verified"],
        "not every pattern was used": patterns >= {"delegated", "service", "capability"},
        "not each invoice was paid once": [m["amount"] for m in document["payments"]] == ["480.00", "12500.00"],
        "nobody approved the larger one": document["approved_by"] == ["acme.grace"],
        "a token that was replayed was not refused": {r["status"] for r in document["replays"]} == {401},
        "not three tenants' work was done": {s["principal"] for s in document["steps"] if s["status"] == "done"}
        >= {"acme.ada", "acme.grace", "globex.linus", "acme.service", "globex.service", "initech.service"},
    }
    return [fault for fault, holds in wanted.items() if not holds]
