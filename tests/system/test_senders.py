"""Signed requests to the shipped web process: what each sender may send, and what a worker makes of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

from deploy.demo.people import connect
from deploy.demo.provision import SALESFORCE
from deploy.sandbox.world import PEOPLE
from identity.model import AccountKey
from identity.principals import link_alias
from pipeline.states import JobState
from pipeline.tables import deliveries
from tests.servers.valkey import Valkey
from tests.system.conftest import Start
from tests.system.rig import System
from tests.system.senders import deal_changed, slash_command


def test_the_rates_that_are_set_hold_for_a_tenant_and_for_a_connection(start_system: Start) -> None:
    system = start_system(ASWHOM_WEBHOOK_TENANT_RATE="1", ASWHOM_WEBHOOK_RATE="2")
    system.start("web")

    def pull(tenant: str, repository: str) -> list[int]:
        statuses: list[int] = system.pull(f"{tenant}/{repository}", PEOPLE[tenant][0])["statuses"]
        return statuses

    assert pull("acme", "shop") == [202]
    assert pull("acme", "infra") == [429]  # of the tenant; nothing of the connection is used up
    assert pull("globex", "site") == [202]
    assert pull("initech", "reports") == [429]  # of the connection, though it is the tenant's first


def test_a_redis_that_hangs_keeps_no_command_from_its_answer(start_system: Start, own_valkey: Valkey) -> None:
    """Slack waits for three seconds, and a command that was done after them is given again, and done twice.

    By the web's own clock each was done in time, or it would be answered 503: how long the client waited besides for a
    busy machine is not what is asked.
    """
    system = start_system(ASWHOM_WEBHOOK_TENANT_RATE="1000", ASWHOM_WEBHOOK_RATE="1000")
    system.start("web")
    assert slash_command(system, "acme", "hello", trigger="1.1.first").status_code == 200  # the web is warm
    own_valkey.pause()
    try:
        with ThreadPoolExecutor(4) as pool:
            answers = [*pool.map(lambda n: slash_command(system, "acme", "hello", trigger=f"1.1.{n}"), range(4))]
    finally:
        own_valkey.resume()
    assert [answer.status_code for answer in answers] == [200] * 4
    assert system.count(deliveries) == 5


def known_in_slack(system: System, user: str) -> None:
    """An admin says who of acme that is at Slack: ada."""
    link = partial(link_alias, tenant="acme", provider="slack", external_id=user, principal="acme.ada", login=None)
    system.runtime.database.write(partial(link, made_by="admin:test", now=datetime.now(UTC)))


def test_a_signed_slash_command_is_answered_in_words_for_whoever_typed_it_and_done_as_them(start_system: Start) -> None:
    system = start_system(ASWHOM_WORKFLOWS="tasks.slack_command")
    system.start("web", "worker", "housekeeping")
    system.connect("acme", "ada")
    known_in_slack(system, "U0ADA")
    answer = slash_command(system, "acme", "issue The page is slow", trigger="1.1.a", user="U0ADA")
    words = {"response_type": "ephemeral", "text": "Understood: it is under way."}
    assert (answer.status_code, answer.json()) == (200, words)
    (job,) = system.settled()
    assert (job.state, job.user_id, job.triggered_by) == (JobState.DONE, "acme.ada", "slack:U0ADA")
    (filed,) = system.effects("linear", operation="issueCreate")
    assert (filed["actor"], filed["token_kind"], filed["tenant"]) == ("ada", "user", "acme")
    (told,) = system.effects("slack")
    assert (told["token_kind"], told["tenant"]) == ("bot", "acme")


def test_a_deal_that_changed_is_an_opportunity_updated_as_its_owner_whose_token_had_ended(start_system: Start) -> None:
    system = start_system(ASWHOM_WORKFLOWS="tasks.crm_update")
    system.start_upstreams("salesforce")
    system.start("web", "worker", "housekeeping")
    key = AccountKey(tenant="acme", connection=SALESFORCE, principal="acme.ada")
    connect(system.runtime, key, web=system.web, login="ada", now=datetime.now(UTC))
    system.order("auth", "expire", provider="salesforce", user="ada")
    (organization,) = (one for one in system.world["salesforce"]["organizations"] if one["tenant"] == "acme")
    before = organization["opportunities"][0]
    answer = deal_changed(system, "acme", organization["id"], before, amount=12_000)
    assert answer.status_code == 202, answer.text
    (job,) = system.settled()
    assert (job.state, job.user_id, job.pattern) == (JobState.DONE, "acme.ada", "delegated")
    (after,) = (one for one in system.sandbox("salesforce", "opportunities") if one["Id"] == before["id"])
    assert (after["StageName"], after["Amount"], after["LastModifiedById"]) == ("Closed Won", 12_000, before["owner"])
    (written,) = system.effects("salesforce")
    assert (written["actor"], written["token_kind"], written["tenant"]) == ("ada", "user", "acme")
    assert 401 in [entry["status"] for entry in system.sandbox("salesforce", "log")]  # the token had ended
