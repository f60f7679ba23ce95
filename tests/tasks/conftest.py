"""What upstreams publish, and the answers and calls that tests are made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from graphql import GraphQLSchema, build_schema

from pipeline.action import Call, Response
from tests.tasks.calls import make_call
from tests.tasks.published import GitHubDocument, SlackDocument


@pytest.fixture(scope="session")
def github_document(shared_data: ModuleType) -> GitHubDocument:
    return GitHubDocument(json.loads(shared_data.github_rest().read_text()))


@pytest.fixture(scope="session")
def slack_document(shared_data: ModuleType) -> SlackDocument:
    return SlackDocument(json.loads(shared_data.slack_openapi().read_text()))


@pytest.fixture(scope="session")
def linear_schema(shared_data: ModuleType) -> GraphQLSchema:
    return build_schema(shared_data.linear_schema().read_text())


@pytest.fixture
def call() -> Call:
    return make_call()


@pytest.fixture
def answer() -> Callable[..., Response]:
    """An answer with a JSON body."""

    def make(document: Any, *, status: int = 200, **headers: str) -> Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return Response(status=status, headers=names, body=json.dumps(document).encode())

    return make
