"""A product confirms who came back by its connect link: the whole way, over HTTP, and what the API answers to anything
but that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update

from identity.agents.api_keys import Role
from identity.audit.tables import audit
from identity.connect.return_targets import add_target
from identity.connect_sessions.sessions import CONFIRMED_WITHIN
from identity.connect_sessions.tables import connect_sessions
from identity.connections.registry import get_connection, rewrite_connection
from identity.model import Scope, ScopeKind
from identity.tenants import Tenants
from identity.withdrawals.tables import withdrawals
from identity.withdrawals.withdrawal import SHREDDED, WithdrawalState
from pipeline.accounts import facts
from pipeline.agents_api.requests import NotLetIn
from pipeline.ledger.paging import EVERY
from pipeline.views import tenant_views
from tests.api.agents_api import AgentsApi
from tests.api.product import BACK, NONCE, Product, product_of
from tests.identity.providers import PretendProvider, pretend_provider
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE


@pytest.fixture
def provider() -> Iterator[PretendProvider]:
    with pretend_provider() as pretend:
        yield pretend


@pytest.fixture
def product(api: AgentsApi, provider: PretendProvider) -> Product:
    return product_of(api, provider)


def why(product: Product, user: str) -> str:
    """What the API and the command line say of their account, which agree."""
    (listed,) = product.api.ask("GET", f"/v1/accounts?principal={user}").json["items"]
    assert listed["usable"] is False
    rows = product.api.database.read(
        lambda c: facts.all_told(c, tenant_views.accounts_page(c, Tenants.of("acme"), EVERY).rows)
    )
    (row,) = (row for row in rows if row["id"] == listed["id"])
    assert row["why"] == listed["why"]
    return str(listed["why"])


def left(product: Product) -> Any:
    return product.api.database.read(lambda c: c.execute(select(withdrawals)).one())


def ended(product: Product) -> bool:
    """Whether what was won is due, and nobody gets it any more."""
    row = left(product)
    return bool(row.state == WithdrawalState.PENDING and row.due_at <= datetime.now(UTC))


def audited(product: Product, kind: str) -> list[Any]:
    found = select(audit).where(audit.c.kind == kind)
    return list(product.api.database.read(lambda c: c.execute(found).all()))


def test_a_product_confirms_who_came_back_and_their_account_is_connected(
    product: Product, provider: PretendProvider
) -> None:
    made = product.link("grace")
    assert (made.status_code, made.json["confirm"]) == (201, True)
    brought = product.comes_back(made.json["url"])
    assert (brought["tab"], brought["aswhom_link"]) == ("agents", made.json["id"])
    assert "somebody consented, and it counts once the product" in why(product, "grace")
    done = product.confirms("grace", brought)
    assert done.status_code == 200, done.text
    assert (done.json["principal"], done.json["connection"], done.json["login"]) == ("acme.grace", "gh", "mona")
    account = product.api.ask("GET", f"/v1/accounts/{done.json['account']}").json
    assert (account["usable"], account["why"], account["state"]) == (True, None, "active")
    assert product.confirms("acme.grace", brought).json == done.json  # the answer was lost, say
    (confirmed,) = audited(product, "connect.confirmed")
    assert (confirmed.agent_id, confirmed.principal_id) == ("acme.bot", "acme.grace")
    assert provider.presented.total() == 1


def test_a_link_of_mallorys_that_ada_follows_gives_him_nothing(product: Product) -> None:
    """He sends her a link that is good, of the right domain, and his own."""
    brought = product.comes_back(product.link("mallory").json["url"])
    refused = product.confirms("ada", brought)
    assert (refused.status_code, refused.json["type"]) == (409, "urn:aswhom:problem:connect-refused")
    assert "Somebody else is signed in where you got the link" in refused.json["detail"]
    assert ended(product)
    assert "nobody has consented yet" in why(product, "mallory")
    assert product.confirms("mallory", brought).status_code == 409
    (told,) = audited(product, "connect.refused")
    assert (told.outcome, told.principal_id, told.detail["said"]) == ("unconfirmed", "acme.mallory", "acme.ada")
    assert told.detail["by"].startswith("api:acme.bot:")


def test_a_link_for_ada_that_mallory_followed_gives_her_agents_nothing_of_his(product: Product) -> None:
    """A model was talked into a link for her; he consents as himself and has her open where that led him."""
    api = product.api
    made = product.link("ada", key=api.keys["acme", Role.AGENT], nonce="whatever-the-model-made-up")
    brought = product.comes_back(made.json["url"])
    refused = product.confirms("ada", brought)
    assert (refused.status_code, refused.json["type"]) == (409, "urn:aswhom:problem:connect-refused")
    assert "not the browser session in which the link was asked for" in refused.json["detail"]
    assert ended(product)
    assert product.confirms("ada", brought, nonce="whatever-the-model-made-up").status_code == 409
    (told,) = audited(product, "connect.refused")
    assert (told.principal_id, told.detail["said"], told.detail["browser"]) == ("acme.ada", "acme.ada", "another")


def test_a_product_that_has_no_nonce_in_that_session_says_so_and_connects_nobody(product: Product) -> None:
    brought = product.comes_back(product.link("grace").json["url"])
    assert product.confirms("grace", brought, nonce="").status_code == 409
    assert ended(product)


def test_another_code_than_the_browsers_ends_nothing(product: Product) -> None:
    brought = product.comes_back(product.link("grace").json["url"])
    for more in ({}, {"nonce": ""}):
        assert product.confirms("grace", brought, code="x", **more).status_code == 409
    assert product.confirms("mallory", brought, code="x").status_code == 409
    assert not ended(product)
    assert audited(product, "connect.refused") == []
    assert product.confirms("grace", brought).status_code == 200


@pytest.mark.parametrize("over", [{"kept_until": datetime(2020, 1, 1, tzinfo=UTC)}, SHREDDED])
def test_what_can_no_longer_be_confirmed_is_not_promised(product: Product, over: dict[str, object]) -> None:
    """A hold keeps what is due from its end, and a deleted tenant's tokens are gone before it."""
    product.comes_back(product.link("grace").json["url"])
    product.api.database.write(lambda c: c.execute(update(withdrawals).values(over)).rowcount)
    assert "counts once" not in why(product, "grace")


def test_a_product_sees_who_consented_before_it_confirms(product: Product) -> None:
    made = product.link("grace").json
    brought = product.comes_back(made["url"])
    for _ in range(2):
        seen = product.looks("grace", brought)
        assert seen.status_code == 200, seen.text
        assert (seen.json["principal"], seen.json["connection"], seen.json["login"]) == ("acme.grace", "gh", "mona")
    assert "it counts once the product" in why(product, "grace")
    for refused in (product.looks("ada", brought), product.looks("grace", brought, nonce="")):
        assert (refused.status_code, refused.json["type"]) == (409, "urn:aswhom:problem:connect-refused")
        assert "mona" not in refused.text
    assert product.looks("grace", brought, product.api.keys["globex", Role.ADMIN]).status_code == 404
    assert not ended(product)
    assert product.confirms("grace", brought).status_code == 200
    assert product.looks("grace", brought).json["type"] == "urn:aswhom:problem:not-in-state"


def test_a_key_of_some_users_confirms_no_others_link_and_ends_none(product: Product) -> None:
    bobs = product.api.key(role=Role.PRODUCT, agent="bobs", users=["bob"])
    hers = product.comes_back(product.link("grace").json["url"])
    for user in ("grace", "bob"):
        for act in ("confirm", "look"):
            assert product.confirms(user, hers, bobs, act=act).status_code == 403
    his = product.comes_back(product.link("bob", key=bobs).json["url"])
    assert product.confirms("grace", his, bobs).status_code == 403
    assert audited(product, "connect.refused") == []
    assert product.looks("bob", his, bobs).status_code == 200
    assert product.confirms("grace", hers).status_code == 200


def test_who_makes_links_for_a_model_does_not_say_who_came_back(product: Product) -> None:
    agents = product.api.keys["acme", Role.AGENT]
    brought = product.comes_back(product.link("ada", key=agents).json["url"])
    for user in ("ada", "bob"):
        for act in ("confirm", "look"):
            refused = product.confirms(user, brought, agents, act=act)
            assert (refused.status_code, refused.json["type"]) == (403, "urn:aswhom:problem:not-allowed")
    assert not ended(product)


def test_a_link_that_is_to_be_confirmed_is_made_with_a_nonce_that_nobody_guesses(product: Product) -> None:
    for nonce in (None, "", "ada", "x" * 21, "with space" * 3, "x" * 201):
        assert product.link("grace", nonce=nonce).status_code == 422
    found = product.api.database.read(lambda c: c.execute(select(connect_sessions.c.id)).all())
    assert found == []
    product.link("grace")
    rows = product.api.database.read(lambda c: c.execute(select(connect_sessions)).all())
    assert NONCE not in str(rows)


def test_no_code_is_sent_to_a_product_in_clear_text(product: Product) -> None:
    api, back = product.api, "http://app.example/settings"
    api.database.write(partial(add_target, id="ret-2", tenant=None, url=back, now=datetime.now(UTC)))
    refused = product.link("grace", return_to=back)
    assert (refused.status_code, refused.json["type"]) == (422, "urn:aswhom:problem:unusable")
    assert "give an https:// return target" in refused.json["detail"]
    assert product.link("grace", return_to=back, confirm=None).status_code == 201


def test_the_key_of_another_tenant_or_one_that_makes_no_links_confirms_nothing(product: Product) -> None:
    brought, keys = product.comes_back(product.link("grace").json["url"]), product.api.keys
    assert product.confirms("grace", brought, keys["globex", Role.ADMIN]).status_code == 404
    assert product.confirms("acme.grace", brought, keys["globex", Role.PRODUCT]).status_code == 404
    assert product.confirms("grace", brought, keys["acme", Role.READER]).status_code == 403
    assert not ended(product)
    assert product.confirms("grace", brought, keys["acme", Role.ADMIN]).status_code == 200


def test_a_key_that_ended_meanwhile_confirms_nothing_and_ends_nothing(product: Product) -> None:
    api, brought = product.api, product.comes_back(product.link("grace").json["url"])
    who = api.caller(product.key)
    api.revoke(Scope(kind=ScopeKind.AGENT, key="acme.bot"))
    with pytest.raises(NotLetIn):
        api.invitations.confirm(
            who, brought["aswhom_link"], user="grace", code=brought["aswhom_code"], nonce=NONCE, now=datetime.now(UTC)
        )
    assert not ended(product)
    assert product.confirms("grace", brought, api.key(role=Role.PRODUCT, agent="other")).status_code == 200


def test_a_revocation_between_the_two_wins(product: Product) -> None:
    brought = product.comes_back(product.link("grace").json["url"])
    product.api.revoke(Scope(kind=ScopeKind.USER, key="acme.grace"))
    refused = product.confirms("grace", brought)
    assert (refused.status_code, refused.json["type"]) == (409, "urn:aswhom:problem:connect-refused")
    assert "Access was revoked after this link was made." in refused.json["detail"]
    assert ended(product)


def test_a_confirmation_has_its_time(product: Product) -> None:
    brought = product.comes_back(product.link("grace").json["url"])
    product.api.ahead = CONFIRMED_WITHIN + timedelta(seconds=1)
    late = product.confirms("grace", brought)
    assert (late.status_code, late.json["type"]) == (409, "urn:aswhom:problem:connect-refused")
    assert "did not confirm in time" in late.json["detail"]


def test_a_link_that_needs_none_or_that_nobody_followed_yet_has_nothing_to_confirm(product: Product) -> None:
    made = product.link("grace", confirm=None).json
    assert made["confirm"] is False
    brought = {"aswhom_link": made["id"], "aswhom_code": "x"}
    early = product.confirms("grace", brought)
    assert (early.status_code, early.json["type"]) == (409, "urn:aswhom:problem:not-in-state")
    assert product.confirms("grace", brought | {"aswhom_link": "made-up"}).status_code == 404


def test_a_connection_may_demand_it_and_a_link_without_a_way_back_is_none(product: Product) -> None:
    assert product.link("grace", return_to=None).status_code == 422
    api = product.api
    before = api.database.read(lambda c: get_connection(c, "gh"))
    api.database.write(lambda c: rewrite_connection(c, replace(before, config={"confirm": "true"})))
    made = product.link("grace", confirm=None)
    assert made.json["confirm"] is True
    assert product.confirms("grace", product.comes_back(made.json["url"])).status_code == 200
    refused = product.link("grace", confirm=None, return_to=None)
    assert (refused.status_code, refused.json["type"]) == (422, "urn:aswhom:problem:unusable")
    assert "`return_to`" in refused.json["detail"]
    assert product.link("grace", confirm=False).json["confirm"] is True


def test_a_request_is_the_one_it_was_before_there_was_such_a_member(product: Product) -> None:
    """A key that was used before an upgrade still stands for the same request."""
    ask = partial(product.api.ask, "POST", "/v1/connect-links", headers={"Idempotency-Key": "k-1"})
    body = {"user": "grace", "connection": "gh", "return_to": BACK}
    first = ask(json=body)
    assert ask(json=body | {"confirm": False}).json == first.json
    assert ask(json=body | {"nonce": None}).json == first.json
    assert ask(json=body | {"confirm": True}).status_code == 422
    reused = ask(json=body | {"nonce": NONCE})
    assert (reused.status_code, reused.json["type"]) == (422, "urn:aswhom:problem:idempotency-key-reused")
    found = product.api.database.read(lambda c: c.execute(select(connect_sessions.c.confirm)).scalars().all())
    assert list(found) == [False]
