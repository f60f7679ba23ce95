"""A call that is refused: by what its answer says, a model mends what is the model's, and a product what is its."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlsplit

import pytest
from pydantic import Field
from sqlalchemy import func, select

from identity.agents.identifiers import UnknownIdentifier, identify
from identity.connections.registry import add_connection, get_connection
from identity.model import AccountKey
from pipeline.authoring.registry import Registry
from pipeline.jobs import awaited, claims
from pipeline.states import Wait
from pipeline.tables import jobs as rows
from tests.api.agents_api import AgentsApi
from tests.ledger.house import Say, say_it
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE

MISFIT, UNUSABLE = "urn:aswhom:problem:parameters-do-not-fit", "urn:aswhom:problem:unusable"
REUSED = "urn:aswhom:problem:idempotency-key-reused"


class SayMuch(Say):
    """It takes more than a text."""

    repo: Annotated[str, Field(pattern="^[a-z]+/[a-z]+$", description="owner/name")] = "acme/shop"
    labels: Annotated[tuple[str, ...], Field(max_length=2)] = ()
    options: Annotated[dict[str, str], Field(default_factory=dict)]


class SayUnsound(Say):
    """Its default does not fit it."""

    extra: str = Field(None, validate_default=True)


class SayAsMyself(Say):
    """At a provider where the service has a static key, and people have nothing."""

    facts = replace(Say.facts, provider="zendesk")


class SayInMyName(Say):
    """The same, and it must be attributable."""

    facts = replace(Say.facts, provider="zendesk", attribution=True)


@pytest.fixture
def mending(sqlite_api: AgentsApi) -> AgentsApi:
    sqlite_api.deploy(Registry([say_it], [SayMuch, SayUnsound, SayAsMyself, SayInMyName]))
    return sqlite_api


def execute(api: AgentsApi, tool: str, parameters: object, identifier: str = "ada", key: str = "") -> Any:
    body = {"identifier": identifier, "parameters": parameters, "wait": 0}
    headers = {"Idempotency-Key": key} if key else {}
    return api.ask("POST", f"/v1/tools/{tool}/execute", json=body, headers=headers)


def accepted(api: AgentsApi) -> int:
    return api.database.read(lambda c: c.execute(select(func.count()).select_from(rows)).scalar_one())


@pytest.mark.parametrize(
    ("parameters", "where", "why"),
    [
        ({"text": "x", "labels": "bug"}, "labels", "Input should be a JSON array, and this is a string"),
        ({"text": "x", "labels": 1}, "labels", "Input should be a JSON array"),
        ({"text": "x", "labels": ["a", "b", "c"]}, "labels", "Array should have at most 2 items"),
        (
            {"text": "x", "options": "{}"},
            "options",
            "Input should be a JSON object, and this is a string: if it is JSON",
        ),
        ({"text": "x", "repo": "shop"}, "repo", "It is: owner/name"),
        ({"text": "x", "titel": "y"}, "titel", "There is no such parameter: there are text, repo, labels, options"),
        ({}, "text", "Field required"),
    ],
)
def test_parameters_that_do_not_fit_are_told_in_words_of_json(
    mending: AgentsApi, parameters: dict[str, Any], where: str, why: str
) -> None:
    refused = execute(mending, "github.SayMuch", parameters)
    assert (refused.status_code, refused.json["type"]) == (422, MISFIT)
    (error,) = refused.json["errors"]
    assert error["where"] == f"parameters.{where}"
    assert why in error["why"]
    assert not any(word in error["why"] for word in ("tuple", "Tuple", "dictionary"))
    assert accepted(mending) == 0


@pytest.mark.parametrize(
    "body",
    [
        {"identifier": "ada", "parameters": {"text": "x"}, "wait": 30},
        {"identifier": "ada", "arguments": {"text": "x"}},
        {"identifier": "ada", "parameters": '{"text": "x"}'},
    ],
)
def test_what_the_product_sent_wrongly_is_of_another_type_than_what_the_model_did(
    mending: AgentsApi, body: dict[str, Any]
) -> None:
    refused = mending.ask("POST", "/v1/tools/github.SayMuch/execute", json=body)
    assert (refused.status_code, refused.json["type"]) == (422, UNUSABLE)


def test_parameters_that_are_a_string_of_json_are_said_to_be_that(mending: AgentsApi) -> None:
    (error,) = execute(mending, "github.SayMuch", '{"text": "x"}').json["errors"]
    said = "Input should be a JSON object, and this is a string: if it is JSON, parse it first"
    assert error == {"where": "parameters", "why": said}


def test_null_for_what_has_a_default_leaves_it_out(mending: AgentsApi) -> None:
    answer = execute(mending, "github.SayMuch", {"text": "x", "labels": None, "repo": None})
    assert answer.status_code == 202, answer.text
    stored = mending.house.row(answer.json["job"]["id"]).event["parameters"]
    assert stored == {"text": "x", "repo": "acme/shop", "labels": [], "options": {}}
    assert execute(mending, "github.SayMuch", {"text": None}).json["type"] == MISFIT


def test_a_null_within_what_was_sent_leaves_nothing_out(mending: AgentsApi) -> None:
    """Or it would be carried out without what the model meant."""
    for parameters in ({"text": "x", "labels": ["security", None]}, {"text": "x", "options": {"a": None}}):
        refused = execute(mending, "github.SayMuch", parameters)
        assert (refused.status_code, refused.json["type"]) == (422, MISFIT)
    assert accepted(mending) == 0


def test_a_default_that_is_refused_itself_is_said_to_be(mending: AgentsApi) -> None:
    refused = execute(mending, "github.SayUnsound", {"text": "x"})
    assert (refused.status_code, refused.json["errors"][0]["where"]) == (422, "parameters.extra")


def test_a_name_of_any_length_is_told_of_shortly(mending: AgentsApi) -> None:
    (error,) = execute(mending, "github.SayMuch", {"text": "x", "n" * 9999: 1}).json["errors"]
    assert error["where"] == f"parameters.{'n' * 50}"


def test_the_same_request_written_otherwise_is_the_same_by_its_key(mending: AgentsApi) -> None:
    api, whole = mending, {"text": "x", "repo": "acme/shop", "labels": [], "options": {}}
    ids = {
        execute(api, "github.SayMuch", parameters, identifier, key="k-1").json["job"]["id"]
        for parameters in ({"text": "x"}, {"text": "x", "labels": []}, {"text": "x", "labels": None}, whole)
        for identifier in ("ada", "acme.ada", "user:ada")
    }
    assert (len(ids), accepted(api)) == (1, 1)
    service = [execute(api, "github.SayMuch", whole, of, key="k-2") for of in ("acme", "tenant:acme")]
    assert len({answer.json["job"]["id"] for answer in service}) == 1


def test_a_key_that_made_another_job_says_which(mending: AgentsApi) -> None:
    api = mending
    job = execute(api, "github.SayMuch", {"text": "x"}, key="k-1").json["job"]["id"]
    others = [
        execute(api, "github.SayMuch", {"text": "x", "labels": ["a"]}, key="k-1"),
        execute(api, "github.SayMuch", {"text": "x"}, "acme", key="k-1"),
        execute(api, "github.SayMuch", {"text": "x"}, "nobody", key="k-1"),
        execute(api, "github.Say", {"text": "x"}, key="k-1"),
    ]
    for refused in others:
        assert (refused.status_code, refused.json["type"]) == (422, REUSED)
        assert f"which made {job}" in refused.json["detail"]
    assert accepted(api) == 1


def test_a_user_whom_no_link_was_made_for_is_a_problem_of_its_own_until_one_is(mending: AgentsApi) -> None:
    refused = execute(mending, "github.SayMuch", {"text": "x"}, "user:zoe")
    assert (refused.status_code, refused.json["type"]) == (422, "urn:aswhom:problem:unknown-identifier")
    assert "POST /v1/connect-links" in refused.json["detail"]
    with pytest.raises(UnknownIdentifier):
        mending.database.read(lambda c: identify(c, "acme", "zoe"))
    linked = mending.ask("POST", "/v1/connect-links", json={"user": "zoe", "connection": "github"})
    assert linked.status_code == 201, linked.text
    assert execute(mending, "github.SayMuch", {"text": "x"}, "user:zoe").status_code == 202


def test_the_page_says_what_is_done_once_its_person_has_connected_and_how_often(mending: AgentsApi) -> None:
    """A model that was told of a missing consent may ask again, and again."""
    api, days = mending, timedelta(days=14)
    key = AccountKey(tenant="acme", connection="gh", principal="acme.zoe")
    link = api.ask("POST", "/v1/connect-links", json={"user": "zoe", "connection": "gh"}).json["url"]

    def page() -> str:
        return str(api.client.get(urlsplit(link).path).text)

    assert "as soon as you have connected" not in page()
    park = partial(claims.park, wait=Wait.CONSENT, waits_for=awaited.consent_of(key), due_in=days, expires_in=days)
    for tool in ("github.SayMuch", "github.SayMuch", "github.Say"):
        job = execute(api, tool, {"text": "x"}, "zoe").json["job"]["id"]
        api.database.write(partial(park, job=api.house.claim(job), reason="needs the consent"))
    found = re.findall(
        r"<li><span>(.*?)</span>(?: <span class=\"tag\">(.*?)</span>)?</li>", page().split("as you</h2>")[0]
    )
    assert ("It takes more than a text", "2 times") in found
    assert ("An action of the tests", "") in found


def test_the_catalogue_can_leave_out_what_is_refused_as_whom_it_is_for(mending: AgentsApi) -> None:
    api = mending

    def listed(query: str = "", key: Any = None) -> set[str]:
        return {tool["name"] for tool in api.ask("GET", f"/v1/tools{query}", key).json["tools"]}

    github, zendesk = (
        {"github.Say", "github.SayMuch", "github.SayUnsound"},
        {"zendesk.SayAsMyself", "zendesk.SayInMyName"},
    )
    assert listed() == github | zendesk
    assert listed("?provider=zendesk") == zendesk
    assert listed("?identifier=ada") == github  # nobody has a connection there
    keyed = replace(api.database.read(lambda c: get_connection(c, "gh")), id="zd", provider="zendesk", authorize_url="")
    api.database.write(lambda c: add_connection(c, keyed, now=api.now()))
    assert listed("?identifier=ada") == github
    assert listed("?identifier=acme") == github | {"zendesk.SayAsMyself"}
    api.house.connect("acme", "acme.ada", through="zd")
    assert listed("?identifier=ada") == github | zendesk
    assert listed("?identifier=ada&provider=github") == github
    refused = [
        api.ask("GET", "/v1/tools?identifier=zoe"),
        api.ask("GET", "/v1/tools?identifier=ada", api.key(users=["mallory"])),
    ]
    assert [answer.status_code for answer in refused] == [422, 403]


def test_a_consent_that_nobody_can_give_is_not_waited_for(mending: AgentsApi) -> None:
    api = mending
    keyed = replace(api.database.read(lambda c: get_connection(c, "gh")), id="zd", provider="zendesk", authorize_url="")
    api.database.write(lambda c: add_connection(c, keyed, now=api.now()))
    refused = execute(api, "zendesk.SayAsMyself", {"text": "x"})
    link = api.ask("POST", "/v1/connect-links", json={"user": "ada", "connection": "zd"})
    assert [one.json["type"] for one in (refused, link)] == ["urn:aswhom:problem:not-set-up"] * 2
    assert "nobody can connect there as themselves: zd has no authorization endpoint" in refused.json["detail"]
    assert "as the tenant" not in refused.json["detail"], "a model is not told to take the service's authority"
    assert accepted(api) == 0
    assert execute(api, "zendesk.SayAsMyself", {"text": "x"}, "acme").status_code == 202
    api.house.connect("acme", "acme.ada", through="zd")  # by an operator
    assert execute(api, "zendesk.SayAsMyself", {"text": "x"}).status_code == 202
