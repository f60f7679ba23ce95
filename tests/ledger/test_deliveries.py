"""Acceptance: one transaction, once, for the right tenant."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import IntegrityError

from identity.audit import Act
from identity.audit.tables import audit
from identity.connections.installations import add_installation, remove_installation
from identity.connections.registry import add_connection, get_connection
from identity.errors import BadInput, Unavailable
from identity.model import AccountState
from identity.tables import accounts, installations, provider_connections
from pipeline.authoring.registry import Registry
from pipeline.deliveries.intake import Intake
from pipeline.deliveries.rated_tenants import KEPT
from pipeline.deliveries.tenant import DeliveryTenant, whose_delivery
from pipeline.desk.rates import limit_tenant
from pipeline.model import Acceptance, DeliveryOutcome, RatedTenant
from pipeline.revocation.tables import revocations
from pipeline.signal import Asks, People, Signal
from pipeline.signed_answer import SignedAnswer
from pipeline.states import JobState
from pipeline.tables import deliveries, delivery_bodies, job_scopes, jobs, workflow_settings
from pipeline.workflow import Event, Trigger
from tests.ledger.acts import SIGNER, receipt_of
from tests.ledger.house import House
from tests.ledger.revokers import quiet_revoker
from tests.ledgers import MOSTLY_SQLITE

CONSENT_GONE = Signal(
    source="github.github_app_authorization",
    asks=Asks.REVOKE,
    whom=(People(ids=frozenset({"1001"})),),
    reason="revoked",
)


def _count(house: House, table: object) -> int:
    return house.database.read(lambda c: c.execute(select(func.count()).select_from(table)).scalar_one())  # type: ignore[arg-type]


@MOSTLY_SQLITE
def test_a_hundred_times_the_same_delivery_is_one_job(house: House) -> None:
    delivery = house.delivery("same")
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda: outcomes.append(house.accept(delivery).outcome)) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["accepted", *["duplicate"] * 99]
    assert (_count(house, jobs), _count(house, deliveries)) == (1, 1)


def test_a_delivery_whose_job_cannot_be_stored_is_not_stored_and_is_accepted_when_it_comes_again(house: House) -> None:
    taken = house.job()
    before = (_count(house, deliveries), _count(house, delivery_bodies), _count(house, jobs))
    with pytest.raises(IntegrityError):
        house.accept(house.delivery("whole or not at all"), job=taken)
    assert (_count(house, deliveries), _count(house, delivery_bodies), _count(house, jobs)) == before
    assert house.accept(house.delivery("whole or not at all")).outcome == "accepted"


def test_a_duplicate_says_which_jobs_the_first_one_started_and_rings_for_none(house: House) -> None:
    first = house.accept(house.delivery("same"))
    again = house.accept(house.delivery("same"))
    assert (again.outcome, again.jobs, again.delivery) == ("duplicate", first.jobs, first.delivery)
    assert (first.bells != (), again.bells) == (True, ()), "they were rung for"


def test_a_replayed_body_under_another_id_is_a_duplicate_within_the_window_only(house: House) -> None:
    now = datetime.now(UTC)
    first = house.accept(house.delivery("one"), now=now)
    assert house.accept(house.delivery("two"), now=now + timedelta(days=2)).jobs == first.jobs
    assert house.accept(house.delivery("three"), now=now + timedelta(days=6)).outcome == "accepted"


def test_a_sender_that_signs_its_ids_may_send_the_same_body_twice_and_no_id(house: House) -> None:
    first = house.accept(house.delivery("one", dedupe_by_body=False))
    assert house.accept(house.delivery("two", dedupe_by_body=False)).outcome == "accepted"
    again = house.accept(house.delivery("one", text="other words", dedupe_by_body=False))
    assert (again.outcome, again.delivery, again.jobs) == ("duplicate", first.delivery, first.jobs)
    assert _count(house, jobs) == 2


def test_the_tenant_is_the_installations_never_the_bodys(house: House) -> None:
    accepted = house.accept(house.delivery("one", installation="installation-globex", text="acme"))
    assert house.row(accepted.jobs[0]).tenant_id == "globex"


def test_whose_a_delivery_is_can_be_asked_before_it_is_accepted(house: House) -> None:
    times = [0.0]
    now = datetime.now(UTC)
    intake = Intake(house.database, house.vault, house.ids, clock=lambda: now, monotonic=lambda: times[0])

    def whose(installation: str, owner: str | None = None) -> RatedTenant | None:
        return intake.rated_tenant("gh", installation, None, owner=owner)

    assert whose("installation-acme") == RatedTenant(id="acme")
    assert whose("installation-acme", owner="globex") == RatedTenant(id="globex"), "its own connection's"
    assert whose("nobody's") is None
    act = Act(audit_id=house.ids("aud"), by="test", now=now)
    house.database.write(lambda c: limit_tenant(c, "acme", 9000, act))
    house.database.write(lambda c: add_installation(c, owner="gh", external_id="nobody's", tenant="acme", now=now))
    assert whose("nobody's") == RatedTenant(id="acme", rate=9000), "a new installation counts at once"
    assert whose("installation-acme") == RatedTenant(id="acme")
    times[0] += KEPT
    assert whose("installation-acme") == RatedTenant(id="acme", rate=9000)


def test_a_workspace_that_is_listed_counts_before_its_organization(house: House) -> None:
    def whose(installation: str, workspace: str) -> DeliveryTenant:
        return house.database.read(lambda c: whose_delivery(c, "gh", installation, workspace))

    assert whose("an organization", "installation-globex").tenant == "globex"
    assert whose("installation-acme", "installation-globex").tenant == "globex", "whoever has the organization"
    assert whose("installation-acme", "a workspace").tenant == "acme"
    nobody = whose("an organization", "a workspace")
    assert nobody.tenant is None
    assert "an organization, nor its workspace a workspace" in nobody.refusal


def test_an_unknown_installation_starts_nothing_and_is_recorded(house: House) -> None:
    outcome = house.accept(house.delivery("one", installation="strange"))
    assert (outcome.outcome, outcome.jobs) == ("ignored", ())
    assert "no tenant has installation strange" in outcome.reason
    assert _count(house, deliveries) == 1


def test_a_signed_delivery_that_says_nul_is_stored(house: House) -> None:
    """PostgreSQL's text takes none, and JSON can spell it."""
    intake = Intake(house.database, house.vault, house.ids, clock=lambda: datetime.now(UTC))
    workflows = Registry([replace(house.workflow, user=None)])
    with pytest.raises(BadInput, match="triggered_by") as misfit:
        workflows.match("github", "pull_request", {"author": "a\x00b"})
    told = intake.accept(house.delivery("one"), [], outcome=DeliveryOutcome.UNRECOGNISED, reason=str(misfit.value))
    assert (told.outcome, _count(house, deliveries), house.states()) == ("unrecognised", 1, {})


def test_an_installation_known_through_another_connection_is_nobodys(house: House) -> None:
    """A workspace and an organization may have the same id: what is named is what this sender's secret signed for."""
    now, other = datetime.now(UTC), replace(house.database.read(lambda c: get_connection(c, "gh")), id="other")

    def add(c: Connection) -> None:
        add_connection(c, other, now=now)
        add_installation(c, owner="other", external_id="elsewhere", tenant="globex", now=now)

    house.database.write(add)
    outcome = house.accept(house.delivery("one", installation="elsewhere"))
    assert (outcome.outcome, outcome.jobs, house.states()) == ("ignored", (), {})


def test_a_tenants_own_secret_that_names_what_is_anothers_at_the_platforms_connection_is_refused(house: House) -> None:
    """Its own listing comes first; another host's ids are other ids, and a workspace may have two apps."""
    now, gh = datetime.now(UTC), house.database.read(lambda c: get_connection(c, "gh"))

    def add(c: Connection) -> None:
        for id, api in (("own", gh.api_url), ("enterprise", "https://github.acme.example/api/v3")):
            add_connection(c, replace(gh, id=id, tenant="acme", api_url=api), now=now)
        slack = replace(gh, id="slack", provider="slack", api_url="https://slack.com/api")
        add_connection(c, slack, now=now)
        add_connection(c, replace(slack, id="slack-acme", tenant="acme"), now=now)
        add_installation(c, owner="slack", external_id="T1", tenant="globex", now=now)

    house.database.write(add)
    named: dict[str, Any] = {"installation": "installation-globex", "dedupe_by_body": False}
    refused = house.accept(house.delivery("one", connection="own", **named))
    assert (refused.outcome, refused.jobs) == ("refused", ())
    assert "another tenant" in refused.reason
    told = select(audit.c.tenant_id).where(audit.c.kind == "delivery.refused")
    assert house.database.read(lambda c: list(c.execute(told).scalars())) == ["acme"]
    assert house.accept(house.delivery("two", connection="enterprise", **named)).outcome == "accepted"
    slack = {**named, "installation": "T1"}
    assert house.accept(house.delivery("slack", connection="slack-acme", **slack)).outcome == "accepted"
    house.database.write(
        lambda c: add_installation(c, owner="own", external_id=named["installation"], tenant="acme", now=now)
    )
    assert house.accept(house.delivery("three", connection="own", **named)).outcome == "accepted"


def test_of_a_tenants_own_app_that_lists_its_installations_another_one_is_a_strangers(house: House) -> None:
    """A public app is installed by anybody, and what they send is as genuinely signed."""
    now, gh = datetime.now(UTC), house.database.read(lambda c: get_connection(c, "gh"))
    house.database.write(lambda c: add_connection(c, replace(gh, id="own", tenant="acme"), now=now))

    def send(id: str, installation: str | None) -> Acceptance:
        return house.accept(house.delivery(id, connection="own", installation=installation, dedupe_by_body=False))

    assert send("before", "77").outcome == "accepted"  # none is listed: wherever it is installed
    house.database.write(lambda c: add_installation(c, owner="own", external_id="42", tenant="acme", now=now))
    assert send("ours", "42").outcome == "accepted"
    assert send("a repository's webhook", None).outcome == "accepted"
    stranger = send("strangers", "77")
    assert (stranger.outcome, stranger.jobs) == ("ignored", ())
    assert "`aswhom installations add own 77 acme`" in stranger.reason
    assert (stranger.nobodys, _tenant_of(house, stranger)) == (True, "acme"), "its operators see what was left out"


def _tenant_of(house: House, accepted: Acceptance) -> str | None:
    one = select(deliveries.c.tenant_id).where(deliveries.c.id == accepted.delivery)
    tenant: str | None = house.database.read(lambda c: c.execute(one).scalar_one())
    return tenant


def test_a_strangers_installation_is_not_taken_when_the_last_that_was_listed_is_deleted(house: House) -> None:
    """Anybody may time it: what was closed would be open from the second on that the provider says so."""
    now, gh = datetime.now(UTC), house.database.read(lambda c: get_connection(c, "gh"))

    def add(c: Connection) -> None:
        add_connection(c, replace(gh, id="own", tenant="acme"), now=now)
        add_installation(c, owner="own", external_id="42", tenant="acme", now=now)

    house.database.write(add)
    assert house.database.write(lambda c: remove_installation(c, owner="own", external_id="42"))
    sent = house.accept(house.delivery("strangers", connection="own", installation="77"))
    assert (sent.outcome, sent.jobs) == ("ignored", ())
    own = house.delivery("a repository's webhook", connection="own", installation=None, text="other")
    assert house.accept(own).outcome == "accepted"
    house.database.write(lambda c: add_installation(c, owner="own", external_id="43", tenant="acme", now=now))
    anew = house.delivery("anew", connection="own", installation="43", text="anew")
    assert house.accept(anew).outcome == "accepted"


def test_a_delivery_that_its_workspace_decided_tells_of_which_organization_that_is(house: House) -> None:
    def organization() -> str | None:
        one = select(installations.c.organization).where(installations.c.external_id == "installation-acme")
        known: str | None = house.database.read(lambda c: c.execute(one).scalar_one())
        return known

    house.accept(house.delivery("by itself"))
    assert organization() is None
    named: dict[str, Any] = {"installation": "E1", "workspace": "installation-acme"}
    assert house.accept(house.delivery("of all", text="of all", **named)).outcome == "accepted"
    assert organization() == "E1"
    again = house.database.read(lambda c: whose_delivery(c, "gh", "E1", "installation-acme"))
    assert (again.tenant, again.by_workspace) == ("acme", False), "written once"


def test_a_press_is_the_tenants_whose_own_app_asked_wherever_its_person_is_from(house: House) -> None:
    now, gh = datetime.now(UTC), house.database.read(lambda c: get_connection(c, "gh"))

    def add(c: Connection) -> None:
        add_connection(c, replace(gh, id="own", tenant="acme"), now=now)
        add_installation(c, owner="own", external_id="42", tenant="acme", now=now)

    house.database.write(add)
    pressed = SignedAnswer(provider="github", user="1001", approval="apr_1", digest="a" * 64, yes=True)
    intake = Intake(house.database, house.vault, house.ids, clock=lambda: now)

    def press(**named: Any) -> Acceptance:
        delivery = house.delivery("press", installation="77", answer=pressed, dedupe_by_body=False, **named)
        return intake.accept(delivery, [], outcome=DeliveryOutcome.IGNORED, reason="")

    told = press(connection="own")
    assert told.outcome == "refused"
    assert "lists its installations" not in told.reason, "it is judged by who pressed, and by the approval"
    assert told.nobodys is False
    nobodys = press()
    assert (nobodys.outcome, nobodys.nobodys, nobodys.told) == ("refused", True, "")


def test_what_its_sender_has_given_up_on_is_not_stored(house: House) -> None:
    """A person at Slack is told after three seconds that it failed, and gives it again under another id."""
    minute = timedelta(minutes=1)  # more than the disk of a busy machine takes for a commit
    intake = Intake(house.database, house.vault, house.ids, clock=lambda: datetime.now(UTC), accept_within=minute)

    def accept(began: float) -> Acceptance:
        given = house.delivery("one")
        return intake.accept(given, [], outcome=DeliveryOutcome.IGNORED, reason="", began=began)

    with pytest.raises(Unavailable):
        accept(time.monotonic() - 61)
    assert accept(time.monotonic() - 0.1).outcome == "ignored", "the first left no row"


def test_what_can_be_typed_is_of_the_workflows_that_are_on_for_the_tenant(house: House) -> None:
    typed: Trigger[Event] = Trigger(source="github", event="pull_request", read=lambda _: None, usage="issue TITLE")
    on = replace(house.workflow, on=(typed,))
    off = replace(on, name="refund_globex", on=(replace(typed, usage="refund-globex INVOICE"),))
    intake = Intake(house.database, house.vault, house.ids, clock=lambda: datetime.now(UTC))
    workflows = Registry([on, off])
    assert intake.usages(house.delivery("one"), workflows) == ["issue TITLE"]
    assert intake.usages(house.delivery("two", installation="strange"), workflows) == []


def test_a_secret_of_one_tenant_that_names_anothers_installation_is_refused_and_audited(house: House) -> None:
    own = update(provider_connections).where(provider_connections.c.id == "gh").values(tenant_id="acme")
    house.database.write(lambda c: c.execute(own).rowcount)
    delivery = house.delivery("one", installation="installation-globex")
    refused = house.accept(delivery)
    assert (refused.outcome, refused.jobs) == ("refused", ())
    assert "another tenant" in refused.reason
    assert house.accept(delivery).outcome == "duplicate"
    told = select(audit.c.tenant_id, audit.c.outcome).where(audit.c.kind == "delivery.refused")
    assert [tuple(row) for row in house.database.read(lambda c: c.execute(told).all())] == [("acme", "refused")]
    assert house.states() == {}


def test_a_workflow_that_is_not_switched_on_starts_nothing(house: House) -> None:
    house.database.write(lambda c: c.execute(update(workflow_settings).values(enabled=False)).rowcount)
    outcome = house.accept(house.delivery("one"))
    assert (outcome.outcome, _count(house, jobs)) == ("ignored", 0)


def test_a_login_nobody_linked_has_no_principal(house: House) -> None:
    accepted = house.accept(house.delivery("one", author="6666"))
    assert house.row(accepted.jobs[0]).user_id is None


def test_a_job_is_found_by_every_scope_its_workflow_declares(house: House) -> None:
    job = house.job()
    rows = house.database.read(lambda c: c.execute(select(job_scopes.c.kind, job_scopes.c.key)).all())
    assert house.row(job).user_id == "acme.ada"
    assert {tuple(row) for row in rows} == {
        ("tenant", "acme"),
        ("agent", "tester"),
        ("connection", "gh"),
        ("user", "acme.ada"),
        ("user", "acme.service"),
        ("account", "acme/gh/acme.ada"),
        ("account", "acme/gh/acme.service"),
    }


def test_a_revocation_signal_is_effective_when_it_is_accepted(house: House) -> None:
    job = house.job()
    accepted = house.accept(house.delivery("gone", signal=CONSENT_GONE, installation=None))
    assert (accepted.outcome, len(accepted.revocations)) == ("signal", 1)
    state = select(accounts.c.state).where(accounts.c.principal_id == "acme.ada")
    assert house.database.read(lambda c: c.execute(state).scalar_one()) == AccountState.REVOKED
    assert house.row(job).state == JobState.QUEUED  # tidying is the queue's; the rule already refuses it
    (made,) = accepted.revocations
    assert quiet_revoker(house.database, SIGNER).advance(made)
    assert receipt_of(house, made)["signal"] == accepted.delivery


def test_revoke_reconnect_revoke_with_the_same_bytes_ends_revoked(house: House) -> None:
    house.accept(house.delivery("first", signal=CONSENT_GONE, installation=None))
    house.connect("acme", "acme.ada")
    again = house.accept(house.delivery("second", signal=CONSENT_GONE, installation=None))
    assert len(again.revocations) == 1
    state = select(accounts.c.state).where(accounts.c.principal_id == "acme.ada")
    assert house.database.read(lambda c: c.execute(state).scalar_one()) == AccountState.REVOKED
    assert _count(house, revocations) == 2


def test_a_signal_about_a_stranger_revokes_nobody(house: House) -> None:
    stranger = replace(CONSENT_GONE, whom=(People(ids=frozenset({"9999"})),))
    outcome = house.accept(house.delivery("gone", signal=stranger, installation=None))
    assert (outcome.outcome, outcome.revocations, _count(house, revocations)) == ("signal", (), 0)


def test_a_workflow_that_is_on_and_that_the_web_lacks_is_known_by_its_name(house: House) -> None:
    intake = Intake(house.database, house.vault, house.ids, clock=lambda: datetime.now(UTC))
    assert intake.not_installed(Registry([house.workflow])) == []
    assert intake.not_installed(Registry(())) == [house.workflow.name]
