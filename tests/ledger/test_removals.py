"""What an operator takes back: a connection that nothing came through, and whose an installation is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar

import pytest
from sqlalchemy import Connection, select, update

from identity.accounts.scopes import remember_stop
from identity.accounts.states import pending_account
from identity.audit import Act
from identity.audit.tables import audit
from identity.connect_sessions.sessions import ConnectSession, add_session, use_up
from identity.connect_sessions.tables import connect_sessions
from identity.connections.installations import whose_installations
from identity.errors import BadInput
from identity.model import AccountKey, AccountState, ProviderConnection, Scope, ScopeKind
from identity.tables import accounts, provider_connections, scopes
from identity.transmitters import Transmitter
from pipeline.action import Facts
from pipeline.deliveries.redeliveries import remember_asked, was_asked
from pipeline.desk import connections as acts
from pipeline.desk import tenants, transmitters
from pipeline.jobs.intents import Ended
from pipeline.run import Run, StepRefused
from pipeline.states import JobState
from pipeline.tables import attempts
from pipeline.workflow import USER
from tests.ledger.acts import open_, revoke
from tests.ledger.house import House, Say, intent_of
from tests.ledger.workers import Workers

NOW = datetime.now(UTC)
SPARE = Scope(kind=ScopeKind.CONNECTION, key="spare")


@pytest.fixture
def spare(house: House) -> House:
    """With a connection of acme's that nothing refers to."""
    add(house)
    return house


def act(name: str) -> Act:
    return Act(audit_id=f"aud-{name}", by="test", now=NOW)


def add(house: House, *, again: str = "", at: str = "https://api.linear.example") -> None:
    owner = ProviderConnection(
        id="spare",
        tenant="acme",
        provider="linear",
        client_id="c",
        scopes=(),
        api_url=at,
        authorize_url="",
        token_url="",
    )
    house.database.write(lambda c: acts.add(c, owner, [], act(f"added{again}")))


def remove(house: House) -> None:
    house.database.write(partial(acts.remove, id="spare", act=act("removed")))


def is_there(house: House) -> bool:
    found = select(provider_connections.c.id).where(provider_connections.c.id == "spare")
    return house.database.read(lambda c: c.execute(found).first()) is not None


def told_of(house: House, kind: str) -> dict[str, Any]:
    found = select(audit.c.detail).where(audit.c.kind == kind)
    return dict(house.database.read(lambda c: c.execute(found).scalar_one()))


def test_a_connection_through_which_only_capabilities_went_stays(spare: House) -> None:
    """Their audience may be removed by now; a revocation of another's connection of that id would name these calls."""
    asked = intent_of(spare, spare.claim(spare.job()))
    open_(spare, asked)
    through = update(attempts).where(attempts.c.id == asked.attempt).values(connection_id="spare", account_id="")
    spare.database.write(lambda c: c.execute(through).rowcount)
    with pytest.raises(BadInput, match="spare has a history, which is kept: calls with capabilities"):
        remove(spare)
    assert is_there(spare)


def test_a_connection_that_was_stopped_is_no_more_once_it_is_removed(spare: House) -> None:
    spare.database.write(partial(remember_stop, scope=SPARE, stopped=True))
    revoke(spare, SPARE)
    remove(spare)
    add(spare, again="-again")
    row = spare.database.read(lambda c: c.execute(select(scopes).where(scopes.c.key == "spare")).one())
    assert (row.stopped, row.revoked > 0) == (False, True)
    assert told_of(spare, "connection.removed")["was_stopped"] is True


def test_what_a_connection_that_was_removed_had_asked_for_again_is_forgotten(spare: House) -> None:
    spare.database.write(lambda c: remember_asked(c, "spare", "guid-1", now=datetime.now(UTC)))
    remove(spare)
    assert not spare.database.read(lambda c: was_asked(c, "spare", "guid-1"))


def test_a_connection_that_was_never_stopped_leaves_no_scope(spare: House) -> None:
    remove(spare)
    assert spare.database.read(lambda c: c.execute(select(scopes).where(scopes.c.key == "spare")).all()) == []
    assert told_of(spare, "connection.removed")["was_stopped"] is False


def test_a_job_that_would_wait_for_a_consent_at_a_connection_that_was_removed_looks_again(spare: House) -> None:
    asked = intent_of(spare, spare.claim(spare.job()), connection="spare")
    asked = replace(asked, lease=replace(asked.lease, connection="spare"))
    remove(spare)
    ended = open_(spare, asked)
    assert isinstance(ended, Ended)
    assert (ended.moved, ended.reason) == (JobState.QUEUED, "provider connection spare was removed: it looks again")


class SayThere(Say):
    facts: ClassVar[Facts] = replace(Say.facts, provider="linear")


def test_a_run_sends_no_token_to_where_a_connection_led_that_was_removed_and_added_anew(workers: Workers) -> None:
    """An address that was mistyped, or that is somebody else's by now. The run had read it for a step before."""
    house = workers.house
    add(house, at=workers.provider.url)

    def say(run: Run[Any], event: Any) -> None:
        with pytest.raises(StepRefused):
            run.do(SayThere(text="as the service"), as_=run.service)
        remove(house)
        add(house, again="-again", at="http://127.0.0.1:1")
        house.connect("acme", "acme.ada", through="spare")
        run.do(SayThere(text="as ada"), as_=run.user)

    house.workflow = replace(house.workflow, function=say, uses={SayThere: USER})
    job = house.job()
    workers.work(job)
    assert workers.tokens == []
    row = house.row(job)
    assert (row.state, row.reason) == (JobState.QUEUED, "provider connection spare has another address: it looks again")


def _link(c: Connection, id: str, *, expires_at: datetime) -> None:
    session = ConnectSession(
        id=id,
        key=AccountKey(tenant="acme", connection="spare", principal="acme.ada"),
        state_hash=id,
        started=1,
        scopes=(),
        verifier_sealed=b"v",
        browser_hash=None,
        expires_at=expires_at,
        finished_at=None,
        outcome=None,
        result=None,
        return_to=None,
        any_account=False,
        created_at=NOW,
    )
    add_session(c, session)


def test_connect_links_that_are_over_go_with_their_connection(spare: House) -> None:
    def begin(c: Connection) -> None:
        _link(c, "expired", expires_at=NOW - timedelta(minutes=1))
        _link(c, "denied", expires_at=NOW + timedelta(minutes=9))
        over = update(connect_sessions).where(connect_sessions.c.id == "denied")
        c.execute(over.values(finished_at=NOW, outcome="denied"))

    spare.database.write(begin)
    remove(spare)
    assert not is_there(spare)
    assert spare.database.read(lambda c: c.execute(select(connect_sessions)).all()) == []


def test_a_connect_link_that_works_is_in_the_way_until_then(spare: House) -> None:
    until = datetime(2099, 1, 2, 3, 4, tzinfo=UTC)
    spare.database.write(partial(_link, id="link", expires_at=until))
    with pytest.raises(BadInput, match=r"connect links that work until 2099-01-02 03:04 UTC"):
        remove(spare)
    assert is_there(spare)


@pytest.mark.parametrize(
    ("used_ago", "goes"), [(timedelta(seconds=59), False), (timedelta(seconds=61), True)], ids=["just now", "before"]
)
def test_a_link_whose_code_may_be_at_the_provider_is_in_the_way_past_its_time(
    spare: House, used_ago: timedelta, goes: bool
) -> None:
    def begin(c: Connection) -> None:
        used_at = NOW - used_ago
        _link(c, "last-minute", expires_at=used_at + timedelta(seconds=1))
        assert use_up(c, "last-minute", now=used_at)

    spare.database.write(begin)
    if goes:
        remove(spare)
    else:
        until = f"{NOW + timedelta(seconds=1):%Y-%m-%d %H:%M} UTC"
        with pytest.raises(BadInput, match=f"connect links that work until {until}"):
            remove(spare)
    assert is_there(spare) is not goes


def test_a_transmitter_is_in_the_way_until_it_is_removed_too(spare: House) -> None:
    okta = Transmitter(id="okta", issuer="i", audience="a", jwks_url="j", tenant=None, connection="spare")
    spare.database.write(lambda c: transmitters.add(c, okta, act("okta")))
    with pytest.raises(BadInput, match=r"transmitters \(1, until `aswhom transmitters remove`\)"):
        remove(spare)
    spare.database.write(lambda c: transmitters.remove(c, "okta", act("okta-removed")))
    remove(spare)
    assert not is_there(spare)


OF = {"connection_id": "spare", "external_id": "W1"}


def whose(house: House) -> frozenset[str]:
    return house.database.read(lambda c: whose_installations(c, "spare", ["W1"], within=None).tenants)


def test_an_installation_of_a_tenants_own_connection_is_taken_back_too(spare: House) -> None:
    spare.database.write(lambda c: tenants.add_installation(c, act("in"), tenant="acme", **OF))
    assert spare.database.read(lambda c: tenants.installation(c, "spare", "W1")) == "acme"
    spare.database.write(lambda c: tenants.remove_installation(c, act("out"), tenant="acme", **OF))
    assert whose(spare) == {"acme"}, "of whatever end it hears, where none is listed"
    with pytest.raises(BadInput, match="spare, acme's own, lists no W1"):
        spare.database.read(lambda c: tenants.installation(c, "spare", "W1"))


def test_the_last_that_a_tenants_own_connection_lists_is_taken_back_while_its_service_acts_there(spare: House) -> None:
    """Without a list the end of any is its tenant's; while another one is listed, this one's would be nobody's."""
    key = AccountKey(tenant="acme", connection="spare", principal="acme.service")

    def act_in_w1(c: Connection) -> None:
        for one in ("W1", "W2"):
            tenants.add_installation(c, act(f"in-{one}"), tenant="acme", connection_id="spare", external_id=one)
        pending_account(c, key, id="acc-service", provider="linear", now=NOW)
        acts_there = update(accounts).where(accounts.c.id == "acc-service")
        c.execute(acts_there.values(state=AccountState.ACTIVE, external_id="W1"))

    def take_back(one: str) -> None:
        of = {"connection_id": "spare", "external_id": one}
        spare.database.write(lambda c: tenants.remove_installation(c, act(f"out-{one}"), tenant="acme", **of))

    spare.database.write(act_in_w1)
    with pytest.raises(
        BadInput, match=r"nobody would hear of their end .*`aswhom revoke account acme/spare/acme\.service`"
    ):
        take_back("W1")
    take_back("W2")
    take_back("W1")
    assert whose(spare) == {"acme"}


def test_an_installation_of_a_tenants_own_connection_is_no_other_tenants(spare: House) -> None:
    spare.connect("globex", "globex.ada")
    with pytest.raises(BadInput, match="spare is acme's own connection: what comes through it is never globex's"):
        spare.database.write(lambda c: tenants.add_installation(c, act("in"), tenant="globex", **OF))
    assert whose(spare) == {"acme"}
