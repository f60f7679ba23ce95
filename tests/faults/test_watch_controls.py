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
)


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_without_its_guard_a_test_fails(control: Control, tmp_path: Path) -> None:
    control.is_noticed(tmp_path)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_a_guard_is_where_its_control_looks(control: Control) -> None:
    control.place()
