"""The conclusion from an attempt's answer. Nothing is done here except logging a bug."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from identity.http.client import NoAnswer, NotSent
from identity.model import Effect
from identity.quoting import kept
from pipeline.action import Action, Call, Response, Result, UnreadableAnswer, Verdict
from pipeline.bugs import log_bug
from pipeline.states import Purpose
from pipeline.throttle.limits import LONGEST_WAIT

log = logging.getLogger(__name__)

#: GitHub, Slack, Stripe (https://docs.stripe.com/api/request_ids), and everybody else.
_REQUEST_IDS = ("x-github-request-id", "x-slack-req-id", "request-id", "x-request-id")
_LONGEST_REASON = 2_000


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The verdict, and the result of a success in stored form; None from a probe means "it had no effect"."""

    verdict: Verdict
    reason: str = ""
    result: Mapping[str, Any] | None = None
    external_id: str | None = None
    retry_after: timedelta | None = None
    status: int | None = None
    upstream_request_id: str | None = None
    bug: bool = False  # the action has a bug in reading the answer, which says nothing about the upstream


def conclude(action: Action[Any], call: Call, purpose: Purpose, answer: Response | NotSent | NoAnswer) -> Conclusion:
    """Turn an answer into a verdict. Reads and probes have no effect, so they are never unknown but asked again."""
    reads = purpose is Purpose.PROBE or action.facts.effect is Effect.READ
    if isinstance(answer, NotSent):
        return Conclusion(verdict=Verdict.FAILED if answer.final else Verdict.RETRY, reason=answer.reason)
    if isinstance(answer, NoAnswer):
        return Conclusion(verdict=Verdict.RETRY if reads else Verdict.UNKNOWN, reason=answer.reason)
    try:
        conclusion = _read(action, call, purpose, answer)
    except UnreadableAnswer as error:
        conclusion = _unreadable(str(error))
    # A bug in the action must not lose the answer, which is not stored yet. The bug's text may quote the answer.
    except Exception as bug:  # noqa: BLE001 - any error
        what = f"{action.action_name()} cannot read the answer (status {answer.status})"
        log_bug(log, what, bug, action="attempt.unreadable")
        conclusion = replace(_unreadable(f"{what}: {type(bug).__name__}"), bug=True)
    if reads and conclusion.verdict is Verdict.UNKNOWN:
        conclusion = replace(conclusion, verdict=Verdict.RETRY)
    return replace(conclusion, status=answer.status, upstream_request_id=_request_id(answer))


def _read(action: Action[Any], call: Call, purpose: Purpose, answer: Response) -> Conclusion:
    """Let the action interpret the answer."""
    judgement = action.judge(answer)
    result: Result | None = None
    if judgement.verdict is Verdict.SUCCESS:
        result = action.found(answer, call) if purpose is Purpose.PROBE else action.read(answer)
        if result is None and purpose is Purpose.CALL:
            raise UnreadableAnswer(f"{action.action_name()}.read returned no result")
    external_id = None if result is None else action.external_id(result)
    return Conclusion(
        verdict=judgement.verdict,
        reason=kept(judgement.reason, longest=_LONGEST_REASON),
        result=None if result is None else result.model_dump(mode="json"),
        external_id=None if external_id is None else kept(external_id),
        retry_after=judgement.retry_after and min(judgement.retry_after, LONGEST_WAIT),
    )


def _unreadable(reason: str) -> Conclusion:
    return Conclusion(verdict=Verdict.UNKNOWN, reason=kept(reason, longest=_LONGEST_REASON))


def _request_id(answer: Response) -> str | None:
    """Return the upstream's id of the request, to quote to its support."""
    named = (answer.headers[name] for name in _REQUEST_IDS if answer.headers.get(name))
    return next((kept(name) for name in named), None)
