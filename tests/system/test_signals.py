"""Signals end to end: the sandbox's senders, the web process, workers and the receipt, on both databases."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, select

from deploy.demo import people
from deploy.demo.provision import GITHUB, SLACK, linear_of
from identity.accounts.grants import REFRESH, get_grant, seal_answer, token_binding
from identity.accounts.states import find_account
from identity.audit import Act
from identity.audit.tables import audit
from identity.connect.consent_ledger import Consent, store_consent
from identity.connect.consents import connect_service
from identity.connections.installations import add_installation, remove_installation
from identity.minting.service_credential import ServiceCredential
from identity.model import AccountKey, AccountState, Credential, Scope, ScopeKind, TokenAnswer
from identity.oauth.token_digests import double
from identity.secret import Secret
from identity.sql.sequence import next_number
from identity.tables import accounts
from pipeline.accounts.connecting import wake_waiting
from pipeline.model import DeliveryOutcome
from pipeline.revocation.tables import NARROWING, revocations
from pipeline.states import JobState, Wait
from pipeline.tables import deliveries
from tests.faults.pushing import transmitters
from tests.faults.revoking import aswhom
from tests.system.rig import System
from tests.system.senders import deliver, event_until_taken
from tests.webhooks.events import ISSUER, RISC

_SECEVENT = "https://schemas.openid.net/secevent"
SSF, OAUTH = (f"{_SECEVENT}/{family}/event-type/" for family in ("ssf", "oauth"))


def state(system: System, principal: str, connection: str = "github") -> str:
    found = select(accounts.c.state).where(accounts.c.principal_id == principal, accounts.c.connection_id == connection)
    (row,) = system.rows(found)
    return str(row.state)


def newest(system: System) -> Any:
    return system.rows(select(revocations).order_by(revocations.c.number.desc()))[0]


def answer(system: System, revocation: str) -> str | None:
    """What the receipt says of the providers."""
    receipt = system.receipt(revocation)
    return None if receipt is None else str(receipt["provider"]["answer"])


def consent_at_slack(system: System, tenant: str, login: str) -> None:
    """As U1, the same id in each workspace. The sandbox's Slack has no consent page."""
    key, now = AccountKey(tenant=tenant, connection=SLACK, principal=f"{tenant}.{login}"), datetime.now(UTC)
    answer = TokenAnswer(
        access_token=Secret(f"xoxp-{login}"), refresh_token=None, expires_at=None, scopes=(), token_type="user"
    )
    id = system.ids("acc")
    sealed = seal_answer(system.runtime.vault, answer, tenant=tenant, account=id, provider="slack", generation=1)

    def consent(c: Connection) -> None:
        of: dict[str, Any] = {"id": id, "key": key, "provider": "slack", "credential": Credential.AUTHORIZATION_CODE}
        store_consent(c, Consent(**of, consented=next_number(c), external_id="U1"), sealed, now=now)

    system.runtime.database.write(consent)


def connect_service_again(system: System, connection: str, credential: ServiceCredential) -> None:
    """Connect acme's service as an admin does once the app is installed anew."""
    # Slack's times are in seconds: a consent within the second of an end would count as the earlier of the two.
    second = int(time.time())
    system.wait(lambda: int(time.time()) > second, "the next second")
    connect_service(
        system.runtime.database,
        system.runtime.vault,
        AccountKey(tenant="acme", connection=connection, principal="acme.service"),
        credential,
        Act(audit_id=system.ids("aud"), by="admin:test", now=datetime.now(UTC)),
        id=system.ids("acc"),
        provider=connection.partition("-")[0],
        scopes=(),
        also=wake_waiting,
        replace=True,
    )


def come_late(system: System, connection: str, path: str, held: Sequence[dict[str, str]]) -> None:
    """Deliver what tells of a former installation's end: each is followed as a signal, and changes nothing."""
    is_signal = deliveries.c.outcome == DeliveryOutcome.SIGNAL
    before, signals = system.count(revocations), system.count(deliveries, is_signal)
    for one in held:
        deliver(system, connection.partition("-")[0], path, **one)
    assert (system.count(revocations), system.count(deliveries, is_signal)) == (before, signals + len(held))
    assert state(system, "acme.service", connection) == AccountState.ACTIVE


def noted(system: System, kind: str) -> list[str]:
    """What a signal that revokes nothing came to, by the audit."""
    return [str(row.outcome) for row in system.rows(select(audit.c.outcome).where(audit.c.kind == kind))]


def refresh_token(system: System, account: AccountKey) -> str:
    grant = system.runtime.database.read(
        lambda c: get_grant(c, found.id) if (found := find_account(c, account)) else None
    )
    assert grant is not None
    assert grant.refresh_sealed is not None
    binding = token_binding(account.tenant, grant.account, "github", REFRESH, grant.generation)
    return system.runtime.vault.open(grant.refresh_sealed, binding).reveal()


def security_events(system: System) -> None:
    """Events of the kinds that are not about a session, pushed to the running web process."""
    keys = [AccountKey(tenant="acme", connection=GITHUB, principal=f"acme.{who}") for who in ("ada", "grace")]
    for key, login in zip(keys, ("ada", "grace"), strict=True):
        people.connect(system.runtime, key, web=system.web, login=login, now=datetime.now(UTC))
    system.order("github", "authorizations/echoes", hold=True)  # that grace's end is carried out would be a signal too
    before = system.count(revocations)
    with transmitters(system) as idp:
        # The stream: it works, and then it pauses.
        assert idp.push("j-1", f"{SSF}verification", {"state": "s"}).status_code == 202
        assert idp.push("j-2", f"{SSF}stream-updated", {"status": "paused"}).status_code == 202
        streams = {row["id"]: row["stream_status"] for row in aswhom(system, "transmitters", "list")}
        assert streams == {"google": None, "idp": "paused"}
        assert system.count(revocations) == before

        # A person of the tenant's.
        grace = {"format": "iss_sub", "iss": ISSUER, "sub": "u-2"}
        assert idp.push("j-3", f"{RISC}account-disabled", sub_id=grace).status_code == 202
        made = newest(system)
        assert (made.source, made.kind, made.key) == ("risc.account-disabled", ScopeKind.USER, "acme.grace")

        # One token of an account's, by its hash.
        token = double(refresh_token(system, keys[0]))
        named = {"token_type": "refresh_token", "token_identifier_alg": "hash_base64_sha512_sha512", "token": token}
        event = {"subject": {"subject_type": "oauth_token", **named}}
        assert idp.push("j-4", f"{OAUTH}token-revoked", event, to="google", sub_id=None).status_code == 202
        made = newest(system)
        assert (made.source, made.kind, made.key) == ("oauth.token-revoked", ScopeKind.ACCOUNT, str(keys[0]))
        assert [state(system, key.principal) for key in keys] == [AccountState.REVOKED, AccountState.ACTIVE]
    assert system.count(revocations) == before + 2


@pytest.mark.timeout(600)
def test_a_suspension_parks_a_replay_and_an_echo_are_told_and_what_came_after_a_revocation_goes_on_once_reconnected(
    system: System,
) -> None:
    """One story, since starting the processes takes longer than all of it."""
    system.connect("acme", "ada")
    where = "installations/9001"

    # Suspended: the job parks at the step that needs the service, and goes on when it is over.
    system.order("github", f"{where}/suspend")
    assert state(system, "acme.service") == AccountState.SUSPENDED
    system.pull("acme/shop", "ada", "bug")
    (parked,) = system.settled()
    assert (parked.state, parked.wait) == (JobState.WAITING, Wait.CONSENT)
    system.order("github", f"{where}/unsuspend")
    system.wait(lambda: system.jobs()[0].state == JobState.DONE, "that the parked job is done")

    # Revoked, reconnected, revoked by the same bytes, which this time are not true.
    system.order("github", "authorizations/revoke", user="ada")
    assert state(system, "acme.ada") == AccountState.REVOKED
    system.pull("acme/shop", "ada", "bug")
    system.wait(lambda: system.jobs()[1].state == JobState.WAITING, "that the later job waits for consent")
    told = newest(system).id
    system.wait(lambda: system.receipt(told) is not None, "the receipt, since GitHub is through with the old consent")
    system.connect("acme", "ada")
    system.wait(lambda: system.jobs()[1].state == JobState.DONE, "that the later job is done after the reconnect")
    system.order("github", "authorizations/revoke", user="ada", signal_only=True)
    assert state(system, "acme.ada") == AccountState.REVOKED
    replayed = newest(system).id
    system.wait(lambda: system.receipt(replayed) is not None, "the receipt of the replayed signal")
    assert newest(system).receipt["doubt"] == "alive"

    # Ended by a request of our own, of all that she has: GitHub echoes it, and only when she has connected again.
    system.order("github", "authorizations/echoes", hold=True)
    system.connect("acme", "ada")
    ended = system.revoke_and_ring(Scope(kind=ScopeKind.USER, key="acme.ada"), "acme")
    system.wait(lambda: answer(system, ended) == "done", "that her credentials have ended at their providers")
    assert state(system, "acme.ada") == AccountState.ACTIVE, "what is revoked above an account leaves its state alone"
    system.connect("acme", "ada")
    (echo,) = [one for one in system.sandbox("github", "deliveries") if one["late"]]
    assert echo["event"] == "github_app_authorization"
    system.order("github", "deliver", delivery=echo["guid"])
    assert state(system, "acme.ada") == AccountState.REVOKED
    echoed = newest(system).id
    system.wait(lambda: system.receipt(echoed) is not None, "the receipt of the echo")
    assert (newest(system).receipt["doubt"], answer(system, echoed)) == ("alive", "not_asked")
    system.order("github", "authorizations/echoes", hold=False)

    # Left with fewer permissions, and with fewer repositories.
    left = {"issues": "read", "metadata": "read", "pull_requests": "write"}
    system.order("github", f"{where}/permissions", permissions=left)
    narrowed = newest(system)
    assert (narrowed.kind, narrowed.key) == (NARROWING, "acme/github/acme.service")
    system.wait(lambda: system.receipt(narrowed.id) is not None, "the receipt of the permissions that were taken")
    assert newest(system).receipt["narrowing"]["took"] == ["issues:write"]
    system.order("github", f"{where}/remove_repositories", repositories=["acme/infra"])
    assert noted(system, "account.renew") == ["renewed"]

    # Deleted, and told of only after the app was installed anew: first with the new installation known here.
    held = system.order("github", f"{where}/delete", hold=True)
    anew = system.order("github", f"{where}/reinstall")["installation"]
    app = ServiceCredential(kind=Credential.INSTALLATION, external_id=str(anew))
    connect_service_again(system, GITHUB, app)
    come_late(system, GITHUB, "deliver", [{"delivery": held["deliveries"][0]}])
    where = f"installations/{anew}"
    held = system.order("github", f"{where}/delete", hold=True)
    system.order("github", f"{where}/reinstall")
    before = system.count(revocations)
    system.order("github", "deliver", delivery=held["deliveries"][0])
    assert system.count(revocations) == before + 1  # the account is still the old installation's here
    system.order("github", "deliver", delivery=held["deliveries"][0])
    assert system.count(revocations) == before + 1

    # Slack names a person of acme's workspace, who has the same id in globex's.
    consent_at_slack(system, "acme", "ada")
    consent_at_slack(system, "globex", "linus")
    team, globex = (one["team_id"] for one in system.world["slack"]["workspaces"][:2])
    hers = {"type": "tokens_revoked", "tokens": {"oauth": ["U1"], "bot": []}}
    event_until_taken(system, team, hers)
    assert [state(system, who, "slack") for who in ("acme.ada", "acme.service", "globex.linus")] == [
        AccountState.REVOKED,
        AccountState.ACTIVE,
        AccountState.ACTIVE,
    ]

    # Thrown out of a Slack workspace, and told of only after the app was installed anew.
    gone = system.order("slack", "uninstall", team_id=team, hold=True)
    system.order("slack", "restore", team_id=team)
    bot = Secret(system.world["slack"]["workspaces"][0]["bot_token"])
    connect_service_again(system, SLACK, ServiceCredential(kind=Credential.STATIC, token=bot))
    come_late(system, SLACK, "events", [{"event_id": id} for id in gone["event_ids"]])

    # Thrown out of it again: told twice.
    system.order("slack", "uninstall", team_id=team, reversed=True)
    assert state(system, "acme.service", "slack") == AccountState.REVOKED
    assert system.count(revocations, revocations.c.source.like("slack.%")) == 2

    # Thrown out of a whole organization, which is what is listed for globex.
    def list_organization(c: Connection) -> None:
        assert remove_installation(c, owner=SLACK, external_id=globex, tenant="globex")
        add_installation(c, owner=SLACK, external_id="E1", tenant="globex", now=datetime.now(UTC))

    system.runtime.database.write(list_organization)
    system.order("slack", "uninstall", team_id=globex, enterprise_id="E1")
    assert {state(system, who, "slack") for who in ("globex.linus", "globex.service")} == {AccountState.REVOKED}

    # Linear: a team is taken from the app, a person withdraws, and the app is removed from the workspace.
    key = AccountKey(tenant="acme", connection=linear_of("acme"), principal="acme.grace")
    people.connect(system.runtime, key, web=system.web, login="grace", now=datetime.now(UTC))
    client = next(one["client_id"] for one in system.world["auth"]["clients"] if one.get("tenant") == "acme")
    of_acme = {"organization": "acme", "client_id": client}
    system.order("linear", "permissions", removed=["a-team"], **of_acme)
    assert noted(system, "account.note") == ["noted"] * 3
    system.order("linear", "authorizations/end", user="grace", **of_acme)
    assert [state(system, who, "linear-acme") for who in ("acme.grace", "acme.ada", "acme.service")] == [
        AccountState.REVOKED,
        AccountState.ACTIVE,
        AccountState.ACTIVE,
    ]

    # The app is removed from the workspace, which Linear tells only after ada and the service are connected again.
    gone = system.order("linear", "authorizations/revoke", hold=True, **of_acme)
    key = replace(key, principal="acme.ada")
    people.connect(system.runtime, key, web=system.web, login="ada", now=datetime.now(UTC))
    connect_service_again(system, linear_of("acme"), ServiceCredential(kind=Credential.CLIENT_CREDENTIALS))
    come_late(system, linear_of("acme"), "deliver", [{"delivery": gone["delivery"]}])
    system.order("linear", "authorizations/revoke", **of_acme)
    assert {state(system, who, "linear-acme") for who in ("acme.ada", "acme.service")} == {AccountState.REVOKED}
    security_events(system)
    assert system.count(deliveries, deliveries.c.outcome == "unrecognised") == 0
