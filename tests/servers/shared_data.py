"""Payloads and API documents as the upstreams publish them: from beside the repository, GitHub's also from npm."""

import json
import os
from pathlib import Path
from typing import Any

from tests.servers.npm import install

_REPOSITORY = Path(__file__).parents[2]
_PACKAGES = _REPOSITORY / "tests" / "peers" / "published"


class NoSharedData(RuntimeError):
    """Nothing published to hold our requests against."""


def folder() -> Path:
    """The folder of published data: ASWHOM_SHARED_DATA, or shared/data beside the repository."""
    named = os.environ.get("ASWHOM_SHARED_DATA")
    # A worktree may lie one folder deeper than the repository it belongs to.
    candidates = [Path(named)] if named else [parent / "shared" / "data" for parent in _REPOSITORY.parents[:2]]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise NoSharedData(f"no published data in {' or '.join(map(str, candidates))}: set ASWHOM_SHARED_DATA")


def github_payloads() -> dict[str, list[dict[str, Any]]]:
    """Examples of webhook bodies, by the name of the event."""
    try:
        payloads = folder() / "github" / "payloads"
    except NoSharedData:
        index = json.loads((_package("@octokit/webhooks-examples") / "api.github.com" / "index.json").read_text())
        return {event["name"]: event["examples"] for event in index}
    return {
        event.name: [json.loads(example.read_text()) for example in sorted(event.glob("*.json"))]
        for event in sorted(payloads.iterdir())
    }


def github_webhook_schema() -> Path:
    """The JSON Schema of every webhook body."""
    try:
        return folder() / "github" / "webhooks-schema.bundled.json"
    except NoSharedData:
        return _package("@octokit/webhooks-schemas") / "schema.json"


def github_rest() -> Path:
    """GitHub's OpenAPI document, or at least the operations that are used here."""
    try:
        return folder() / "github" / "rest-subset.json"
    except NoSharedData:
        return _package("@octokit/openapi") / "generated" / "api.github.com.json"


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
