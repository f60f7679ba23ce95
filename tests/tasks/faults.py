"""How each upstream says no and "later", and the points at which a worker is killed."""

from __future__ import annotations

from typing import Any

import pytest

_LINEAR_SAYS = {"mode": "body", "status": 200}
REFUSALS: dict[str, dict[str, Any]] = {
    "github": {"mode": "status", "status": 403, "body": {"message": "Resource not accessible by integration"}},
    "linear": _LINEAR_SAYS | {"body": {"errors": [{"extensions": {"type": "forbidden"}}], "data": None}},
    "slack": {"mode": "body", "body": {"ok": False, "error": "channel_not_found"}},
    "salesforce": {"mode": "status", "status": 403, "body": [{"errorCode": "INSUFFICIENT_ACCESS_OR_READONLY"}]},
    "stripe": {"mode": "status", "status": 403, "body": {"error": {"type": "invalid_request_error"}}},
    "zendesk": {"mode": "status", "status": 422, "body": {"error": "RecordInvalid"}},
}
_LATER = {"mode": "status", "status": 429, "headers": {"Retry-After": "7"}}
LIMITS: dict[str, dict[str, Any]] = {
    "github": _LATER | {"status": 403},
    "linear": {"mode": "status", "status": 400, "body": {"errors": [{"extensions": {"type": "ratelimited"}}]}},
    "slack": _LATER,
    "salesforce": {"mode": "status", "status": 403, "body": [{"errorCode": "REQUEST_LIMIT_EXCEEDED"}]},
    "stripe": _LATER,
    "zendesk": _LATER,
}
# Where a worker knows more than its ledger, or less.
POINTS = (
    pytest.param("before_call", marks=pytest.mark.slow),
    "after_call",
    pytest.param("after_commit", marks=pytest.mark.slow),
)
