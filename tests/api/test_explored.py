"""Schemathesis walks the document against the real app: no fault of ours, no answer that is not described."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis.core.result import Ok
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from identity.api_keys import Role
from tests.api.agents_api import AgentsApi
from webhooks.api.other_endpoints import BESIDE, written
from webhooks.security_event_push import SET

schemathesis.serializer.alias(SET, "text/plain")


def explore(api: AgentsApi, role: Role, *, examples: int) -> int:
    """Ask every operation but that of the document so often, rightly and wrongly; how many there are."""
    schema = schemathesis.openapi.from_wsgi("/v1/openapi.json", api.app)
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    beside, service = set(map(written, BESIDE)), api.service()
    for operation in operations:
        # Beside the API no role counts, and each role's walk comes by.
        often = max(1, examples // len(Role)) if operation.path in beside else examples
        # Where nothing is taken, nothing can be wrong.
        wrongly = [GenerationMode.NEGATIVE] if {"requestBody", "parameters"} & operation.definition.raw.keys() else []
        for mode in (GenerationMode.POSITIVE, *wrongly):

            @settings(
                max_examples=often,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case[Any]) -> None:
                # What has no members is not sent, so nothing would be wrong with the request.
                assume(not any(value in ([], {}) for value in case.query.values()))
                # A new key each time: an example may revoke its own agent.
                key = api.key(role=role)
                # In the case itself. One whose fault it is to have no key stays without: it is to be refused for that.
                if "Authorization" in case.headers:
                    right = service if case.operation.path in beside else f"Bearer {key.reveal()}"
                    case.headers["Authorization"] = right
                # What fits its schema can still name nobody there is, which is 422 as well.
                case.call_and_validate(excluded_checks=[positive_data_acceptance])

            ask()
    return len(operations)


def test_no_request_is_answered_otherwise_than_described(sqlite_api: AgentsApi) -> None:
    assert explore(sqlite_api, Role.ADMIN, examples=3) == 27


@pytest.mark.slow
@pytest.mark.timeout(1200)  # 2,000 requests a role
@pytest.mark.parametrize("role", list(Role))
def test_no_request_of_many_is_answered_otherwise_than_described(api: AgentsApi, role: Role) -> None:
    """On PostgreSQL too: its text takes no NUL, its numbers and moments end earlier."""
    assert explore(api, role, examples=50) == 27
