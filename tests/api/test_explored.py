"""Schemathesis walks the document against the real app: no fault of ours, no answer that is not described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis.core.result import Ok
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from identity.agents.api_keys import Role
from tests.api.agents_api import AgentsApi
from tests.api.explored_world import BY_SIGNATURE, Case, World
from tests.identity.providers import pretend_provider
from webhooks.api.access import NEEDS, ROLES
from webhooks.api.other_endpoints import BESIDE, written
from webhooks.security_event_push import SET

schemathesis.serializer.alias(SET, "text/plain")


def explore(api: AgentsApi, world: World, role: Role, *, examples: int) -> Counter[str]:
    """Ask every operation but that of the document so often, rightly and wrongly; how often each did what was asked.

    Rightly, half of them ask for what there is: words that fit a schema are the names of nothing, and are told so.
    """
    schema = schemathesis.openapi.from_wsgi("/v1/openapi.json", api.app)
    taken, service = Counter[str](), api.service()
    for operation in (found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)):
        beside = operation.path in map(written, BESIDE)
        # Beside the API no role counts, and each role's walk comes by.
        often = max(1, examples // len(Role)) if beside else examples
        taker = {"audience": []} in operation.definition.raw.get("security", ())
        ask = partial(_ask, api, role, operation, service=service if taker else None)
        name = operation.definition.raw["operationId"]
        half = -(-often // 2)
        taken[name] = ask(GenerationMode.POSITIVE, often=half, prepare=partial(world.put, name))
        taken[name] += ask(GenerationMode.POSITIVE, often=half)
        # Where nothing is taken, nothing can be wrong.
        if {"requestBody", "parameters"} & operation.definition.raw.keys():
            ask(GenerationMode.NEGATIVE, often=often)
    return taken


def _ask(
    api: AgentsApi,
    role: Role,
    operation: Any,
    mode: GenerationMode,
    *,
    often: int,
    service: str | None,
    prepare: Callable[[Case], None] = lambda case: None,
) -> int:
    """How many of so many examples were answered with 2xx, each of which *prepare* may change."""
    taken = 0

    @settings(
        max_examples=often,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        nonlocal taken
        # What has no members is not sent, so nothing would be wrong with the request.
        assume(not any(value in ([], {}) for value in case.query.values()))
        prepare(case)
        # A new key each time: an example may revoke its own agent.
        key = api.key(role=role)
        # In the case itself. One whose fault it is to have no key stays without: it is to be refused for that.
        if "Authorization" in case.headers:
            case.headers["Authorization"] = service or f"Bearer {key.reveal()}"
        # What fits its schema can still name nobody there is, which is 422 as well. And what was put in is as right.
        beside_it = [positive_data_acceptance] + [negative_data_rejection] * (mode is GenerationMode.POSITIVE)
        answer = case.call_and_validate(excluded_checks=beside_it)
        taken += answer.status_code < 300

    ask()
    return taken


def walk(api: AgentsApi, role: Role, *, examples: int) -> None:
    """Every operation that the role may have did what it is for, as well as refused."""
    with pretend_provider() as provider:
        taken = explore(api, World(api, provider), role, examples=examples)
    assert len(taken) == 27
    refused = {name for name, need in NEEDS.items() if need not in ROLES[role]}
    assert {name for name, times in taken.items() if not times} == BY_SIGNATURE | refused


def test_no_request_is_answered_otherwise_than_described(sqlite_api: AgentsApi) -> None:
    walk(sqlite_api, Role.ADMIN, examples=2)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # 2,000 requests a role
@pytest.mark.parametrize("role", list(Role))
def test_no_request_of_many_is_answered_otherwise_than_described(api: AgentsApi, role: Role) -> None:
    """On PostgreSQL too: its text takes no NUL, its numbers and moments end earlier."""
    walk(api, role, examples=50)
