"""What upstreams publish, and the answers and calls that tests are made of."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLSchema, build_schema

from pipeline.action import Call, Response
from tests.tasks.calls import make_call
from tests.tasks.published import GitHubDocument, SlackDocument

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of published data: ASWHOM_SHARED_DATA, or shared/data beside the repository."""
    named = os.environ.get("ASWHOM_SHARED_DATA")
    candidates = [Path(named)] if named else [parent / "shared" / "data" for parent in REPOSITORY.parents[:2]]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    message = f"NOT CHECKED against what upstreams publish: nothing in {' or '.join(map(str, candidates))}"
    if "CI" in os.environ:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def github_document(published: Path) -> GitHubDocument:
    return GitHubDocument(json.loads((published / "github" / "rest-subset.json").read_text()))


@pytest.fixture(scope="session")
def slack_document(published: Path) -> SlackDocument:
    return SlackDocument(json.loads((published / "slack" / "web_openapi_v2.json").read_text()))


@pytest.fixture(scope="session")
def linear_schema(published: Path) -> GraphQLSchema:
    return build_schema((published / "linear" / "schema.graphql").read_text())


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
