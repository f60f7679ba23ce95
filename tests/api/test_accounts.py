"""Accounts and connect links, deliveries, revocations and their receipts, page by page and tenant by tenant."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, TypeVar

import pytest
from sqlalchemy import delete, insert, select, update

from identity.agents.api_keys import Role
from identity.audit.tables import audit
from identity.connect_sessions.tables import connect_sessions
from identity.connections.registry import add_connection, get_connection
from identity.model import Scope, ScopeKind
from identity.secret import Secret
from identity.tables import grants, principals, tenants
from pipeline.action import Facts
from pipeline.agents_api.callers import Keyed
from pipeline.agents_api.requests import NotLetIn
from pipeline.db.database import Database
from pipeline.revocation.tables import revocations
from pipeline.tables import workflow_settings
from pipeline.workflow import USER, workflow
from tests.api.agents_api import AgentsApi
from tests.ledger.house import Opened, Say, say_it
from tests.ledger.rows import revocations_of_one_moment
from tests.ledgers import MOSTLY_SQLITE, turn_taken

pytestmark = MOSTLY_SQLITE

T = TypeVar("T")
READER, ADMIN = Role.READER, Role.ADMIN


def account_of(api: AgentsApi, principal: str = "ada") -> dict[str, object]:
    answer = api.ask("GET", f"/v1/accounts?principal={principal}")
    (found,) = answer.json["items"]
    return api.ask("GET", f"/v1/accounts/{found['id']}").json  # type: ignore[no-any-return]


def test_an_account_tells_whether_it_can_be_used_and_why_not(api: AgentsApi) -> None:
    assert account_of(api)["usable"] is True
    api.revoke(Scope(kind=ScopeKind.USER, key="acme.ada"))
    told = account_of(api)
    assert (told["usable"], told["state"]) == (False, "active")
    assert re.search(r"user:acme.ada was revoked at 20\d\d-.* UTC, after this consent", str(told["why"]))
    assert account_of(api, "service")["usable"] is True


def principals_of(listed: dict[str, Any]) -> set[str]:
    return {f"acme.{one['principal']['name']}" for one in listed["items"]}


def test_accounts_are_filtered_by_what_counts_and_not_by_their_state_alone(api: AgentsApi) -> None:
    def found(usable: str) -> set[str]:
        return principals_of(api.ask("GET", f"/v1/accounts?usable={usable}").json)

    def is_as_shown() -> None:
        everyone = api.ask("GET", "/v1/accounts").json["items"]
        assert found("true") == principals_of({"items": [one for one in everyone if one["usable"]]})
        assert found("false") == principals_of({"items": [one for one in everyone if not one["usable"]]})

    is_as_shown()
    assert "acme.ada" in found("true")
    api.revoke(Scope(kind=ScopeKind.USER, key="acme.ada"))
    is_as_shown()
    assert found("false") >= {"acme.ada"}
    assert "acme.service" in found("true")
    (service,) = api.ask("GET", "/v1/accounts?principal=service").json["items"]
    api.stop(Scope(kind=ScopeKind.CONNECTION, key=service["connection"]))
    is_as_shown()
    assert "acme.service" in found("false")


class Shout(Say):
    """Says it louder."""

    facts: ClassVar[Facts] = replace(Say.facts, scopes=frozenset({"issues:write"}))


@workflow(agent="tester", on=say_it.on, event=Opened, user=lambda event: None, uses={Shout: USER}, name="say_it")
def shout_it(run: Any, event: Opened) -> None:
    """It is not run here."""


def test_an_account_tells_what_the_work_there_is_lacks(database: Database) -> None:
    api = AgentsApi(database, shout_it)
    with closing(api):

        def missing(principal: str) -> list[object]:
            (listed,) = api.ask("GET", f"/v1/accounts?principal={principal}").json["items"]
            return [listed["missing_scopes"], account_of(api, principal)["missing_scopes"]]

        assert (missing("ada"), missing("service")) == ([["issues:write"]] * 2, [[]] * 2)
        granted = update(grants).where(grants.c.account_id == "acc-acme.ada").values(scopes=["issues:write"])
        api.database.write(lambda c: c.execute(granted).rowcount)
        assert missing("ada") == [[]] * 2


def test_no_answer_holds_a_token(api: AgentsApi) -> None:
    for path in ("/v1/accounts", "/v1/jobs", "/v1/deliveries", "/v1/revocations", "/v1/tools"):
        answer = api.ask("GET", path, api.keys["acme", ADMIN])
        assert answer.status_code == 200
        assert "token-acme" not in answer.text
        assert "refresh-acme" not in answer.text
        assert "awk_" not in answer.text


def test_a_link_is_made_for_a_person_who_may_be_new(api: AgentsApi) -> None:
    answer = api.ask("POST", "/v1/connect-links", json={"user": "grace", "connection": "github"})
    assert answer.status_code == 201, answer.text
    assert answer.json["url"].startswith("http://127.0.0.1/connect/")
    assert (answer.json["principal"], answer.json["connection"]) == ("acme.grace", "gh")
    known = api.database.read(lambda c: c.execute(select(principals.c.tenant_id, principals.c.id)).all())
    assert ("acme", "acme.grace") in {tuple(row) for row in known}


def test_the_same_key_makes_one_link_and_another_request_with_it_none(api: AgentsApi) -> None:
    body = {"user": "grace", "connection": "github"}

    def link(key: str, **more: str) -> Any:
        return api.ask("POST", "/v1/connect-links", json=body | more, headers={"Idempotency-Key": key})

    first, again, other = link("l-1"), link("l-1"), link("l-2")
    assert (first.status_code, again.status_code, again.json) == (201, 201, first.json)
    assert other.json["url"] != first.json["url"]
    reused = link("l-1", user="ada")
    assert (reused.status_code, reused.json["type"]) == (422, "urn:aswhom:problem:idempotency-key-reused")
    made = api.database.read(lambda c: c.execute(select(connect_sessions.c.principal_id)).scalars().all())
    assert list(made) == ["acme.grace"] * 2
    told = select(audit.c.id).where(audit.c.kind == "connect.invited")
    assert len(api.database.read(lambda c: c.execute(told).all())) == 2


def test_whoever_gets_no_link_was_not_invited(api: AgentsApi) -> None:
    """Nor is anybody made for a request whose key belongs to another."""

    def link(user: str, key: str, **more: str) -> Any:
        body = {"user": user, "connection": "github", **more}
        return api.ask("POST", "/v1/connect-links", json=body, headers={"Idempotency-Key": key})

    def told(row: Any) -> int:
        return len(api.database.read(lambda c: c.execute(select(row)).all()))

    invited = select(audit.c.id).where(audit.c.kind == "connect.invited").subquery()
    assert link("grace", "l-1", return_to="https://evil.example").status_code == 422
    assert (told(invited), told(connect_sessions.c.id)) == (0, 0)
    assert link("grace", "l-1").status_code == 201
    assert (told(invited), told(connect_sessions.c.id)) == (1, 1)
    assert link("heidi", "l-1").json["type"] == "urn:aswhom:problem:idempotency-key-reused"
    people = api.database.read(lambda c: c.execute(select(principals.c.id)).scalars().all())
    assert "acme.heidi" not in people


def test_a_key_whose_link_is_forgotten_asks_for_a_new_one(sqlite_api: AgentsApi) -> None:
    def link(key: str) -> Any:
        body = {"user": "grace", "connection": "github"}
        return sqlite_api.ask("POST", "/v1/connect-links", json=body, headers={"Idempotency-Key": key})

    assert link("l-1").status_code == 201
    sqlite_api.database.write(lambda c: c.execute(delete(connect_sessions)))
    forgotten = link("l-1")
    assert (forgotten.status_code, forgotten.json["type"]) == (422, "urn:aswhom:problem:unusable")
    assert "ask again with a new key" in forgotten.json["detail"]
    assert link("l-2").status_code == 201


def test_another_tenants_provider_connection_makes_no_link(sqlite_api: AgentsApi) -> None:
    api = sqlite_api
    theirs = replace(api.database.read(lambda c: get_connection(c, "gh")), id="gh-globex", tenant="globex")
    api.database.write(partial(add_connection, owner=theirs, now=api.now()))
    api.house.give_secret("gh-globex")
    body = {"user": "grace", "connection": "gh-globex"}
    refused = api.ask("POST", "/v1/connect-links", api.keys["acme", ADMIN], json=body)
    assert (refused.status_code, refused.json["type"]) == (409, "urn:aswhom:problem:not-set-up")
    made = select(connect_sessions.c.principal_id)
    assert api.database.read(lambda c: c.execute(made).all()) == []
    assert api.ask("POST", "/v1/connect-links", api.keys["globex", ADMIN], json=body).status_code == 201
    assert api.database.read(lambda c: c.execute(made).scalars().all()) == ["globex.grace"]


def test_a_user_cannot_be_named_into_another_tenant(api: AgentsApi) -> None:
    """A tenant whose id holds a dot is one from before ids had to hold none."""
    key = api.keys["acme", ADMIN]

    def invited(user: str, of: Any = key) -> Any:
        return api.ask("POST", "/v1/connect-links", of, json={"user": user, "connection": "github"})

    assert invited("eu.ada").status_code == 201  # there is no such tenant yet
    row = {"id": "acme.eu", "name": "Acme EU", "created_at": api.now()}
    api.database.write(lambda c: c.execute(insert(tenants), row))
    refused = {user: invited(user) for user in ("eu.bob", "eu.service", "service")}
    assert [answer.status_code for answer in refused.values()] == [422] * 3
    assert len({answer.json["detail"].replace(f"acme.{user}", "…") for user, answer in refused.items()}) == 1
    assert invited("eu.ada").json["principal"] == "acme.eu.ada"  # who was there before stays
    assert invited("bob", api.key("acme.eu", role=ADMIN)).json["principal"] == "acme.eu.bob"


def test_an_agent_has_nobody_asked_for_a_scope_that_nothing_here_needs(database: Database) -> None:
    """A model that is talked into it would have people hand over their organization, on a page that is ours."""
    api = AgentsApi(database, shout_it)
    shouts, reads = (api.key(tools=tools) for tools in (["github.Shout"], ["github.Say"]))

    def link(of: Secret, *scopes: str) -> Any:
        body = {"user": "ada", "connection": "github", "scopes": list(scopes)}
        return api.ask("POST", "/v1/connect-links", of, json=body)

    with closing(api):
        listed = list(api.database.read(lambda c: get_connection(c, "gh")).scopes)
        assert link(shouts, "issues:write", *listed).status_code == 201  # what its tool needs, and what is asked anyway
        for scope in ("admin:org", "delete_repo"):
            refused = link(shouts, "issues:write", scope)
            assert (refused.status_code, refused.json["type"]) == (403, "urn:aswhom:problem:not-allowed")
            assert (scope in refused.json["detail"], "issues:write" in refused.json["detail"]) == (True, False)
        assert link(api.keys["acme", ADMIN], "admin:org").status_code == 201
        api.database.write(lambda c: c.execute(delete(workflow_settings)).rowcount)
        assert link(reads, "issues:write").status_code == 403  # it is another's tool that needs it
        row = {"tenant_id": "acme", "workflow": shout_it.name, "enabled": True, "config": {}}
        api.database.write(lambda c: c.execute(insert(workflow_settings), row).rowcount)
        assert link(reads, "issues:write").status_code == 201  # now a workflow of the tenant's does, too


def test_a_key_of_some_users_invites_no_other(api: AgentsApi) -> None:
    key = api.key(users=["grace", "support-*"])

    def invited(user: str) -> Any:
        return api.ask("POST", "/v1/connect-links", key, json={"user": user, "connection": "github"})

    assert [invited(user).status_code for user in ("grace", "acme.grace", "support-7")] == [201] * 3
    for user in ("mallory", "acme.mallory", "gracex"):
        refused = invited(user)
        assert (refused.status_code, refused.json["type"]) == (403, "urn:aswhom:problem:not-allowed")
    people = api.database.read(lambda c: c.execute(select(principals.c.id)).scalars().all())
    assert not {"acme.mallory", "acme.gracex"} & set(people)


def test_a_caller_whose_key_ended_meanwhile_has_no_link_made_and_nobody_either(api: AgentsApi) -> None:
    who, keyed = api.caller(), Keyed(key=None, document={})
    api.revoke(Scope(kind=ScopeKind.AGENT, key="acme.bot"))
    with pytest.raises(NotLetIn):
        api.invitations.invite(who, "heidi", "github", scopes=None, return_to=None, keyed=keyed, now=api.now())
    assert api.database.read(lambda c: c.execute(select(connect_sessions.c.id)).all()) == []
    people = api.database.read(lambda c: c.execute(select(principals.c.id)).scalars().all())
    assert "acme.heidi" not in people


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"user": "a b", "connection": "github"}, 422),
        ({"user": "x" * 80, "connection": "github"}, 422),
        ({"user": "ada", "connection": "linear"}, 409),
        ({"user": "ada", "connection": "github", "return_to": "https://evil.example"}, 422),
        ({"user": "ada", "connection": "github", "scopes": []}, 422),
        ({"user": "ada", "connection": "github", "more": 1}, 422),
        ({"user": "ada"}, 422),
    ],
)
def test_a_link_that_cannot_be_is_refused(sqlite_api: AgentsApi, body: dict[str, object], status: int) -> None:
    assert sqlite_api.ask("POST", "/v1/connect-links", json=body).status_code == status


def test_a_revocation_is_effective_when_it_answers_and_has_a_receipt(api: AgentsApi) -> None:
    admin = api.key(agent="admin", role=ADMIN)
    job = api.execute().json["job"]["id"]
    body = {"kind": "user", "key": "ada", "reason": "she left"}
    answer = api.ask("POST", "/v1/revocations", admin, json=body, headers={"Idempotency-Key": "r-1"})
    assert (answer.status_code, answer.json["state"]) == (201, "effective")
    assert api.database.read(lambda c: c.execute(select(revocations.c.barred)).scalar_one()) == ["test"], (
        "who made the key"
    )
    answer.close()
    assert api.ring.rung[-1] == answer.json["id"]
    assert account_of(api)["usable"] is False
    again = api.ask("POST", "/v1/revocations", admin, json=body, headers={"Idempotency-Key": "r-1"})
    assert again.json["id"] == answer.json["id"]
    assert api.revoker.advance(answer.json["id"])
    shown = api.ask("GET", answer.headers["Location"], admin).json
    assert (shown["state"], shown["cancelled_jobs"]) == ("quiesced", 1)
    assert api.signer.verifies(shown["receipt"], shown["signature"])
    assert api.ask("GET", f"/v1/jobs/{job}").json["revocation"] == answer.json["id"]


def test_an_account_is_narrowed_by_a_request_that_takes_once_what_it_names(api: AgentsApi) -> None:
    admin = api.key(agent="admin", role=ADMIN)
    mine = update(grants).where(grants.c.account_id == "acc-acme.ada").values(scopes=["issues", "comments"])
    api.database.write(lambda c: c.execute(mine).rowcount)
    body = {"kind": "account", "key": "acme/gh/acme.ada", "keeps": ["comments"], "reason": "a leak"}
    key = {"Idempotency-Key": "n-1"}
    made, again = (api.ask("POST", "/v1/revocations", admin, json=body, headers=key) for _ in range(2))
    assert (made.status_code, again.status_code, again.json["id"]) == (201, 201, made.json["id"])
    made.close()
    assert api.ring.rung[-1] == made.json["id"]
    assert made.json["scope"] == {"kind": "narrowing", "key": "acme/gh/acme.ada"}
    assert made.json["narrowing"] == {"had": ["issues", "comments"], "keeps": ["comments"], "took": ["issues"]}
    assert (account_of(api)["usable"], account_of(api)["scopes"]) == (True, ["comments"])
    assert api.revoker.advance(made.json["id"])
    shown = api.ask("GET", made.headers["Location"], admin).json
    assert (shown["state"], shown["receipt"]["requested_by"]) == ("quiesced", made.json["requested_by"])
    assert api.signer.verifies(shown["receipt"], shown["signature"])
    anew = api.ask("POST", "/v1/revocations", admin, json=body)
    assert (anew.status_code, "nothing to narrow" in anew.json["detail"]) == (422, True)
    assert len(api.ask("GET", "/v1/revocations", admin).json["items"]) == 1


def test_only_an_account_is_narrowed(sqlite_api: AgentsApi) -> None:
    body = {"kind": "user", "key": "ada", "keeps": ["comments"], "reason": "a leak"}
    answer = sqlite_api.ask("POST", "/v1/revocations", sqlite_api.keys["acme", ADMIN], json=body)
    assert (answer.status_code, "only an account" in answer.json["detail"]) == (422, True)
    assert sqlite_api.ask("GET", "/v1/revocations", sqlite_api.keys["acme", ADMIN]).json["items"] == []


def test_a_revocation_waits_for_nobodys_turn(sqlite_api: AgentsApi) -> None:
    api, admin = sqlite_api, sqlite_api.key(agent="admin", role=ADMIN)
    with turn_taken(api.database):
        answer = api.ask("POST", "/v1/revocations", admin, json={"kind": "user", "key": "ada", "reason": "she left"})
    assert (answer.status_code, answer.json["state"]) == (201, "effective")


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("tenant", "globex"),
        ("agent", "globex.bot"),
        ("agent", "tester"),
        ("connection", "gh"),
        ("user", "globex.ada"),
        ("account", "acc-globex.ada"),
        ("account", "globex/gh/globex.ada"),
        ("account", "acme/gh/acme.bob"),
    ],
)
def test_what_is_anothers_cannot_be_revoked(sqlite_api: AgentsApi, kind: str, key: str) -> None:
    body = {"kind": kind, "key": key, "reason": "spite"}
    answer = sqlite_api.ask("POST", "/v1/revocations", sqlite_api.keys["acme", ADMIN], json=body)
    assert answer.status_code == 422
    assert sqlite_api.ask("GET", "/v1/revocations", sqlite_api.keys["globex", ADMIN]).json["items"] == []


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("agent", "acme.bot"),
        ("user", "acme.ada"),
        ("account", "acc-acme.ada"),
        ("account", "acme/gh/acme.ada"),
        ("tenant", "acme"),
    ],
)
def test_what_is_the_tenants_own_can_be(sqlite_api: AgentsApi, kind: str, key: str) -> None:
    body = {"kind": kind, "key": key, "reason": "over"}
    answer = sqlite_api.ask("POST", "/v1/revocations", sqlite_api.keys["acme", ADMIN], json=body)
    assert (answer.status_code, answer.json["scope"]["kind"]) == (201, kind)
    foreign = sqlite_api.keys["globex", ADMIN]
    assert sqlite_api.ask("GET", f"/v1/revocations/{answer.json['id']}", foreign).status_code == 404
    assert sqlite_api.ask("GET", "/v1/revocations", foreign).json["items"] == []


def test_deliveries_are_shown_with_their_jobs_to_their_tenant_alone(api: AgentsApi) -> None:
    job = api.house.job("d-1")
    (listed,) = api.ask("GET", "/v1/deliveries", api.keys["acme", READER]).json["items"]
    shown = api.ask("GET", f"/v1/deliveries/{listed['id']}", api.keys["acme", READER]).json
    assert (shown["sender_id"], shown["jobs"]) == ("d-1", [job])
    assert api.ask("GET", f"/v1/deliveries/{listed['id']}", api.keys["globex", READER]).status_code == 404
    assert api.ask("GET", "/v1/deliveries", api.keys["globex", READER]).json["items"] == []


def test_another_tenants_account_is_not_there(api: AgentsApi) -> None:
    id = account_of(api)["id"]
    assert api.ask("GET", f"/v1/accounts/{id}", api.keys["globex", ADMIN]).status_code == 404
    listed = api.ask("GET", "/v1/accounts", api.keys["globex", ADMIN]).json["items"]
    assert id not in {account["id"] for account in listed}


def test_pages_together_are_the_whole_list_once_each(api: AgentsApi) -> None:
    made = [api.execute(text=str(number)).json["job"]["id"] for number in range(7)]
    seen: list[str] = []
    path = "/v1/jobs?limit=3"
    while path:
        page = api.ask("GET", path).json
        seen += [item["id"] for item in page["items"]]
        path = f"/v1/jobs?limit=3&cursor={page['next']}" if page["next"] else ""
    assert seen == made[::-1]


def test_pages_of_revocations_are_in_the_order_in_which_they_took_effect(api: AgentsApi) -> None:
    made = revocations_of_one_moment(datetime.now(UTC), tenant_id="acme")
    api.database.write(lambda c: c.execute(insert(revocations), made))
    seen: list[str] = []
    page = {"next": ""}
    while page["next"] is not None:
        cursor = f"&cursor={page['next']}" if page["next"] else ""
        page = api.ask("GET", f"/v1/revocations?limit=3{cursor}", api.keys["acme", ADMIN]).json
        seen += [item["id"] for item in page["items"]]
    assert seen == [one["id"] for one in reversed(made)]


@pytest.mark.parametrize("cursor", ["x", "bm9wZQ", "WzEsInJldi0xIl0", "WzEsLTFd", "WzEsMTAwMDAwMDAwMDAwMDAwMDAwXQ"])
def test_a_cursor_that_is_none_of_revocations_is_refused(sqlite_api: AgentsApi, cursor: str) -> None:
    admin = sqlite_api.keys["acme", ADMIN]
    assert sqlite_api.ask("GET", f"/v1/revocations?cursor={cursor}", admin).status_code == 422


@pytest.mark.parametrize("cursor", ["x", "bm9wZQ", "W10", "WzEsMl0", "WzEsIlx1MDAwMCJd"])
def test_a_cursor_that_is_none_of_ours_is_refused(sqlite_api: AgentsApi, cursor: str) -> None:
    assert sqlite_api.ask("GET", f"/v1/jobs?cursor={cursor}").status_code == 422


def test_a_filter_that_is_misspelt_does_not_let_everything_through(sqlite_api: AgentsApi) -> None:
    assert sqlite_api.ask("GET", "/v1/jobs?stat=done").status_code == 422
    twice = sqlite_api.ask("GET", "/v1/jobs?state=done&state=dead")
    assert (twice.status_code, "`state`" in twice.json["detail"]) == (422, True)
    assert sqlite_api.ask("GET", "/v1/jobs?state=done").status_code == 200
