"""What the senders publish, from ASWHOM_SHARED_DATA or shared/data beside the repository; GitHub's also from npm."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.servers import shared_data
from tests.servers.shared_data import Example


@cache
def github() -> tuple[Example, ...]:
    """Every published GitHub payload."""
    return tuple(shared_data.github_examples())


@cache
def slack() -> tuple[Path, ...]:
    """Every published Slack request body, JSON or form."""
    found = shared_data.find()
    if found is None:
        return ()
    return tuple(path for path in sorted(found.glob("slack/payloads/*.[jf]*")) if path.name != "INDEX.json")


@cache
def linear() -> tuple[Path, ...]:
    """Every published Linear payload."""
    found = shared_data.find()
    return tuple(sorted(found.glob("linear/examples/*.json"))) if found else ()


@cache
def security_events() -> tuple[Path, ...]:
    """The claims of every published Security Event Token, unsigned."""
    found = shared_data.find()
    return tuple(path for path in sorted(found.glob("ssf/*.json")) if path.name != "INDEX.json") if found else ()


@cache
def vectors() -> dict[str, dict[str, Any]]:
    """The documented signature vector of each scheme, by provider; without the folder the test is skipped."""
    rows = json.loads(shared_data.signature_vectors().read_text(encoding="utf-8"))
    return {row["provider"]: row for row in rows}
