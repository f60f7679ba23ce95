"""What the backlog bench counts as run in spite of a revocation."""

from __future__ import annotations

from tests.bench.backlog import Answered, ran_anyway
from tests.bench.upstream import SeenCall


def call(credential: str, *, at: float, attempt: str) -> SeenCall:
    return SeenCall(at=at, credential=credential, attempt=attempt, began=0)


def test_each_grants_calls_are_held_against_its_own_revocation() -> None:
    answered = {
        "acme.ada": Answered(revocation="rev-2", at=20),
        "tenant-1.ada": Answered(revocation="rev-1", at=10),
    }
    calls = [
        call("Bearer token-tenant-1.ada-1", at=9, attempt="before"),
        call("Bearer token-acme.ada-1", at=15, attempt="before-its-own"),
        call("Bearer token-tenant-1.ada-1", at=11, attempt="in-flight"),
        call("Bearer token-tenant-11.ada-1", at=30, attempt="of-nobody-revoked"),
        call("Basic Y2xpZW50OmNsaWVudA==", at=30, attempt=""),
    ]
    assert ran_anyway(calls, answered, in_flight={"in-flight"}) == (2, 0)
    late = [call("Bearer token-tenant-1.ada-1", at=11, attempt="late"), call("token-acme.ada-2", at=21, attempt="too")]
    assert ran_anyway(calls + late, answered, in_flight={"in-flight"}) == (2, 2)
