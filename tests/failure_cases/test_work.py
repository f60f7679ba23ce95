"""Cases 23 to 25, 28 and 29: signals, installations, scopes, and workers that were off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import Connection, func, select

from deploy.sandbox.server import Server
from identity.audit import Act
from identity.connect.consents import connect_service
from identity.connections.installations import add_installation
from identity.connections.registry import add_connection
from identity.connections.secrets import PRIVATE_KEY
from identity.errors import ReauthRequired, Unavailable
from identity.minting.service_credential import ServiceCredential
from identity.model import AccountState, Credential, NeedsConsent, ProviderConnection, Scope, ScopeKind
from identity.secret import Secret
from pipeline.authoring.registry import Registry
from pipeline.deliveries.intake import Intake
from pipeline.jobs import awaited
from pipeline.revocation import declaration
from pipeline.revocation.tables import revocations
from pipeline.states import JobState, Wait
from pipeline.tables import deliveries
from tests.failure_cases.rig import ADA, SERVICE, SIGNING_SECRET, Rig, post_it
from tests.identity.keys import pem
from tests.ledgers import MOSTLY_SQLITE
from tests.webhooks.parts import MemoryRing
from webhooks.app import create_app
from webhooks.settings import WebSettings

pytestmark = MOSTLY_SQLITE

AT_SLACK = replace(ADA, connection="sl")
INSTALLATION = "/app/installations/77/access_tokens"


@pytest.fixture
def hook(rig: Rig) -> Iterator[str]:
    """Aswhom's own receiver, and a Slack connection whose signals it verifies. Workspace and organization: acme's."""
    rig.do(_add_slack)
    rig.add_secret("webhook_secret", SIGNING_SECRET, connection="sl")
    intake = Intake(rig.database, rig.vault, rig.ids, clock=lambda: datetime.now(UTC))
    app = create_app(WebSettings(base_url="http://127.0.0.1"), intake, Registry([post_it]), MemoryRing())
    server = Server(0, app)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/webhooks/slack/sl"
    server.stop()
    thread.join()


def _add_slack(connection: Connection) -> None:
    now, url = datetime.now(UTC), "http://127.0.0.1:1"
    owner = ProviderConnection(
        id="sl",
        tenant=None,
        provider="slack",
        client_id="client",
        scopes=(),
        api_url=url,
        authorize_url=url,
        token_url=url,
    )
    add_connection(connection, owner, now=now)
    for external_id in ("T0SANDBOX", "E0SANDBOX"):
        add_installation(connection, owner="sl", external_id=external_id, tenant="acme", now=now)


def bot(rig: Rig) -> str:
    """The service acts at Slack by the workspace's bot token; the account's id."""
    return connect_service(
        rig.database,
        rig.vault,
        replace(SERVICE, connection="sl"),
        ServiceCredential(kind=Credential.STATIC, token=Secret("xoxb-canary"), external_id="T0SANDBOX"),
        Act(audit_id=rig.ids("aud"), by="admin:eve", now=datetime.now(UTC)),
        id=rig.ids("acc"),
        provider="slack",
        scopes=(),
        also=lambda c, stored: None,
    ).account


def states(rig: Rig, *accounts: str) -> list[AccountState]:
    return [rig.account(account).state for account in accounts]


def test_case_23_signals_that_arrive_after_the_re_install(rig: Rig, hook: str) -> None:
    """A signal about something before the present consent changes nothing, in whatever order it arrives, and however
    often.
    """
    rig.provider.play(23, hook=hook)
    person, service = rig.consent(key=AT_SLACK, provider="slack", person="1"), bot(rig)
    for _ in range(2):
        assert rig.provider.send_signals() == [202, 202]
    assert states(rig, person, service) == [AccountState.ACTIVE] * 2
    assert rig.database.read(lambda c: c.execute(select(func.count()).select_from(revocations)).scalar_one()) == 0
    said = rig.database.read(lambda c: c.execute(select(deliveries.c.event, deliveries.c.reason)).all())
    assert len(said) == 2
    assert all("connected again since" in row.reason for row in said)


def test_case_24_a_signal_that_names_only_some_tokens(rig: Rig, hook: str) -> None:
    """A signal reaches only those it names: one person's tokens leave the bot alone, and the end of an organization's
    installation, which names no workspace, ends everything that was granted in it.
    """
    rig.provider.play(24, hook=hook)
    ada, service = rig.consent(key=AT_SLACK, provider="slack", person="1"), bot(rig)
    other = rig.consent(key=replace(AT_SLACK, tenant="globex", principal="globex.ada"), provider="slack", person="2")
    assert rig.provider.send_signals(1) == [202]
    assert states(rig, ada, service, other) == [AccountState.REVOKED, AccountState.ACTIVE, AccountState.ACTIVE]
    assert rig.provider.send_signals(2) == [202]
    assert states(rig, ada, service, other) == [AccountState.REVOKED, AccountState.REVOKED, AccountState.ACTIVE]


def test_case_25_an_installation_that_is_gone(rig: Rig) -> None:
    """A suspended installation is asked again later; one that is gone is not. Its account needs a person, and its id is
    kept nowhere else from which it could be asked for again.
    """
    rig.add_secret(PRIVATE_KEY, pem())
    account = connect_service(
        rig.database,
        rig.vault,
        SERVICE,
        ServiceCredential(kind=Credential.INSTALLATION, external_id="77"),
        Act(audit_id=rig.ids("aud"), by="admin:eve", now=datetime.now(UTC)),
        id=rig.ids("acc"),
        provider="github",
        scopes=(),
        also=lambda c, stored: None,
    ).account
    for _ in range(3):
        with pytest.raises(Unavailable):
            rig.coordinator().refresh(account, after_generation=1)
    assert rig.account(account).state is AccountState.ACTIVE
    assert [row["status"] for row in rig.provider.requests(INSTALLATION)] == [403]
    rig.clock.advance(seconds=61)
    with pytest.raises(ReauthRequired, match="404"):
        rig.coordinator().refresh(account, after_generation=1)
    for _ in range(3):
        with pytest.raises(ReauthRequired):
            rig.coordinator().refresh(account, after_generation=2)
    assert rig.account(account).state is AccountState.NEEDS_RECONNECT
    assert [row["status"] for row in rig.provider.requests(INSTALLATION)] == [403, 404]


def test_case_28_the_user_kept_only_some_scopes(rig: Rig) -> None:
    """The scopes of each answer are stored and checked before a step is sent: the job waits for the missing consent,
    and posts once it is there.
    """
    account = rig.consent()
    assert rig.grant(account).scopes == ("read", "write")
    assert rig.coordinator().refresh(account, after_generation=1) == 2
    assert rig.grant(account).scopes == ("read",)
    lacking = rig.lease()
    assert isinstance(lacking, NeedsConsent)
    assert lacking.missing_scopes == ("write",)
    job, worker = rig.job(), rig.worker(rig.coordinator())
    worker.handle(job)
    assert (rig.row(job).state, rig.row(job).wait) == (JobState.WAITING, Wait.CONSENT)
    assert rig.provider.requests("/say") == []
    rig.consent()
    rig.do(partial(awaited.wake, waits_for=awaited.consent_of(ADA)))  # as the callback's commit does
    worker.handle(job)
    assert rig.row(job).state == JobState.DONE
    assert len(rig.provider.requests("/say")) == 1


def test_case_29_a_revoke_that_no_worker_heard(rig: Rig) -> None:
    """A revocation is a commit in the ledger, not a message: workers that were off when it came, and start with jobs
    still in the queue, send nothing of those jobs.
    """
    rig.consent()
    accepted = [rig.job() for _ in range(5)]
    scope = Scope(kind=ScopeKind.USER, key="acme.ada")
    rig.do(
        partial(
            declaration.declare,
            scope=scope,
            cause=declaration.Cause(source="test", by="eve", reason="she left"),
            id="rev-1",
            tenant="acme",
            now=datetime.now(UTC),
        )
    )
    worker = rig.worker(rig.coordinator())  # started after it, and nobody told it
    for job in accepted:
        worker.handle(job)
    assert {rig.row(job).state for job in accepted} == {JobState.CANCELLED}
    assert rig.provider.requests("/say") == []
    later = rig.job()
    rig.consent()
    worker.handle(later)
    assert rig.row(later).state == JobState.DONE
    assert len(rig.provider.requests("/say")) == 1
