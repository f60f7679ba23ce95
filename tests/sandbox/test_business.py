"""Salesforce, Stripe and Zendesk: strict about tokens, and true to their shapes where our actions meet them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from deploy.sandbox.journal import Journal
from deploy.sandbox.stripe.app import create_stripe
from pipeline.action import Action, Response, Verdict
from tasks.actions import salesforce, stripe, zendesk
from tests.sandbox.calls import a_call
from tests.sandbox.driver import Sandbox


def send(sandbox: Sandbox, action: Action[Any], token: str | None, *, key: str = "", probe: bool = False) -> Response:
    call = a_call()
    request = action.probe(call) if probe else action.request(call)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    if key:
        headers["idempotency-key"] = key
    answer = sandbox.http.request(
        request.method,
        sandbox.url(action.facts.provider, request.path),
        params=dict(request.params),
        json=request.json,
        data=dict(request.form) if request.form else None,
        headers=headers,
    )
    return Response(status=answer.status_code, headers=dict(answer.headers), body=answer.content)


def organization(sandbox: Sandbox, number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = sandbox.world["salesforce"]["organizations"][number]
    return found


def account(sandbox: Sandbox, number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = sandbox.world["stripe"]["accounts"][number]
    return found


def desk(sandbox: Sandbox, number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = sandbox.world["zendesk"]["desks"][number]
    return found


def test_an_opportunity_is_changed_by_its_tokens_user(sandbox: Sandbox) -> None:
    token, row = sandbox.connect("salesforce", "ada")["access_token"], organization(sandbox)["opportunities"][0]
    get = salesforce.GetOpportunity(id=row["id"])
    before = get.read(send(sandbox, get, token))
    assert (before.id, before.owner_id, before.amount) == (row["id"], row["owner"], row["amount"])
    update = salesforce.UpdateOpportunity(id=row["id"], stage="Closed Won", amount=12_000)
    answer = send(sandbox, update, token)
    assert (answer.status, update.judge(answer).verdict) == (204, Verdict.SUCCESS)
    after = get.read(send(sandbox, get, token))
    assert (after.stage, after.amount, after.next_step) == ("Closed Won", 12_000, None)
    assert after.modified_at >= before.modified_at
    assert sandbox.read("salesforce", "log")[-2]["actor"] == "ada"


def test_no_answer_of_salesforce_names_a_lifetime(sandbox: Sandbox) -> None:
    assert "expires_in" not in sandbox.connect("salesforce", "ada")


@pytest.mark.parametrize(
    ("organization_number", "changes", "verdict"),
    [(0, {"stage": "No such stage"}, Verdict.FAILED), (1, {"stage": "Closed Won"}, Verdict.FAILED)],
    ids=["a stage that is not there", "another organization's opportunity"],
)
def test_a_refused_update_is_a_failure(
    sandbox: Sandbox, organization_number: int, changes: dict[str, Any], verdict: Verdict
) -> None:
    token = sandbox.connect("salesforce", "ada")["access_token"]
    row = organization(sandbox, organization_number)["opportunities"][0]
    update = salesforce.UpdateOpportunity(id=row["id"], **changes)
    assert update.judge(send(sandbox, update, token)).verdict is verdict


def test_an_ended_session_is_no_failure_of_the_request(sandbox: Sandbox) -> None:
    token, row = sandbox.connect("salesforce", "grace")["access_token"], organization(sandbox)["opportunities"][0]
    sandbox.order("auth", "expire", provider="salesforce", user="grace")
    get = salesforce.GetOpportunity(id=row["id"])
    judgement = get.judge(send(sandbox, get, token))
    assert judgement.verdict is Verdict.UNAUTHORIZED
    assert "INVALID_SESSION_ID" in judgement.reason


def test_subscriptions_are_read_page_by_page_to_the_last(sandbox: Sandbox) -> None:
    token, seen, after = account(sandbox)["restricted_key"], [], None
    for _ in range(10):
        action = stripe.ListSubscriptions(size=3, after=after)
        page = action.read(send(sandbox, action, token))
        seen += [one.id for one in page.subscriptions]
        if not page.more:
            break
        after = seen[-1]
    assert seen == [row["id"] for row in account(sandbox)["subscriptions"]]


def test_an_idempotency_key_gives_the_first_answer_and_no_second_effect(sandbox: Sandbox) -> None:
    token, row = account(sandbox)["restricted_key"], account(sandbox)["subscriptions"][0]
    action = stripe.AnnotateSubscription(id=row["id"], key="note", value="first")
    since = len(sandbox.read("stripe", "log"))
    first, again = (send(sandbox, action, token, key="one-key") for _ in range(2))
    assert action.read(first) == action.read(again)
    assert [entry["effect"] for entry in sandbox.read("stripe", f"log?since={since}")] == [True, False]
    other = stripe.AnnotateSubscription(id=row["id"], key="note", value="second")
    assert other.judge(send(sandbox, other, token, key="one-key")).verdict is Verdict.FAILED


def test_a_restricted_key_does_what_it_was_permitted_and_nothing_else(sandbox: Sandbox) -> None:
    world = deepcopy(sandbox.world)
    row = world["stripe"]["accounts"][0]
    row["permissions"] = ["subscriptions:read", "invoices:read"]
    subscription = row["subscriptions"][0]["id"]
    clock = partial(datetime.now, UTC)
    reader = create_stripe(world, journal=Journal("stripe", None, clock=clock), clock=clock).test_client()
    key = {"Authorization": f"Bearer {row['restricted_key']}"}
    listed = stripe.ListSubscriptions().request(a_call())
    assert reader.get(listed.path, query_string=dict(listed.params), headers=key).status_code == 200
    row["permissions"] = ["subscriptions:read"]  # an invoice that is shown within takes a permission of its own
    assert reader.get(listed.path, query_string=dict(listed.params), headers=key).status_code == 403
    assert reader.get(listed.path, headers=key).status_code == 200
    write = stripe.AnnotateSubscription(id=subscription, key="note", value="mine")
    request = write.request(a_call())
    answer = reader.post(request.path, data=dict(request.form or {}), headers=key)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (403, "more_permissions_required")
    refused = Response(status=answer.status_code, headers=dict(answer.headers), body=answer.data)
    assert write.judge(refused).verdict is Verdict.FAILED
    books = reader.get("/_sandbox/subscriptions").get_json()[row["tenant"]]
    assert [one["metadata"] for one in books if one["id"] == subscription] == [{}]


def test_a_ticket_is_found_by_the_mark_of_its_step(sandbox: Sandbox) -> None:
    action, call, token = zendesk.CreateTicket(subject="It hurts", body="Here."), a_call(), desk(sandbox)["token"]

    def ask(request: Any) -> Response:
        answer = sandbox.http.request(
            request.method,
            sandbox.url("zendesk", request.path),
            params=dict(request.params),
            json=request.json,
            headers={"authorization": f"Bearer {token}"},
        )
        return Response(status=answer.status_code, headers=dict(answer.headers), body=answer.content)

    assert action.found(ask(action.probe(call)), call) is None
    made = action.read(ask(action.request(call)))
    assert action.found(ask(action.probe(call)), call) == made
    assert action.found(ask(action.probe(a_call())), a_call()) is None


@pytest.mark.parametrize(
    "action",
    [
        salesforce.GetOpportunity(id="006000000000001AAA"),
        stripe.ListSubscriptions(),
        zendesk.CreateTicket(subject="s", body="b"),
    ],
    ids=lambda action: action.facts.provider,
)
def test_a_token_that_is_not_known_is_refused(sandbox: Sandbox, action: Action[Any]) -> None:
    for token in (None, "somebody-elses"):
        assert action.judge(send(sandbox, action, token)).verdict is Verdict.UNAUTHORIZED


def test_a_token_that_was_ended_is_refused_until_it_is_restored(sandbox: Sandbox) -> None:
    for service, token, action in (
        ("stripe", account(sandbox)["restricted_key"], stripe.ListSubscriptions()),
        ("zendesk", desk(sandbox)["token"], zendesk.CreateTicket(subject="s", body="b")),
    ):
        sandbox.order(service, "revoke", tenant="acme")
        assert action.judge(send(sandbox, action, token)).verdict is Verdict.UNAUTHORIZED
        sandbox.order(service, "restore", tenant="acme")
        assert action.judge(send(sandbox, action, token)).verdict is Verdict.SUCCESS


def test_salesforce_says_what_an_organization_has_used_and_refuses_beyond(sandbox: Sandbox) -> None:
    token = sandbox.connect("salesforce", "ada")["access_token"]
    look = salesforce.GetOpportunity(id=organization(sandbox)["opportunities"][0]["id"])
    try:
        sandbox.order("salesforce", "limits", limit=5000, seconds=3600, used=4999)
        last, beyond = (send(sandbox, look, token) for _ in range(2))
        assert (last.status, last.headers["sforce-limit-info"]) == (200, "api-usage=5000/5000")
        assert beyond.status == 403
        assert look.judge(beyond).verdict == Verdict.RETRY
        assert "sforce-limit-info" not in send_userinfo(sandbox, token)
    finally:
        sandbox.order("salesforce", "limits", limit=100_000, seconds=86_400)


def send_userinfo(sandbox: Sandbox, token: str) -> Mapping[str, str]:
    """The answer's headers: it is no request of the API that is counted."""
    url, headers = sandbox.url("salesforce", "/services/oauth2/userinfo"), {"authorization": f"Bearer {token}"}
    return sandbox.http.get(url, headers=headers).headers


def test_zendesk_says_what_is_left_of_the_minute_and_in_lists_when_it_ends(sandbox: Sandbox) -> None:
    token, other = desk(sandbox)["token"], desk(sandbox, 1)["token"]
    create = zendesk.CreateTicket(subject="It hurts", body="Here.")
    try:
        sandbox.order("zendesk", "limits", limit=2, seconds=60)
        made = send(sandbox, create, token)
        listed = send(sandbox, create, token, probe=True)
        beyond = send(sandbox, create, token)
        assert [answer.status for answer in (made, listed, beyond)] == [201, 200, 429]
        assert [answer.headers["x-rate-limit-remaining"] for answer in (made, listed, beyond)] == ["1", "0", "0"]
        assert "ratelimit-reset" not in made.headers
        assert 1 <= int(listed.headers["ratelimit-reset"]) <= 60
        assert create.judge(beyond).verdict == Verdict.RETRY
        assert 1 <= int(beyond.headers["retry-after"]) <= 60
        assert send(sandbox, create, other).status == 201
    finally:
        sandbox.order("zendesk", "limits", limit=700, seconds=60)
