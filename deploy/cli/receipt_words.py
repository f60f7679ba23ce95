"""Receipts in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from deploy.cli.output import Output
from pipeline.revoker.unasked import why_not_asked

_COMPENSATION = {"queued": "to be compensated", "done": "compensated"}

NAMED = 50  # jobs and accounts listed one by one; the total is always given


def summary(receipt: Mapping[str, Any]) -> str:
    """Summarize a receipt in a sentence."""
    began, ended = (datetime.fromisoformat(receipt[name]) for name in ("effective_at", "quiesced_at"))
    calls, narrowing = receipt["in_flight"], receipt.get("narrowing")
    presumed = sum(call["ended"] != "ended" for call in calls)
    how = f"{len(calls)} call(s) were in flight and have ended"
    if presumed:
        how += f", {presumed} of them presumably: no answer came before their deadline"
    took = (ended - began).total_seconds()
    if narrowing is not None:
        keeps = ", ".join(narrowing["keeps"]) or "no scope"
        what = f"{', '.join(narrowing['took'])} taken, {keeps} kept"
        return f"{what}; of what needed them {how}, {took:.1f} s from start to end."
    return f"{receipt['cancelled_count']} job(s) cancelled, {how}, {took:.1f} s from start to end."


def tell_receipt(out: Output, receipt: Mapping[str, Any]) -> None:
    """Print a receipt's contents for people."""
    out.sentence(summary(receipt))
    if receipt["finished_jobs"]:
        out.sentence(f"Ended by themselves before their next step: {', '.join(receipt['finished_jobs'])}")
    if receipt["skipping_jobs"]:
        skipping = f"{receipt['skipping_jobs']} job(s) had not finished by then"  # a later step may still stop them
        out.sentence(f"{skipping}, and could go on without the steps that needed it.")
    if receipt["in_flight"]:
        out.table(receipt["in_flight"], ("attempt", "job", "principal", "ended", "outcome"))
    if asked := receipt.get("token_requests"):
        out.sentence(
            f"{len(asked)} token request(s) were in flight; tokens they obtained afterwards are used by nobody:"
        )
        out.table(asked, ("id", "kind", "account", "began_at", "outcome"))
    for unknown in {call["job"]: call for call in receipt["in_flight"] if call["outcome"] == "unknown"}:
        out.sentence(
            f"A call of {unknown} has an unknown outcome: check at the provider, then see `aswhom jobs show {unknown}`."
        )
    for one in receipt["compensations"]:
        by = f" by {one['by_job']}" if one["by_job"] else ""
        why = f": {one['reason']}" if one["reason"] else ""
        out.sentence(f"{one['action']} of {one['job']}: {_COMPENSATION.get(one['outcome'], one['outcome'])}{by}{why}")
    for job in receipt["cancelled_jobs"][:NAMED]:
        out.sentence(f"cancelled {job}")
    if receipt["cancelled_count"] > NAMED:
        out.sentence(f"… all {receipt['cancelled_count']}: `aswhom revocations jobs {receipt['revocation']}`")
    _tell_provider(out, receipt)


def _tell_provider(out: Output, receipt: Mapping[str, Any]) -> None:
    match receipt["provider"]["answer"]:
        case "not_asked":
            out.sentence(f"The provider was not asked: {why_not_asked(receipt)}.")
        case "stuck":
            out.sentence(f"STUCK at the provider: act, then `aswhom revocations retry {receipt['revocation']}`.")
        case "given_up":
            out.sentence("Given up when the tenant was deleted: what was stuck may still be valid at the provider.")
        case answer:
            out.sentence(f"At the provider: {answer}.")
    accounts = receipt["provider"]["accounts"]
    for one in accounts[:NAMED]:
        why = f": {one['reason']}" if one["reason"] else ""
        out.sentence(f"{one['account']}, generation {one['generation']} ({one['of']}): {one['answer']}{why}")
    if len(accounts) > NAMED:
        out.sentence(f"… all {len(accounts)}: `aswhom revocations show {receipt['revocation']} --json`")
