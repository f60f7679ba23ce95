"""Digests of JSON documents that are stored, and compared with those made later: their bytes must never be others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any


def json_digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of a document: keys sorted, no spaces, ASCII."""
    return sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
