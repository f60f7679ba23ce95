"""Every negative control: a guard, and the test that fails without it."""

from tests.faults.controls import (
    capability,
    connect,
    console,
    ledger,
    outward,
    policy,
    revoking,
    searching,
    signed,
    system,
    waiting,
    watch,
)

CONTROLS = (
    *ledger.CONTROLS,
    *system.CONTROLS,
    *policy.CONTROLS,
    *capability.CONTROLS,
    *connect.CONTROLS,
    *outward.CONTROLS,
    *waiting.CONTROLS,
    *searching.CONTROLS,
    *revoking.CONTROLS,
    *console.CONTROLS,
    *signed.CONTROLS,
    *watch.CONTROLS,
)
