"""Guards of what comes in and of who watches: without each, the test that watches it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.control import Control

CONTROLS = (
    Control(
        name="signals are never limited",
        file="webhooks/receiver.py",
        guard="if reading.signal is None:",
        without="if True:",
        test="tests/webhooks/test_rates.py::test_a_signal_comes_in_whatever_was_sent_before",
    ),
    Control(
        name="methods are a closed set",
        file="webhooks/metrics.py",
        guard='method = request.method if request.method in METHODS else "other"',
        without="method = request.method",
        test="tests/webhooks/test_web.py::test_requests_are_counted_by_route_method_and_status",
    ),
    Control(
        name="a key that ended changes no job",
        file="pipeline/ledger/requests.py",
        guard="if isinstance(holds, NoCaller):",
        without="if False:",
        test="tests/api/test_jobs.py::test_a_key_that_ended_before_the_commit_changes_nothing and sqlite",
    ),
    Control(
        name="a rotated key signs no more",
        file="identity/handovers.py",
        guard="if newest is not None and newest != key_id(signer.public_key()):",
        without="if False:",
        test="tests/identity/test_handovers.py::test_a_former_key_seals_prunes_and_hands_over_nothing_more",
    ),
    Control(
        name="a rotation waits for seals",
        file="identity/handovers.py",
        guard='connection.execute(text("lock table signing_handovers in share mode"))',
        without="pass",
        test="tests/identity/test_handovers.py::test_a_rotation_waits_for_the_seal_under_way",
    ),
    Control(
        name="a rotation pins the chain",
        file="identity/audit_chain.py",
        guard="if pin is not None and pin.seq > 0:",
        without="if isinstance(pin, Head) and pin.seq > 0:",
        test="tests/identity/test_handovers.py::test_a_former_key_that_leaked_does_not_make_its_part",
    ),
    Control(
        name="the signature of a delivery",
        file="webhooks/sources/signature.py",
        guard="return any(fits)",
        without="return True",
        test="tests/webhooks/test_github_source.py::test_every_flipped_bit_of_the_body",
    ),
    Control(
        name="the whole signature",
        file="webhooks/sources/signature.py",
        guard="hmac.compare_digest(expected, one)",
        without="hmac.compare_digest(expected[:16], one[:16])",
        test="tests/webhooks/test_github_source.py::test_every_flipped_bit_of_the_signature",
    ),
    Control(
        name="the signature by a sender's private key",
        file="webhooks/sources/standard.py",
        guard="Ed25519PublicKey.from_public_bytes(key).verify(signature, message)",
        without="Ed25519PublicKey.from_public_bytes(key)",
        test="tests/webhooks/test_standard_source.py::test_every_flipped_bit_of_id_time_and_signature",
    ),
    Control(
        name="the time that Slack signs",
        file="webhooks/sources/slack.py",
        guard="if refusal := stale(now, int(stamp), TOLERANCE):",
        without="if refusal := None:",
        test="tests/webhooks/test_slack_source.py::test_five_minutes_are_tolerated",
    ),
    Control(
        name="the time that Standard Webhooks sign",
        file="webhooks/sources/standard.py",
        guard="if refusal := stale(now, int(stamp), TOLERANCE):",
        without="if refusal := None:",
        test="tests/webhooks/test_standard_source.py::test_five_minutes_are_tolerated",
    ),
    Control(
        name="the time of a scheme that a connection describes",
        file="webhooks/sources/described.py",
        guard="if timed and (refusal := _stale(scheme, stamp, now)):",
        without="if timed and (refusal := None):",
        test="tests/webhooks/test_described_source.py::test_the_tolerance_is_the_connections",
    ),
    Control(
        name="a person's second revocation is told by the same bytes",
        file="webhooks/sources/github.py",
        guard="dedupe_by_body=signal is None,  # a person's second revocation is the same bytes as the first",
        without="dedupe_by_body=True,",
        test="tests/webhooks/test_github_source.py::test_a_revoked_authorization_is_a_signal",
    ),
    Control(
        name="a thing of the API is its tenant's",
        file="pipeline/ledger/views.py",
        guard="return which if tenant is None else which & (table.c.tenant_id == tenant)",
        without="return which",
        test="tests/api/test_jobs.py::test_another_tenants_or_agents_job and sqlite",
    ),
    Control(
        name="the API's jobs are its tenant's",
        file="pipeline/ledger/views.py",
        guard="statement = statement.where(jobs.c.tenant_id == tenant)",
        without="pass",
        test="tests/api/test_access.py::test_another_tenants_things_are_not_there and sqlite",
    ),
    Control(
        name="the API's deliveries are its tenant's",
        file="pipeline/ledger/views.py",
        guard="statement = statement.where(deliveries.c.tenant_id == tenant)",
        without="pass",
        test="tests/api/test_accounts.py::test_deliveries_are_shown and sqlite",
    ),
    Control(
        name="the API's revocations are its tenant's",
        file="pipeline/ledger/views.py",
        guard="statement = statement.where(revocations.c.tenant_id == tenant)",
        without="pass",
        test="tests/api/test_accounts.py::test_what_is_the_tenants_own",
    ),
    Control(
        name="the API's accounts are its tenant's",
        file="pipeline/ledger/views.py",
        guard="statement = statement.where(accounts.c.tenant_id == tenant)",
        without="pass",
        test="tests/api/test_accounts.py::test_another_tenants_account_is_not_there and sqlite",
    ),
    Control(
        name="an agent's key sees its own agent's jobs",
        file="pipeline/ledger/views.py",
        guard="which &= jobs.c.agent_id == agent",
        without="pass",
        test="tests/api/test_access.py::test_an_agents_key_sees_its_own_agents_jobs and sqlite",
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_without_its_guard_a_test_fails(control: Control, tmp_path: Path) -> None:
    control.is_noticed(tmp_path)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_a_guard_is_where_its_control_looks(control: Control) -> None:
    control.place()
