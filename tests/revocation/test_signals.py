"""Signals, followed in the ledger: whom they mean, what they leave alone, and in which order they count."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from identity.accounts.grants import get_grant
from identity.accounts.states import find_account
from identity.audit import Act
from identity.audit.tables import audit
from identity.connect.consents import connect_service
from identity.connect_sessions.sessions import use_up
from identity.connections.installations import (
    add_installation,
    note_organization,
    note_places,
    note_service,
    remove_installation,
)
from identity.minting.service_credential import ServiceCredential
from identity.model import AccountKey, AccountState, Credential, Scope, ScopeKind, scopes_over
from identity.oauth.token_digests import double
from identity.tables import accounts, grants, installations, provider_connections
from pipeline.jobs import claims as ledger_jobs
from pipeline.jobs.intents import Ended, Opened
from pipeline.revocation import signals
from pipeline.revocation.reaction import Became
from pipeline.revocation.tables import revocations
from pipeline.signal import Asks, Bots, Holders, Installation, Nobody, People, Workspaces
from pipeline.states import JobState, Wait
from tests.ledger.acts import done, open_, revoke
from tests.ledger.house import House, account_scope, begin_connecting
from tests.ledger.house import intent_of as intent
from tests.ledger.signals import person, say, signal

ADA, ROBOT = (AccountKey(tenant="acme", connection="gh", principal=f"acme.{name}") for name in ("ada", "service"))
HOUR = timedelta(hours=1)


def state(house: House, key: AccountKey = ADA) -> AccountState:
    account = house.database.read(partial(find_account, key=key))
    assert account is not None
    return account.state


def install(house: House, external_id: str = "9001") -> None:
    """The service acts by an installation now."""
    named = update(accounts).where(accounts.c.principal_id == "acme.service").values(external_id="1001")
    house.database.write(lambda c: c.execute(named).rowcount)  # as whom the house connects everyone
    house.connect("acme", "acme.service", credential=Credential.INSTALLATION)
    named = update(accounts).where(accounts.c.principal_id == "acme.service").values(external_id=external_id)
    house.database.write(lambda c: c.execute(named).rowcount)


def robot_intent(house: House, job: ledger_jobs.ClaimedJob) -> Any:
    asked = intent(house, job, principal="acme.service", named="service")
    return replace(asked, lease=replace(asked.lease, principal="acme.service"))


def doubts(house: House) -> list[str | None]:
    rows = select(revocations.c.doubt).order_by(revocations.c.number)
    return list(house.database.read(lambda c: c.execute(rows).scalars()))


def test_an_older_word_than_the_consent_changes_nothing_and_one_of_its_own_second_counts(house: House) -> None:
    now = datetime.now(UTC)
    assert say(house, signal(Asks.REVOKE, person(), at=now - HOUR)).revocations == ()
    assert state(house) is AccountState.ACTIVE
    cut = now.replace(microsecond=0)
    assert len(say(house, signal(Asks.REVOKE, person(), at=cut)).revocations) == 1
    assert state(house) is AccountState.REVOKED


def test_a_consent_whose_time_was_not_kept_is_always_meant(house: House) -> None:
    house.database.write(lambda c: c.execute(update(grants).values(consented_at=None)).rowcount)
    assert len(say(house, signal(Asks.REVOKE, person(), at=datetime.now(UTC) - HOUR)).revocations) == 1


def test_a_repetition_for_a_revoked_account_changes_nothing_unless_somebody_is_connecting(house: House) -> None:
    assert len(say(house, signal(Asks.REVOKE, person())).revocations) == 1
    waiting = house.job()
    again = say(house, signal(Asks.REVOKE, person()), seen=True)
    assert (again.revocations, again.reason) == ((), "1 account(s) revoked already")
    assert house.row(waiting).state == JobState.QUEUED

    begin_connecting(house, ADA)
    assert len(say(house, signal(Asks.REVOKE, person()), seen=True).revocations) == 1


def test_a_callback_that_is_answered_past_its_links_time_is_somebody_connecting(house: House) -> None:
    say(house, signal(Asks.REVOKE, person()))
    session = begin_connecting(house, ADA, lasts=-timedelta(seconds=5))
    in_time = datetime.now(UTC) - timedelta(seconds=10)
    assert house.database.write(lambda c: use_up(c, session, now=in_time))
    assert len(say(house, signal(Asks.REVOKE, person()), seen=True).revocations) == 1


def test_only_a_word_without_a_time_that_may_be_a_replay_is_doubted(house: House) -> None:
    say(house, signal(Asks.REVOKE, person()))
    house.connect("acme", "acme.ada")
    say(house, signal(Asks.REVOKE, person()), seen=True)
    house.connect("acme", "acme.ada")
    say(house, signal(Asks.REVOKE, person()))  # the echo of an earlier one, perhaps
    house.connect("acme", "acme.ada")
    say(house, signal(Asks.REVOKE, person(), at=datetime.now(UTC)), seen=True)
    assert doubts(house) == [None, "open", "open", None]


#: By each the consent of acme's ada ends, and the provider is asked to end its tokens: it may echo that.
OVER_ADA = scopes_over(ADA)


@pytest.mark.parametrize("scope", OVER_ADA, ids=lambda scope: scope.kind)
def test_the_echo_of_what_was_asked_of_the_provider_changes_nothing_before_a_reconnect_and_is_doubted_after(
    house: House, scope: Scope
) -> None:
    revoke(house, scope)
    echo = say(house, signal(Asks.REVOKE, person()))
    assert (echo.revocations, echo.reason) == ((), "1 account(s) revoked already")
    begin_connecting(house, ADA)
    under_way = say(house, signal(Asks.REVOKE, person())).revocations
    assert len(under_way) == 1, "a link from before the signal is not completed after it"
    house.connect("acme", "acme.ada")
    after = say(house, signal(Asks.REVOKE, person())).revocations
    assert len(after) == 1, "it fails closed"
    assert doubts(house) == [None, "open", "open"]


@pytest.mark.parametrize("scope", OVER_ADA, ids=lambda scope: scope.kind)
def test_a_link_from_before_a_revocation_is_nobody_connecting_whom_its_echo_would_mean(
    house: House, scope: Scope
) -> None:
    begin_connecting(house, ADA)
    revoke(house, scope)
    assert say(house, signal(Asks.REVOKE, person())).revocations == ()


def test_the_echo_of_what_another_tenant_revoked_of_the_person_is_doubted(house: House) -> None:
    """GitHub ends all that a person granted to a client, and says of it what it says of their own withdrawal."""
    revoke(house, account_scope())
    house.connect("globex", "globex.ada")
    assert len(say(house, signal(Asks.REVOKE, person())).revocations) == 1
    assert doubts(house) == [None, "open"]


def test_a_first_word_about_a_person_of_two_tenants_is_doubted_for_neither(house: House) -> None:
    house.connect("globex", "globex.ada")
    assert len(say(house, signal(Asks.REVOKE, person())).revocations) == 2
    assert doubts(house) == [None, None]
    house.connect("globex", "globex.ada")
    revoke(house, Scope(kind=ScopeKind.TENANT, key="globex"))
    house.connect("globex", "globex.ada")
    assert len(say(house, signal(Asks.REVOKE, person())).revocations) == 1
    assert doubts(house)[2:] == [None, "open"]


def test_a_deleted_installation_is_never_doubted_since_its_id_does_not_come_back(house: House) -> None:
    install(house)
    revoke(house, Scope(kind=ScopeKind.TENANT, key="acme"))
    install(house, "9002")
    assert len(say(house, signal(Asks.REVOKE, Installation(id="9002")), seen=True).revocations) == 1
    assert doubts(house) == [None, None]


def test_everyone_of_a_workspace_is_meant_and_nobody_of_another(house: House) -> None:
    house.connect("globex", "globex.ada")
    globex = AccountKey(tenant="globex", connection="gh", principal="globex.ada")
    uninstalled = signal(Asks.REVOKE, Workspaces(ids=frozenset({"installation-acme"})), at=datetime.now(UTC))
    assert len(say(house, uninstalled).revocations) == 2
    assert [state(house, key) for key in (ADA, ROBOT, globex)] == [
        AccountState.REVOKED,
        AccountState.REVOKED,
        AccountState.ACTIVE,
    ]
    assert say(house, uninstalled).revocations == ()


def test_a_revocation_in_a_place_that_is_listed_for_nobody_says_so_and_what_to_do(house: House) -> None:
    nobodys = say(house, signal(Asks.REVOKE, Workspaces(ids=frozenset({"an-id"}))))
    assert (nobodys.nobodys, nobodys.strangers, nobodys.revocations) == (True, True, ())
    assert "no tenant has an-id: if one has, end its accounts by hand" in nobodys.reason
    assert "`aswhom installations add gh an-id TENANT`" in nobodys.reason
    bots = Bots(workspaces=frozenset({"an-id"}), ids=frozenset({"B1"}))
    with_bots = say(house, signal(Asks.REVOKE, person(), bots, at=datetime.now(UTC)))
    assert (with_bots.nobodys, len(with_bots.revocations)) == (True, 1), "the bots there live on"
    known = Workspaces(ids=frozenset({"installation-acme"}))
    assert not say(house, signal(Asks.REVOKE, known)).nobodys
    assert not say(house, signal(Asks.REVOKE, person("7777"))).nobodys, "somebody who is not connected, perhaps"
    assert not say(house, signal(Asks.NOTE, Workspaces(ids=frozenset({"an-id"})))).nobodys


@pytest.mark.parametrize("place", ["T1", ""], ids=["there", "before places were kept"])
def test_an_end_where_somebody_has_connected_is_no_strangers(house: House, place: str) -> None:
    house.database.write(lambda c: note_places(c, "gh", (place,)))
    there = say(house, signal(Asks.REVOKE, Workspaces(ids=frozenset({"T1"}))))
    around = say(house, signal(Asks.REVOKE, Workspaces(ids=frozenset({"T2"}), within="T1")))
    elsewhere = say(house, signal(Asks.REVOKE, Workspaces(ids=frozenset({"T3"}))))
    assert [one.nobodys for one in (there, around, elsewhere)] == [True] * 3
    assert [one.strangers for one in (there, around, elsewhere)] == [False, False, place != ""]


@pytest.mark.parametrize(
    ("tenant", "external_id", "known"),
    [
        ("acme", None, True),
        ("acme", "T1", True),
        ("acme", "B0BOT", True),
        ("globex", None, False),
        ("globex", "T1", False),
    ],
)
def test_a_services_place_is_what_is_listed_for_its_tenant_or_anywhere(
    house: House, tenant: str, external_id: str | None, known: bool
) -> None:
    house.database.write(
        lambda c: add_installation(c, owner="gh", external_id="T1", tenant="acme", now=datetime.now(UTC))
    )
    house.database.write(
        lambda c: c.execute(delete(installations).where(installations.c.tenant_id == "globex")).rowcount
    )
    house.database.write(lambda c: note_service(c, "gh", tenant, external_id))
    assert say(house, signal(Asks.REVOKE, Workspaces(ids=frozenset({"T9"})))).strangers is known


def test_the_end_of_the_place_that_was_said_of_a_service_is_no_strangers_where_another_is_listed(house: House) -> None:
    house.database.write(lambda c: note_service(c, "gh", "acme", "T2"))
    assert not say(house, signal(Asks.REVOKE, Workspaces(ids=frozenset({"T2"})))).strangers
    assert say(house, signal(Asks.REVOKE, Workspaces(ids=frozenset({"T9"})))).strangers


def test_an_end_where_something_was_listed_once_is_no_strangers(house: House) -> None:
    now = datetime.now(UTC)
    house.database.write(lambda c: add_installation(c, owner="gh", external_id="T1", tenant="acme", now=now))
    assert house.database.write(lambda c: remove_installation(c, owner="gh", external_id="T1", tenant="acme"))
    ended = say(house, signal(Asks.REVOKE, Workspaces(ids=frozenset({"T1"}))))
    assert (ended.nobodys, ended.strangers) == (True, False)


def test_the_end_of_an_organization_is_that_of_its_listed_workspaces_once_it_is_known_for_theirs(house: House) -> None:
    ended = signal(Asks.REVOKE, Workspaces(ids=frozenset({"E1"})), at=datetime.now(UTC) + HOUR)
    assert say(house, ended).nobodys
    of_e1 = partial(note_organization, owner="gh", workspace="installation-acme", organization="E1")
    house.database.write(of_e1)
    bots = Bots(workspaces=frozenset({"E1"}), ids=frozenset({"B-other"}))
    house.database.write(
        lambda c: (
            c.execute(
                update(accounts)
                .where(accounts.c.principal_id == "acme.service")
                .values(external_id="installation-acme")
            ).rowcount
        )
    )
    assert len(say(house, signal(Asks.REVOKE, bots, at=datetime.now(UTC) + HOUR)).revocations) == 1
    assert (len(say(house, ended).revocations), state(house)) == (1, AccountState.REVOKED)


def test_the_end_in_a_workspace_is_its_organizations_where_that_is_what_is_listed(house: House) -> None:
    house.database.write(
        lambda c: add_installation(c, owner="gh", external_id="E1", tenant="acme", now=datetime.now(UTC))
    )
    at = datetime.now(UTC) + HOUR
    assert say(house, signal(Asks.REVOKE, Workspaces(ids=frozenset({"T1"})), at=at)).nobodys
    assert len(say(house, signal(Asks.REVOKE, Workspaces(ids=frozenset({"T1"}), within="E1"), at=at)).revocations) == 2


@pytest.mark.parametrize("workspace", ["T1", "installation-globex"], ids=["listed for nobody", "listed by itself"])
def test_an_end_that_may_be_the_organizations_is_that_of_each_workspace_known_to_be_of_it(
    house: House, workspace: str
) -> None:
    """As Slack publishes the event: a workspace and its organization, and not whose app it was."""
    at = datetime.now(UTC) + HOUR
    ended = signal(Asks.REVOKE, Workspaces(ids=frozenset({workspace}), within="E1"), at=at)
    assert say(house, ended).revocations == (), "nothing says that acme's is of E1"
    of_e1 = partial(note_organization, owner="gh", workspace="installation-acme", organization="E1")
    house.database.write(of_e1)
    by_itself = signal(Asks.REVOKE, Workspaces(ids=frozenset({workspace})), at=at)
    assert say(house, by_itself).revocations == ()
    assert (len(say(house, ended).revocations), state(house)) == (2, AccountState.REVOKED)


def test_an_end_that_may_be_either_is_both_the_workspaces_and_the_organizations(house: House) -> None:
    house.connect("globex", "globex.ada")
    globex = AccountKey(tenant="globex", connection="gh", principal="globex.ada")
    house.database.write(
        lambda c: add_installation(c, owner="gh", external_id="E1", tenant="acme", now=datetime.now(UTC))
    )
    either = Workspaces(ids=frozenset({"installation-globex"}), within="E1")
    say(house, signal(Asks.REVOKE, either, at=datetime.now(UTC) + HOUR))
    assert [state(house, key) for key in (ADA, ROBOT, globex)] == [AccountState.REVOKED] * 3


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_revoked_tokens_and_the_uninstallation_end_alike_in_any_order(house: House, order: tuple[int, int]) -> None:
    now, where = datetime.now(UTC), frozenset({"installation-acme"})
    said = (
        signal(Asks.REVOKE, person(), Bots(workspaces=where, ids=frozenset({"1001"})), at=now),
        signal(Asks.REVOKE, Workspaces(ids=where), at=now),
    )
    for which in order:
        say(house, said[which])
    assert [state(house, key) for key in (ADA, ROBOT)] == [AccountState.REVOKED] * 2
    house.connect("acme", "acme.ada")
    late = [say(house, replace(one, happened_at=now - HOUR)) for one in said]
    assert [one.revocations for one in late] == [(), ()]
    assert state(house) is AccountState.ACTIVE


def test_named_users_are_meant_alone_and_another_bot_is_not_ours(house: House) -> None:
    say(house, signal(Asks.REVOKE, person("1001", "7777"), at=datetime.now(UTC)))
    assert [state(house, key) for key in (ADA, ROBOT)] == [AccountState.REVOKED, AccountState.ACTIVE]
    where = frozenset({"installation-acme"})
    say(house, signal(Asks.REVOKE, Bots(workspaces=where, ids=frozenset({"B-other"})), at=datetime.now(UTC)))
    assert state(house, ROBOT) is AccountState.ACTIVE


@pytest.mark.parametrize(
    ("where", "within", "ended"),
    [
        ("installation-acme", None, ("acme",)),
        ("T9", "installation-globex", ("globex",)),
        ("T9", None, ("acme", "globex")),
    ],
    ids=["one tenant's", "an organization's", "listed for nobody"],
)
def test_people_named_in_a_tenants_workspace_are_not_those_of_another_tenant(
    house: House, where: str, within: str | None, ended: tuple[str, ...]
) -> None:
    """A person of two workspaces of one organization has one id in both."""
    house.connect("globex", "globex.ada")
    named = People(ids=frozenset({"1001"}), workspaces=frozenset({where}), within=within)
    say(house, signal(Asks.REVOKE, named, at=datetime.now(UTC)))
    states = {key.tenant: state(house, key) for key in (ADA, replace(ADA, tenant="globex", principal="globex.ada"))}
    assert {tenant for tenant, its in states.items() if its is AccountState.REVOKED} == {*ended}


def test_people_of_a_tenant_without_a_listing_may_have_connected_in_the_workspace_of_another(house: House) -> None:
    house.connect("globex", "globex.ada")
    theirs = replace(ADA, tenant="globex", principal="globex.ada")
    house.database.write(partial(remove_installation, owner="gh", external_id="installation-globex", tenant="globex"))
    named = People(ids=frozenset({"1001"}), workspaces=frozenset({"installation-acme"}))
    say(house, signal(Asks.REVOKE, named, at=datetime.now(UTC)))
    assert [state(house, key) for key in (ADA, theirs)] == [AccountState.REVOKED] * 2


@pytest.mark.parametrize(
    ("where", "within"), [("installation-acme", None), ("T9", "installation-acme")], ids=["workspace", "organization"]
)
def test_people_of_a_listed_place_whom_no_account_knows_may_be_known_there_by_another_id(
    house: House, where: str, within: str | None
) -> None:
    """Slack gives the people of a workspace that joins an organization a second id."""
    place = partial(People, workspaces=frozenset({where}), within=within)
    missed = say(house, signal(Asks.REVOKE, place(ids=frozenset({"U7", "W7"})), at=datetime.now(UTC)))
    assert (missed.nobodys, missed.strangers, missed.revocations) == (True, True, ())
    assert f"no account is of U7, W7 in {where}: " in missed.reason
    assert "`aswhom revoke account`" in missed.reason
    assert not say(house, signal(Asks.NOTE, place(ids=frozenset({"U7"})))).nobodys, "it asks for no end"
    known = signal(Asks.REVOKE, place(ids=frozenset({"1001", "U7"})), at=datetime.now(UTC))
    assert [say(house, known).nobodys for _ in range(2)] == [False] * 2, "whether the account still lives or not"


def test_a_workspace_that_nobody_has_is_worse_than_people_whom_nobody_knows(house: House) -> None:
    house.database.write(lambda c: note_places(c, "gh", ("T9",)))
    unknown = People(ids=frozenset({"U7"}), workspaces=frozenset({"installation-acme"}))
    ended = say(house, signal(Asks.REVOKE, unknown, Workspaces(ids=frozenset({"T9"})), at=datetime.now(UTC)))
    assert (ended.nobodys, ended.strangers) == (True, False)
    assert "no tenant has T9" in ended.reason


def test_another_client_registration_is_not_ours(house: House) -> None:
    other = signal(Asks.REVOKE, person(), client="another")
    assert "another client registration" in say(house, other).reason
    assert state(house) is AccountState.ACTIVE
    assert len(say(house, replace(other, client="client")).revocations) == 1


def test_a_suspension_parks_the_jobs_and_its_end_lets_them_go_on(house: House) -> None:
    install(house)
    job, queued = house.claim(house.job()), house.job()
    at = datetime.now(UTC)
    say(house, signal(Asks.SUSPEND, Installation(id="9001"), at=at))
    assert (state(house, ROBOT), state(house)) == (AccountState.SUSPENDED, AccountState.ACTIVE)
    assert isinstance(open_(house, robot_intent(house, job)), Ended)
    parked = house.row(job.id)
    assert (parked.state, parked.wait) == (JobState.WAITING, Wait.CONSENT)
    assert "suspended" in parked.reason
    assert house.row(queued).state == JobState.QUEUED
    say(house, signal(Asks.RESUME, Installation(id="9001"), at=at))
    assert state(house, ROBOT) is AccountState.ACTIVE
    assert house.row(job.id).state == JobState.QUEUED
    again = house.claim(job.id)
    asked = robot_intent(house, again)
    assert isinstance(open_(house, asked), Opened)  # accepted long before, and never refused for it
    done(house, asked)


def test_suspensions_count_in_the_providers_order_whatever_order_they_come_in(house: House) -> None:
    install(house)
    where, began = Installation(id="9001"), datetime.now(UTC) + timedelta(seconds=5)
    first, ended = signal(Asks.SUSPEND, where, at=began), signal(Asks.RESUME, where, at=began)
    second = signal(Asks.SUSPEND, where, at=began + timedelta(minutes=1))
    say(house, ended)  # overtook the suspension that it ends
    say(house, first)
    assert state(house, ROBOT) is AccountState.ACTIVE
    say(house, second)
    for late in (first, ended, second):
        say(house, late, seen=True)
        assert state(house, ROBOT) is AccountState.SUSPENDED


def test_a_deleted_installation_that_comes_late_does_not_touch_its_successor(house: House) -> None:
    install(house)
    house.database.write(
        lambda c: c.execute(update(installations).where(installations.c.tenant_id == "acme").values(external_id="9001"))
    )
    gone = signal(Asks.REVOKE, Installation(id="9001"))
    say(house, gone)
    assert state(house, ROBOT) is AccountState.REVOKED
    assert not house.database.read(
        lambda c: c.execute(select(installations).where(installations.c.external_id == "9001")).all()
    )
    install(house, "9002")
    for _ in range(2):
        assert say(house, gone, seen=True).revocations == ()
    assert state(house, ROBOT) is AccountState.ACTIVE


def test_new_permissions_are_the_scopes_and_wake_who_waited_for_them(house: House) -> None:
    install(house)
    job = house.claim(house.job())
    asked = robot_intent(house, job)
    asked = replace(asked, lease=replace(asked.lease, scopes=frozenset({"issues:write"})))
    assert isinstance(open_(house, asked), Ended)
    now = datetime.now(UTC)
    wide = frozenset({"issues:write", "issues:read"})
    say(house, signal(Asks.RESCOPE, Installation(id="9001"), at=now, scopes=wide))
    assert house.row(job.id).state == JobState.QUEUED
    account = house.database.read(partial(find_account, key=ROBOT))
    assert account is not None
    grant = house.database.read(partial(get_grant, account=account.id))
    assert grant is not None
    assert (set(grant.scopes), grant.access_sealed) == (wide, None)  # the token that was minted before says otherwise
    older = signal(Asks.RESCOPE, Installation(id="9001"), at=now - timedelta(seconds=1), scopes=frozenset({"none"}))
    say(house, older)
    assert house.database.read(partial(get_grant, account=account.id)) == grant


def test_of_a_tenants_own_app_that_lists_its_workspace_a_stranger_who_removes_it_ends_nothing(house: House) -> None:
    own = update(provider_connections).where(provider_connections.c.id == "gh").values(tenant_id="acme")
    house.database.write(lambda c: c.execute(own).rowcount)
    removed = signal(Asks.REVOKE, Workspaces(ids=frozenset({"strangers"})), at=datetime.now(UTC) + HOUR)
    assert (say(house, removed).nobodys, say(house, removed).revocations) == (True, ())
    house.database.write(lambda c: c.execute(delete(installations)).rowcount)
    assert len(say(house, removed).revocations) == 2  # nothing is listed: in doubt it is meant


def test_new_permissions_do_not_widen_an_installation_past_what_its_admin_asked_for(house: House) -> None:
    connect_service(
        house.database,
        house.vault,
        ROBOT,
        ServiceCredential(kind=Credential.INSTALLATION, external_id="9001", ceiling=("issues:write",)),
        Act(audit_id=house.ids("aud"), by="admin:eve", now=datetime.now(UTC)),
        id=house.ids("acc"),
        provider="github",
        scopes=("issues:write",),
        also=lambda connection, key: None,
        replace=True,
    )
    wide = frozenset({"issues:write", "issues:read", "contents:write", "contents:read"})
    for said, kept in ((wide, {"issues:write", "issues:read"}), (wide - {"issues:write"}, {"issues:read"})):
        say(house, signal(Asks.RESCOPE, Installation(id="9001"), at=datetime.now(UTC), scopes=said))
        account = house.database.read(partial(find_account, key=ROBOT))
        assert account is not None
        grant = house.database.read(partial(get_grant, account=account.id))
        assert grant is not None and set(grant.scopes) == kept  # noqa: PT018 - for the type checker


def test_a_token_is_renewed_however_often_it_is_told_before_the_next_step(house: House) -> None:
    assert [say(house, signal(Asks.RENEW, person())).reason for _ in range(2)] == ["1 account(s) renewed"] * 2


def test_a_token_that_nothing_could_renew_is_kept(house: House) -> None:
    house.database.write(lambda c: c.execute(update(grants).values(refresh_sealed=None)).rowcount)
    told = say(house, signal(Asks.RENEW, person()))
    assert (told.became, told.reason) == (
        {Became.KEPT: 1},
        "1 account(s) kept, since nothing could renew it",
    )
    outcome = select(audit.c.outcome).where(audit.c.kind == "account.renew")
    assert house.database.read(lambda c: c.execute(outcome).scalar_one()) == Became.KEPT
    asked = intent(house, house.claim(house.job()))
    assert isinstance(open_(house, asked), Opened)


def test_outcomes_are_codes_and_a_chunk_that_was_stored_in_words_is_still_told() -> None:
    counts = {str(one): 1 for one in Became}
    told = signals.said({**counts, "active already": 2}, signal(Asks.SUSPEND))
    assert not [one for one in Became if not one.replace("_", "").isalpha()]
    assert "_" not in told
    assert "1 account(s) revoked already; " in told
    assert "2 account(s) active already" in told
    assert [one for one in Became if one.declares] == [Became.REVOKED, Became.NARROWED]


@pytest.mark.parametrize("to", [AccountState.SUSPENDED, AccountState.NEEDS_RECONNECT, AccountState.REVOKED])
def test_a_suspension_says_in_which_state_it_found_the_account(house: House, to: AccountState) -> None:
    install(house)
    is_robot = accounts.c.principal_id == ROBOT.principal
    house.database.write(lambda c: c.execute(update(accounts).where(is_robot).values(state=to)).rowcount)
    told = say(house, signal(Asks.SUSPEND, Installation(id="9001"), at=datetime.now(UTC)))
    assert told.became == {Became(f"{to}_already"): 1}


def test_a_refresh_token_is_found_by_its_digest_and_by_that_of_its_prefix(house: House) -> None:
    token = "refresh-acme.ada-1"
    for whom in (Holders(digest=double("another")), Holders(digest=double(token), of_prefix=True)):
        assert say(house, signal(Asks.REVOKE, whom)).revocations == ()
    assert len(say(house, signal(Asks.REVOKE, Holders(digest=double(token)))).revocations) == 1
    house.connect("acme", "acme.ada")
    prefix = Holders(digest=double("refresh-acme.ada-2"[:16]), of_prefix=True)
    assert len(say(house, signal(Asks.REVOKE, prefix)).revocations) == 1
    assert state(house, ROBOT) is AccountState.ACTIVE


def test_what_was_said_of_nobody_is_recorded_with_the_reason(house: House) -> None:
    assert say(house, signal(Asks.REVOKE, Nobody(why="an address is no person"))).reason == "an address is no person"
    assert not house.database.read(lambda c: c.execute(select(revocations)).all())


def test_what_moves_an_account_without_revoking_it_is_in_the_audit(house: House) -> None:
    install(house)
    now = datetime.now(UTC)
    say(house, signal(Asks.SUSPEND, Installation(id="9001"), at=now))
    say(house, signal(Asks.RESUME, Installation(id="9001"), at=now))
    say(house, signal(Asks.NOTE, Installation(id="9001")))
    kinds = select(audit.c.kind).where(audit.c.kind.like("account.%")).order_by(audit.c.number)
    assert list(house.database.read(lambda c: c.execute(kinds).scalars())) == [
        "account.suspend",
        "account.resume",
        "account.note",
    ]
