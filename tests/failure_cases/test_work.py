"""Cases 23 to 25, 28 and 29: signals, installations, scopes, and workers that were off."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from identity.connections import PRIVATE_KEY
from identity.consents import connect_service
from identity.errors import ReauthRequired, Unavailable
from identity.model import AccountState, Credential, NeedsConsent, Scope, ScopeKind
from pipeline import revocation
from pipeline.ledger import jobs
from pipeline.states import JobState, Wait
from tests.failure_cases.rig import ADA, SERVICE, Rig

INSTALLATION = "/app/installations/77/access_tokens"


def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return pem.decode()


def test_case_25_an_installation_that_is_gone(rig: Rig) -> None:
    """A suspended installation is asked again later; one that is gone is not. Its account needs a person, and no id is
    kept anywhere else that could be asked for again.
    """
    rig.add_secret(PRIVATE_KEY, private_key())
    account = connect_service(
        rig.database,
        rig.vault,
        SERVICE,
        id=rig.ids("acc"),
        provider="github",
        credential=Credential.INSTALLATION,
        scopes=(),
        by="admin:eve",
        audit_id=rig.ids("aud"),
        now=datetime.now(UTC),
        external_id="77",
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
    """The scopes of each answer are stored and looked at before a step is sent: the job waits for the consent that
    lacks, and posts once it is there.
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
    rig.do(partial(jobs.wake, waits_for=jobs.consent_of(ADA)))  # as the callback's commit does
    worker.handle(job)
    assert rig.row(job).state == JobState.DONE
    assert len(rig.provider.requests("/say")) == 1


def test_case_29_a_revoke_that_no_worker_heard(rig: Rig) -> None:
    """A revocation is a commit in the ledger, not a message: workers that were off when it came, and start with jobs
    still before them, send nothing of these.
    """
    rig.consent()
    accepted = [rig.job() for _ in range(5)]
    scope = Scope(kind=ScopeKind.USER, key="acme.ada")
    rig.do(
        partial(
            revocation.declare,
            id="rev-1",
            scope=scope,
            tenant="acme",
            source="test",
            by="eve",
            reason="she left",
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
