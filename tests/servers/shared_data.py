"""Payloads and API documents as the upstreams publish them: from beside the repository, GitHub's also from npm.

What is in neither place skips the test that asks for it, and the test says what it was not held against.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.npm import install

_REPOSITORY = Path(__file__).parents[2]
_PACKAGES = _REPOSITORY / "tests" / "peers" / "published"


@dataclass(frozen=True, kw_only=True)
class Example:
    """A body that a sender publishes as an example of one event."""

    event: str
    name: str
    body: bytes


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


def github_examples() -> list[Example]:
    """Webhook bodies of every event. The package has them parsed, so there they are bytes that we have written."""
    found = find()
    if found is None:
        index = json.loads((_package("@octokit/webhooks-examples") / "api.github.com" / "index.json").read_text())
        return [
            Example(event=event["name"], name=f"{event['name']}.{number}", body=_compact(document))
            for event in index
            for number, document in enumerate(event["examples"], 1)
        ]
    files = sorted((found / "github" / "payloads").glob("*/*.json"))
    return [Example(event=file.parent.name, name=file.name, body=file.read_bytes()) for file in files]


def github_payloads() -> dict[str, list[dict[str, Any]]]:
    """What they say, by the name of the event."""
    payloads: dict[str, list[dict[str, Any]]] = {}
    for example in github_examples():
        payloads.setdefault(example.event, []).append(json.loads(example.body))
    return payloads


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


def _compact(document: Any) -> bytes:
    """As GitHub writes its bodies."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _package(name: str) -> Path:
    install(_PACKAGES)
    return _PACKAGES / "node_modules" / name
