"""What the upstreams' published headers say of their limits."""

from __future__ import annotations

from datetime import timedelta

import pytest

from identity.model import Effect
from pipeline.action import Response, Verdict, judge_status
from pipeline.throttle.limits import LONGEST_WAIT, Left, Limits, Per
from tasks.actions import github, linear, salesforce, slack, stripe, zendesk

DATE = "Sun, 01 Mar 2026 12:00:00 GMT"  # 1772366400
GITHUB = {"x-ratelimit-limit": "5000", "x-ratelimit-used": "1", "x-ratelimit-resource": "core"}
PULL = github.GetPull(repo="acme/shop", number=1)
ISSUES = linear.FindByAttachmentUrl(url="https://github.com/acme/shop/pull/1")


def answer(headers: dict[str, str] | None = None, *, status: int = 200, body: bytes = b"{}") -> Response:
    named = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
    return Response(status=status, headers={"date": DATE, **named}, body=body)


def window(remaining: str, reset: str) -> dict[str, str]:
    return {"x-ratelimit-remaining": remaining, "x-ratelimit-reset": reset}


# docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
@pytest.mark.parametrize(
    ("response", "limits"),
    [
        (
            answer({**GITHUB, **window("4999", "1772370000")}),
            Limits(left=Left(remaining=4999, limit=5000, resets_in=timedelta(hours=1))),
        ),
        # The primary limit is of its class alone.
        (
            answer({**GITHUB, **window("0", "1772366460")}, status=403),
            Limits(left=Left(remaining=0, limit=5000, resets_in=timedelta(minutes=1))),
        ),
        # A secondary one is of everything, told by retry-after, or by words alone.
        (
            answer({**GITHUB, **window("4000", "1772370000"), "retry-after": "30"}, status=403),
            Limits(left=Left(remaining=4000, limit=5000, resets_in=timedelta(hours=1)), whole=True),
        ),
        (answer(status=403, body=b'{"message": "You have exceeded a secondary rate limit."}'), Limits(whole=True)),
        (answer(status=429), Limits(whole=True)),
        # A plain refusal, and headers that are missing or no numbers, say nothing.
        (answer(status=403, body=b'{"message": "Resource not accessible by integration"}'), Limits()),
        (answer(), Limits()),
        (answer({**GITHUB, **window("-1", "soon")}), Limits()),
    ],
)
def test_github_says_what_is_left_and_which_limit_refused(response: Response, limits: Limits) -> None:
    assert PULL.limits(response) == limits


REQUESTS = {
    "x_ratelimit_requests_limit": "1500",
    "x_ratelimit_requests_remaining": "1400",
    "x_ratelimit_requests_reset": "1772370000000",
}
COMPLEXITY = {
    "x_complexity": "10000",
    "x_ratelimit_complexity_limit": "250000",
    "x_ratelimit_complexity_remaining": "1000",
    "x_ratelimit_complexity_reset": "1772366460000",
}
BY_REQUESTS = Left(remaining=1400, limit=1500, resets_in=timedelta(hours=1))


# linear.app/developers/rate-limiting
@pytest.mark.parametrize(
    ("headers", "left"),
    [
        (REQUESTS, BY_REQUESTS),
        # The tighter of the two, by the share that is left, whatever this answer cost.
        ({**REQUESTS, **COMPLEXITY}, Left(remaining=6, limit=1500, resets_in=timedelta(minutes=1))),
        ({**REQUESTS, **COMPLEXITY, "x_ratelimit_complexity_remaining": "249999"}, BY_REQUESTS),
        (COMPLEXITY, Left(remaining=1000, limit=250000, resets_in=timedelta(minutes=1))),
        ({**REQUESTS, **COMPLEXITY, "x_ratelimit_complexity_limit": "0"}, BY_REQUESTS),
        ({**REQUESTS, "x_ratelimit_complexity_remaining": "0"}, BY_REQUESTS),
        ({}, None),
    ],
)
def test_linear_says_what_is_left_of_the_tighter_of_its_budgets(headers: dict[str, str], left: Left | None) -> None:
    assert ISSUES.limits(answer(headers)) == Limits(left=left)


# docs.slack.dev/apis/web-api/rate-limits: per method and workspace, and nothing but Retry-After.
def test_slack_counts_by_method_and_workspace_and_says_only_when_to_come_back() -> None:
    post = slack.PostMessage(channel="C1", text="hello")
    endpoints = post.facts.endpoints
    assert endpoints is not None
    assert (endpoints.name, endpoints.per) == ("chat.postMessage", Per.TENANT)
    refused = answer({"retry-after": "30"}, status=429, body=b'{"ok": false, "error": "ratelimited"}')
    assert post.limits(refused) == Limits()
    judged = post.judge(refused)
    assert (judged.verdict, judged.retry_after) == (Verdict.RETRY, timedelta(seconds=30))


# developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_api_usage.htm
@pytest.mark.parametrize(
    ("header", "left"),
    [
        ("api-usage=10018/100000", (89_982, 100_000)),
        ("api-usage=18/5000; per-app-api-usage=17/250(appName=sample)", (4_982, 5_000)),
        ("api-usage=5001/5000", (0, 5_000)),  # a little more than the limit is let through at times
        ("api-usage=many/5000", None),
        ("", None),
    ],
)
def test_salesforce_says_how_much_of_its_rolling_day_is_used(header: str, left: tuple[int, int] | None) -> None:
    limits = salesforce.GetOpportunity(id="006000000000001").limits(answer({"sforce-limit-info": header}))
    assert (limits.left and (limits.left.remaining, limits.left.limit)) == left
    assert limits.left is None or limits.left.resets_in == timedelta(minutes=15)


# docs.stripe.com/rate-limits: `Stripe-Rate-Limited-Reason`, and no word of what is left.
@pytest.mark.parametrize(
    ("status", "reason", "whole"),
    [
        (429, "global-rate", True),
        (429, "global-concurrency", True),
        (429, "endpoint-rate", False),
        (429, "", False),
        (200, "global-rate", False),
    ],
)
def test_stripe_says_whether_the_account_or_an_operation_is_limited(status: int, reason: str, whole: bool) -> None:
    refused = answer({"stripe-rate-limited-reason": reason}, status=status)
    assert stripe.ListSubscriptions().limits(refused) == Limits(whole=whole)


# developer.zendesk.com/api-reference/introduction/rate-limits
@pytest.mark.parametrize(
    ("headers", "left"),
    [
        (
            {"x_rate_limit": "700", "x_rate_limit_remaining": "699", "ratelimit_reset": "41"},
            Left(remaining=699, limit=700, resets_in=timedelta(seconds=41)),
        ),
        (
            {"x_rate_limit": "700", "x_rate_limit_remaining": "0"},
            Left(remaining=0, limit=700, resets_in=timedelta(minutes=1)),
        ),
        ({"x_rate_limit": "700"}, None),
        ({}, None),
    ],
)
def test_zendesk_says_what_is_left_of_the_minute(headers: dict[str, str], left: Left | None) -> None:
    assert zendesk.CreateTicket(subject="It hurts", body="Here.").limits(answer(headers)) == Limits(left=left)


# What no upstream means: more digits than any wait has, a moment in the wrong unit, a Date of no calendar.
DIGITS = "9" * 20
FAR = "Sun, 01 Jan 99999999999999 12:00:00 GMT"


@pytest.mark.parametrize(
    ("named", "wait"),
    [
        ("30", timedelta(seconds=30)),
        ("86401", LONGEST_WAIT),
        ("999999999", LONGEST_WAIT),
        ("1772366460", None),  # epoch seconds
        ("300000000000", None),
        (DIGITS, None),
        ("9" * 5000, None),
        ("٣", None),  # a digit, and none of RFC 9110's
        ("-1", None),
    ],
)
def test_a_wait_that_an_upstream_asks_for_is_a_day_at_most(named: str, wait: timedelta | None) -> None:
    assert judge_status(answer({"retry-after": named}, status=429), effect=Effect.READ).retry_after == wait


@pytest.mark.parametrize("date", [DATE, FAR, "no date", ""])
@pytest.mark.parametrize("number", [DIGITS, "9" * 5000, "1772370000000000", "²", "", "-1"])
def test_headers_that_nobody_can_read_say_nothing_and_lose_no_answer(number: str, date: str) -> None:
    names = [
        "retry-after",
        "ratelimit-reset",
        "x-complexity",
        *(f"x-ratelimit-{name}" for name in ("limit", "remaining", "reset")),
        *(f"x-ratelimit-{of}-{name}" for of in ("requests", "complexity") for name in ("limit", "remaining", "reset")),
        "x-rate-limit",
        "x-rate-limit-remaining",
    ]
    said = answer({**dict.fromkeys(names, number), "date": date})
    ticket = zendesk.CreateTicket(subject="It hurts", body="Here.")
    for action in (PULL, ISSUES, ticket, slack.PostMessage(channel="C1", text="hello")):
        assert action.limits(said) == Limits(), action


@pytest.mark.parametrize("reset", ["4102444800", "99999999999"], ids=["of-another-century", "the-last"])
def test_a_window_that_ends_in_years_ends_in_a_day(reset: str) -> None:
    left = PULL.limits(answer({**GITHUB, **window("4999", reset)})).left
    assert left is not None
    assert left.resets_in == LONGEST_WAIT
    refused = PULL.judge(answer({**GITHUB, **window("0", reset)}, status=403))
    assert (refused.verdict, refused.retry_after) == (Verdict.RETRY, LONGEST_WAIT)
    kept = ISSUES.limits(answer({**REQUESTS, "x_ratelimit_requests_reset": reset})).left
    assert kept is not None
    assert kept.resets_in == LONGEST_WAIT


def test_a_reset_in_milliseconds_is_none_of_githubs_and_a_refusal_by_it_waits_a_minute() -> None:
    in_ms = window("0", "1772366460000")
    assert PULL.limits(answer({**GITHUB, **in_ms})) == Limits()
    assert PULL.judge(answer({**GITHUB, **in_ms}, status=403)).retry_after == timedelta(minutes=1)
    dated = answer({**GITHUB, **window("0", "1772366460"), "date": FAR}, status=403)
    assert (PULL.limits(dated), PULL.judge(dated).retry_after) == (Limits(), timedelta(minutes=1))
