"""What came of an attempt: a pure function of the action, the purpose and what came back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from identity.http import NoAnswer, NotSent
from identity.model import Effect
from identity.quoting import kept
from pipeline.action import Action, Call, Judgement, Response, Result, UnreadableAnswer, Verdict
from pipeline.limits import LONGEST_WAIT
from pipeline.states import Purpose

#: GitHub's, Slack's, Stripe's (https://docs.stripe.com/api/request_ids), and everybody else's.
_REQUEST_IDS = ("x-github-request-id", "x-slack-req-id", "request-id", "x-request-id")
_LONGEST_REASON = 2_000


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The verdict, and the result of a success; of a probe, None is "it had no effect"."""

    verdict: Verdict
    reason: str = ""
    result: Result | None = None
    retry_after: timedelta | None = None
    status: int | None = None
    upstream_request_id: str | None = None


def conclude(action: Action[Any], call: Call, purpose: Purpose, answer: Response | NotSent | NoAnswer) -> Conclusion:
    """Turn an answer into a verdict. A read or a probe has no effect, so it is never unknown: it is asked again."""
    reads = purpose is Purpose.PROBE or action.facts.effect is Effect.READ
    if isinstance(answer, NotSent):
        return Conclusion(verdict=Verdict.FAILED if answer.final else Verdict.RETRY, reason=answer.reason)
    if isinstance(answer, NoAnswer):
        return Conclusion(verdict=Verdict.RETRY if reads else Verdict.UNKNOWN, reason=answer.reason)
    result: Result | None = None
    try:
        judgement = action.judge(answer)
        if judgement.verdict is Verdict.SUCCESS:
            result = action.found(answer, call) if purpose is Purpose.PROBE else action.read(answer)
    except UnreadableAnswer as error:
        judgement = Judgement(verdict=Verdict.UNKNOWN, reason=str(error))
    verdict = judgement.verdict
    if reads and verdict is Verdict.UNKNOWN:
        verdict = Verdict.RETRY
    return Conclusion(
        verdict=verdict,
        reason=kept(judgement.reason, longest=_LONGEST_REASON),
        result=result,
        retry_after=judgement.retry_after and min(judgement.retry_after, LONGEST_WAIT),
        status=answer.status,
        upstream_request_id=_request_id(answer),
    )


def _request_id(answer: Response) -> str | None:
    """What the upstream calls the request, for whoever asks its support."""
    named = (answer.headers[name] for name in _REQUEST_IDS if answer.headers.get(name))
    return next((kept(name) for name in named), None)
