"""Payloads and API documents as the upstreams publish them: from beside the repository, GitHub's also from npm.

What is in neither place skips the test that asks for it, and the test says what it was not held against.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.servers.npm import install

_REPOSITORY = Path(__file__).parents[2]
_PACKAGES = _REPOSITORY / "tests" / "peers" / "published"


def find() -> Path | None:
    """The folder of published data: ASWHOM_SHARED_DATA, or shared/data beside the repository, if it is there.

    Raises NotADirectoryError where ASWHOM_SHARED_DATA names no folder.
    """
    if named := os.environ.get("ASWHOM_SHARED_DATA"):
        if not Path(named).is_dir():
            raise NotADirectoryError(f"ASWHOM_SHARED_DATA names {named}, which is no folder")
        return Path(named)
    # A worktree may lie one folder deeper than the repository it belongs to.
    candidates = (parent / "shared" / "data" for parent in _REPOSITORY.parents[:2])
    return next((candidate for candidate in candidates if candidate.is_dir()), None)


def folder() -> Path:
    """The same; without it the test that asks is skipped."""
    found = find()
    if found is None:
        pytest.skip("NOT CHECKED against what upstreams publish: ASWHOM_SHARED_DATA names no folder of it")
    return found


def github_payloads() -> dict[str, list[dict[str, Any]]]:
    """Examples of webhook bodies, by the name of the event."""
    found = find()
    if found is None:
        index = json.loads((_package("@octokit/webhooks-examples") / "api.github.com" / "index.json").read_text())
        return {event["name"]: event["examples"] for event in index}
    return {
        event.name: [json.loads(example.read_text()) for example in sorted(event.glob("*.json"))]
        for event in sorted((found / "github" / "payloads").iterdir())
    }


def github_webhook_schema() -> Path:
    """The JSON Schema of every webhook body."""
    found = find()
    if found is None:
        return _package("@octokit/webhooks-schemas") / "schema.json"
    return found / "github" / "webhooks-schema.bundled.json"


def github_rest() -> Path:
    """GitHub's OpenAPI document, or at least the operations that are used here."""
    found = find()
    if found is None:
        return _package("@octokit/openapi") / "generated" / "api.github.com.json"
    return found / "github" / "rest-subset.json"


def linear_schema() -> Path:
    """Linear's GraphQL schema, in SDL."""
    return folder() / "linear" / "schema.graphql"


def linear_payloads() -> list[Path]:
    """Examples of Linear's webhook bodies."""
    return sorted((folder() / "linear" / "examples").glob("*.json"))


def slack_openapi() -> Path:
    """Slack's Web API as a Swagger 2 document."""
    return folder() / "slack" / "web_openapi_v2.json"


def slack_payloads() -> list[Path]:
    """Examples of Slack's events and interactions; the file's name begins with the type."""
    return sorted(path for path in (folder() / "slack" / "payloads").glob("*.json") if path.name != "INDEX.json")


def security_events() -> list[Path]:
    """Examples of Security Event Tokens' claims (CAEP, RISC, SSF)."""
    return sorted(path for path in (folder() / "ssf").glob("*.json") if path.name != "INDEX.json")


def signature_vectors() -> Path:
    """The documented test vectors of each signature scheme."""
    return folder() / "signature-vectors.json"


def _package(name: str) -> Path:
    install(_PACKAGES)
    return _PACKAGES / "node_modules" / name
