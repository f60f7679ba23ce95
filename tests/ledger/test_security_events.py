"""Security events in the ledger: taken once by jti, for whom the transmitter may speak, and no one else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update

from identity.accounts.grants import get_grant
from identity.accounts.scopes import revoked_since
from identity.accounts.states import find_account
from identity.audit import Act
from identity.connect_sessions.sessions import CONNECTED, USED, ConnectSession, add_session
from identity.connect_sessions.tables import connect_sessions
from identity.connections.registry import add_connection, get_connection
from identity.errors import BadInput
from identity.http.addresses import AddressPolicy
from identity.http.client import Client
from identity.model import AccountKey, AccountState, PrincipalKind, Scope, ScopeKind
from identity.oauth.jwks import KeyRing
from identity.oauth.token_digests import double
from identity.people import taken_for
from identity.principals import ensure_principal, link_alias
from identity.sql.sequence import next_number
from identity.tables import accounts, grants
from identity.transmitters import Transmitter, add_transmitter, find_transmitter, is_of_connection
from pipeline.deliveries.security_event_intake import SecurityEventIntake
from pipeline.desk import transmitters
from pipeline.jobs.intents import Ended
from pipeline.model import Acceptance, DeliveryOutcome, SecurityEvent
from pipeline.revocation.security_events import accept
from pipeline.revocation.tables import revocations, security_events
from pipeline.signal import Asks, Holders, Nobody, People, Signal
from pipeline.states import JobState
from tests.ledger.acts import SIGNER, listening, open_, receipt_of, revoke
from tests.ledger.house import House, begin_connecting
from tests.ledger.house import intent_of as intent
from tests.ledger.revokers import quiet_revoker
from tests.properties.held import Ledger
from tests.webhooks.events import register

IDP = Transmitter(
    id="idp", issuer="i", audience="a", jwks_url="https://idp.example/jwks", tenant="acme", connection=None
)
KEYLESS = KeyRing(Client(policy=AddressPolicy()))
GOOGLE = replace(IDP, id="google", tenant=None, connection="gh")
ADA = AccountKey(tenant="acme", connection="gh", principal="acme.ada")
REVOKED = Signal(
    source="caep.session-revoked", asks=Asks.REVOKE, whom=(People(ids=frozenset({"u-1"})),), reason="it was revoked"
)


def event(jti: str = "j-1", signal: Signal | None = REVOKED, *, by: Transmitter = IDP, note: str = "") -> SecurityEvent:
    signals = (signal,) if signal else ()
    return SecurityEvent(transmitter=by.id, jti=jti, events=("type",), signals=signals, note=note, token=b"token")


@pytest.fixture
def told(house: House) -> House:
    """The house, with two transmitters, one of which knows ada as u-1."""
    house.database.write(lambda c: register(c, IDP, GOOGLE, now=datetime.now(UTC)))
    return house


def also_through_slack(house: House) -> AccountKey:
    """Ada is connected there as well, as of now."""

    def rows(c: Any) -> None:
        owner = replace(get_connection(c, "gh"), id="sl", provider="slack", tenant="acme")
        add_connection(c, owner, now=datetime.now(UTC))
        (account,) = c.execute(select(accounts).where(accounts.c.id == "acc-acme.ada")).mappings()
        (grant,) = c.execute(select(grants).where(grants.c.account_id == "acc-acme.ada")).mappings()
        c.execute(accounts.insert().values({**account, "id": "acc-sl", "connection_id": "sl"}))
        c.execute(grants.insert().values({**grant, "account_id": "acc-sl", "consented_at": datetime.now(UTC)}))

    house.database.write(rows)
    return replace(ADA, connection="sl")


def take(house: House, one: SecurityEvent, by: Transmitter = IDP) -> Acceptance:
    now = datetime.now(UTC)
    return house.database.write(partial(accept, event=one, transmitter=by, id=house.ids("rev"), now=now))


def state(house: House, key: AccountKey = ADA) -> AccountState:
    account = house.database.read(partial(find_account, key=key))
    assert account is not None
    return account.state


def scopes(house: House) -> list[tuple[str, str]]:
    rows = select(revocations.c.kind, revocations.c.key).order_by(revocations.c.number)
    return [(row.kind, row.key) for row in house.database.read(lambda c: c.execute(rows).all())]


def test_an_identity_providers_word_ends_everything_of_the_user(told: House) -> None:
    job = told.claim(told.job())
    taken = take(told, event())
    assert (taken.outcome, len(taken.revocations)) == ("signal", 1)
    assert scopes(told) == [(ScopeKind.USER, "acme.ada")]
    assert isinstance(open_(told, intent(told, job)), Ended)
    assert told.row(job.id).state == JobState.CANCELLED
    (made,) = taken.revocations
    assert quiet_revoker(told.database, SIGNER).advance(made)
    assert receipt_of(told, made)["signal"] == "j-1"


def test_a_jti_is_taken_once_whatever_it_says(told: House) -> None:
    take(told, event())
    told.connect("acme", "acme.ada")
    again = take(told, event())
    assert (again.outcome, again.revocations) == ("duplicate", ())
    assert len(scopes(told)) == 1
    assert take(told, event(), GOOGLE).outcome == "signal"  # another transmitter's jti is another
    assert len(take(told, event("j-2")).revocations) == 1


def test_what_is_older_than_every_live_consent_changes_nothing(told: House) -> None:
    old = replace(REVOKED, happened_at=datetime.now(UTC) - timedelta(hours=1))
    assert take(told, event(signal=old)).revocations == ()
    assert scopes(told) == []
    young = replace(REVOKED, happened_at=datetime.now(UTC))
    assert len(take(told, event("j-2", young)).revocations) == 1
    # Nothing is alive now, so there is nothing that could be younger.
    assert len(take(told, event("j-3", young)).revocations) == 1


def consented(house: House, at: datetime) -> None:
    """That is when ada connected."""
    of_ada = update(grants).where(grants.c.account_id == "acc-acme.ada").values(consented_at=at)
    house.database.write(lambda c: c.execute(of_ada).rowcount)


def test_what_is_younger_than_one_consent_ends_all_of_the_user_and_repeated_nothing(told: House) -> None:
    """Not that consent alone: what hangs on none, as a job under capabilities, would go on."""
    now = datetime.now(UTC)
    consented(told, now - timedelta(days=3))
    also_through_slack(told)
    job = told.claim(told.job())
    between = replace(REVOKED, happened_at=now - timedelta(days=2))
    assert len(take(told, event(signal=between)).revocations) == 1
    assert scopes(told) == [(ScopeKind.USER, "acme.ada")]
    assert isinstance(open_(told, intent(told, job)), Ended)
    assert take(told, event("j-2", between)).revocations == (), "she was revoked since"


def test_what_was_revoked_with_the_user_is_nothing_older_that_a_late_signal_still_ends(told: House) -> None:
    """Its account looks active: a user's revocation moves one number, and no account."""
    now, minute = datetime.now(UTC), timedelta(minutes=1)
    there = also_through_slack(told)
    begin_connecting(told, there)
    long_ago = (
        update(grants).values(consented_at=now - 60 * minute),
        update(connect_sessions).values(created_at=now - 20 * minute),
    )
    told.database.write(lambda c: [c.execute(statement).rowcount for statement in long_ago])
    (made,) = take(told, event(signal=replace(REVOKED, happened_at=now - 12 * minute))).revocations
    then = update(revocations).where(revocations.c.id == made).values(effective_at=now - 12 * minute)
    told.database.write(lambda c: c.execute(then).rowcount)
    told.connect("acme", "acme.ada")  # at GitHub alone
    consented(told, now - 5 * minute)
    assert (state(told), state(told, there)) == (AccountState.ACTIVE, AccountState.ACTIVE)
    late = take(told, event("j-2", replace(REVOKED, happened_at=now - 10 * minute)))
    assert (late.revocations, "connected again since" in late.reason) == ((), True)
    assert len(take(told, event("j-3", replace(REVOKED, happened_at=now))).revocations) == 1


@pytest.mark.parametrize("outcome", [None, USED, CONNECTED])
def test_a_link_from_before_the_signal_is_not_completed_after_it(told: House, outcome: str | None) -> None:
    now = datetime.now(UTC)
    there = replace(ADA, connection="sl")  # where she has no account yet

    def link(c: Any) -> int:
        add_connection(c, replace(get_connection(c, "gh"), id="sl", provider="slack", tenant="acme"), now=now)
        begun = ConnectSession(
            id="con",
            key=there,
            state_hash="con",
            started=next_number(c),
            scopes=(),
            verifier_sealed=b"",
            browser_hash=None,
            expires_at=now + timedelta(minutes=10),
            finished_at=None,
            created_at=now - timedelta(minutes=3),
        )
        add_session(c, begun)
        if outcome is not None:
            c.execute(update(connect_sessions).values(finished_at=now, outcome=outcome))
        return begun.started

    started = told.database.write(link)
    take(told, event("j-1", replace(REVOKED, happened_at=now - timedelta(minutes=4))))
    assert scopes(told) == [], "all is younger"
    consented(told, now)
    take(told, event("j-2", replace(REVOKED, happened_at=now - timedelta(minutes=2))))
    ended = told.database.read(partial(revoked_since, wanted=there.scopes, number=started))
    assert (ended is not None) is (outcome != CONNECTED)


def test_what_is_older_than_the_users_last_revocation_is_not_another(told: House) -> None:
    old = replace(REVOKED, happened_at=datetime.now(UTC) - timedelta(hours=1))
    told.database.write(lambda c: c.execute(update(grants).values(consented_at=None)).rowcount)
    assert len(take(told, event(signal=old)).revocations) == 1
    job = told.claim(told.job())
    again = take(told, event("j-2", old))
    assert (again.revocations, "revoked since" in again.reason) == ((), True)
    assert told.row(job.id).state == JobState.RUNNING


def test_a_subject_that_nobody_linked_is_nobody(told: House) -> None:
    unknown = replace(REVOKED, whom=(People(ids=frozenset({"u-2"})),))
    taken = take(told, event(signal=unknown))
    assert taken.revocations == ()
    assert "nobody of the tenant is linked" in taken.reason
    address = replace(REVOKED, whom=(Nobody(why="the subject is named by email, which is never taken for a person"),))
    assert "never taken for a person" in take(told, event("j-2", address)).reason
    assert scopes(told) == []


def test_a_provider_connections_transmitter_means_its_accounts(told: House) -> None:
    person = replace(REVOKED, whom=(People(ids=frozenset({"1001"})),))
    taken = take(told, event(signal=person), GOOGLE)
    assert scopes(told) == [(ScopeKind.ACCOUNT, str(ADA))]
    assert len(taken.revocations) == 1


def test_a_refresh_token_is_known_by_its_digest(told: House) -> None:
    token = replace(REVOKED, whom=(Holders(digest=double("refresh-acme.ada-1")),))
    assert take(told, event(signal=token)).revocations == ()  # an identity provider has none of ours
    assert len(take(told, event(signal=token), GOOGLE).revocations) == 1
    assert state(told) is AccountState.REVOKED


def test_a_transmitter_of_one_tenant_does_not_reach_another(told: House) -> None:
    told.connect("globex", "globex.ada")
    narrow = replace(GOOGLE, tenant="globex")
    take(told, event(signal=replace(REVOKED, whom=(People(ids=frozenset({"1001"})),))), narrow)
    assert scopes(told) == [(ScopeKind.ACCOUNT, "globex/gh/globex.ada")]
    assert state(told) is AccountState.ACTIVE


@pytest.mark.parametrize("by", [IDP, GOOGLE], ids=["idp", "google"])
def test_changed_claims_make_the_next_step_fetch_another_token(told: House, by: Transmitter) -> None:
    who = "u-1" if by is IDP else "1001"
    changed = replace(REVOKED, asks=Asks.RENEW, whom=(People(ids=frozenset({who})),))
    assert take(told, event(signal=changed, by=by), by).revocations == ()
    account = told.database.read(partial(find_account, key=ADA))
    assert account is not None
    assert account.state is AccountState.ACTIVE
    grant = told.database.read(partial(get_grant, account=account.id))
    assert grant is not None
    assert (grant.access_sealed, grant.refresh_sealed is not None) == (None, True)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)  # SQLite has one writer, and no locks
def test_whom_a_token_revokes_is_locked_before_her_accounts_are(told: House) -> None:
    """Steps open in this order: in any other, a token of several events could wait for them, and they for it."""
    locked: list[int] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if "pg_advisory_xact_lock(" in statement:
            locked.append(parameters["key"])

    with listening(told.database.engine, "before_cursor_execute", note):
        take(told, event("j-1"))
        (of_user, *_) = locked
        locked.clear()
        changed = replace(REVOKED, asks=Asks.RENEW)
        taken = take(told, replace(event("j-2"), signals=(changed, REVOKED)))
    assert locked[0] == of_user
    assert len(locked) > 1
    assert [one.rpartition(".")[2] for one in taken.revocations] == ["s1"], "its place in the token is its name"


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("together", [True, False], ids=["one event", "two"])
def test_users_are_locked_by_their_own_ids_in_whatever_order_a_token_names_them(told: House, together: bool) -> None:
    aaron, ada = (Scope(kind=ScopeKind.USER, key=f"acme.{name}") for name in ("aaron", "ada"))

    def join(c: Any) -> None:
        now = datetime.now(UTC)
        ensure_principal(c, id=aaron.key, tenant="acme", kind=PrincipalKind.USER, name="aaron", now=now)
        whose: dict[str, Any] = {"tenant": "acme", "provider": "idp", "external_id": "u-2", "principal": aaron.key}
        assert link_alias(c, **whose, login=None, made_by="admin:t", now=now)

    told.database.write(join)

    def locked(act: Callable[[], object]) -> list[int]:
        keys: list[int] = []

        def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
            if "pg_advisory_xact_lock(" in statement:
                keys.append(parameters["key"])

        with listening(told.database.engine, "before_cursor_execute", note):
            act()
        return list(dict.fromkeys(keys))

    known = [key for user in (aaron, ada) for key in locked(partial(revoke, told, user))]
    both = ({"u-1", "u-2"},) if together else ({"u-1"}, {"u-2"})
    signals = tuple(replace(REVOKED, whom=(People(ids=frozenset(ids)),)) for ids in both)
    assert locked(lambda: take(told, replace(event("j-1"), signals=signals))) == known
    assert len(scopes(told)) == 4


def test_what_asks_for_nothing_is_kept_with_the_reason(told: House) -> None:
    noted = event(signal=None, note="ssf.verification: the stream works")
    taken = take(told, replace(noted, events=("a type\0of", "no \ud800 kind")))
    assert taken.outcome == "ignored"
    (row,) = told.database.read(lambda c: c.execute(select(security_events)).all())
    assert (row.outcome, row.reason, row.token) == ("ignored", "ssf.verification: the stream works", b"token")


def test_a_transmitter_means_somebody_or_is_not_registered(told: House) -> None:
    nobody = replace(IDP, id="none", tenant=None)
    with pytest.raises(BadInput):
        told.database.write(partial(add_transmitter, new=nobody, now=datetime.now(UTC)))
    assert told.database.read(partial(find_transmitter, transmitter="idp")) == IDP
    assert not told.database.write(partial(add_transmitter, new=IDP, now=datetime.now(UTC)))


def removed(house: House, id: str) -> None:
    act = Act(audit_id=f"aud-{id}", by="test", now=datetime.now(UTC))
    house.database.write(partial(transmitters.remove, id=id, act=act))


def test_one_that_was_removed_is_known_no_more_and_what_it_signalled_stays(told: House) -> None:
    intake = SecurityEventIntake(told.database, KEYLESS, told.ids, clock=lambda: datetime.now(UTC))
    sender = intake.transmitter("idp")
    assert sender == IDP
    taken = intake.accept(event("j-1"), sender)
    assert taken is not None
    removed(told, "idp")
    assert intake.transmitter("idp") is None
    assert intake.accept(event("j-2"), sender) is None, "it was found before, and is taken after"
    assert told.database.read(lambda c: c.execute(select(security_events.c.jti)).scalars().all()) == ["j-1"]
    assert len(scopes(told)) == 1
    with pytest.raises(BadInput, match="idp was removed already"):
        removed(told, "idp")


def test_one_that_is_removed_while_a_commit_is_not_confirmed_is_told_that_its_event_was_taken(told: House) -> None:
    def remove_once() -> None:
        ledger.committed = lambda: None
        removed(told, "idp")

    ledger = Ledger(told.database, remove_once)
    ledger.fault = "commit unseen"
    taken = SecurityEventIntake(ledger, KEYLESS, told.ids, clock=lambda: datetime.now(UTC)).accept(event("j-1"), IDP)
    assert taken is not None
    assert (taken.outcome, len(scopes(told))) == (DeliveryOutcome.DUPLICATE, 1)


def test_the_people_of_one_that_was_removed_are_nobody_elses(told: House) -> None:
    """Aliases stay under its id: a server's users of that name would act as those."""
    removed(told, "idp")
    owner = told.database.read(lambda c: get_connection(c, "gh"))
    taken = replace(owner, id="other", provider="oidc", config={"people": "idp"})
    assert told.database.read(lambda c: taken_for(c, taken)) == "idp names the people of transmitter idp"


def test_by_a_removed_ones_word_the_provider_itself_has_ended_what_it_said(told: House) -> None:
    removed(told, "google")
    assert told.database.read(partial(is_of_connection, transmitter="google"))
    assert not told.database.read(partial(is_of_connection, transmitter="idp"))
