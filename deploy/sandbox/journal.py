"""The log of what arrived: kept in order of arrival, appended to a file as JSON lines, free of tokens."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

Clock = Callable[[], datetime]


@dataclass(kw_only=True)
class Entry:
    """One request. What is unknown at arrival is filled in before the answer is sent."""

    seq: int
    at: str
    upstream: str
    method: str
    path: str
    operation: str | None = None  # Linear has one path; its root fields are named here
    token_kind: str = "none"  # noqa: S105  (or user, installation, bot, app)
    actor: str | None = None
    tenant: str | None = None
    token_fingerprint: str | None = None
    attempt: str | None = None
    refresh: str | None = None  # a request for a new access token
    connect: str | None = None  # a code's exchange, or the question who consented
    revocation: str | None = None  # a request that ends, or asks about, what was revoked
    idempotency_key: str | None = None
    status: int | None = None  # None while in progress, and for ever if no answer was given
    effect: bool = False
    resource: str | None = None
    issued: str | None = None  # the fingerprint of the access token in the answer
    fault: str | None = None


class Journal:
    """Entries numbered densely from 1 in order of arrival; a line in the file when each is complete."""

    def __init__(self, upstream: str, file: Path | None, *, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._file = file.open("a", encoding="utf-8") if file else None

    def arrive(
        self,
        *,
        method: str,
        path: str,
        attempt: str | None = None,
        refresh: str | None = None,
        connect: str | None = None,
        revocation: str | None = None,
        idempotency_key: str | None = None,
    ) -> Entry:
        with self._lock:
            entry = Entry(
                seq=len(self._entries) + 1,
                at=self._clock().isoformat(),
                upstream=self._upstream,
                method=method,
                path=path,
                attempt=attempt,
                refresh=refresh,
                connect=connect,
                revocation=revocation,
                idempotency_key=idempotency_key,
            )
            self._entries.append(entry)
            return entry

    def complete(self, entry: Entry, *, status: int | None) -> None:
        with self._lock:
            entry.status = status
            self._append("request", vars(entry))

    def note(self, kind: str, record: dict[str, Any]) -> None:
        """Append a record of another *kind* to the same file."""
        with self._lock:
            self._append(kind, record)

    def since(self, seq: int) -> list[dict[str, Any]]:
        with self._lock:
            return [vars(entry).copy() for entry in self._entries[max(seq, 0) :]]

    def _append(self, kind: str, record: dict[str, Any]) -> None:
        if self._file:
            self._file.write(json.dumps({"log": kind, **record}) + "\n")
            self._file.flush()
