"""The request log: in order of arrival, appended to a file as JSON lines, and free of tokens."""

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
    """One request. Values unknown at arrival are filled in before the answer is sent."""

    seq: int
    at: str
    upstream: str
    method: str
    path: str
    operation: str | None = None  # the root fields of a Linear request, which all have one path
    token_kind: str = "none"  # noqa: S105  (or user, installation, bot, app)
    actor: str | None = None
    tenant: str | None = None
    token_fingerprint: str | None = None
    attempt: str | None = None
    refresh: str | None = None  # a request for a new access token
    connect: str | None = None  # a code exchange, or a request for the identity of the person who consented
    revocation: str | None = None  # a request that ends a revoked credential or asks about it
    idempotency_key: str | None = None
    status: int | None = None  # None while in progress, and if no answer was sent
    effect: bool = False
    resource: str | None = None
    issued: str | None = None  # the fingerprint of the access token in the answer
    fault: str | None = None


class Journal:
    """Entries numbered from 1 without gaps, in order of arrival. Each is written to the file once complete."""

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
