"""Digests of JSON documents, stored and compared later: the encoding must never change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any


def json_digest(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a document: keys sorted, no spaces, ASCII."""
    return sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
