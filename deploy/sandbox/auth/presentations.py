"""The credentials presented to the token endpoint, in order, with their outcomes."""

import threading
from dataclasses import asdict, dataclass
from typing import Any

from deploy.sandbox.fingerprint import fingerprint
from deploy.sandbox.journal import Clock, Journal


@dataclass(frozen=True, kw_only=True)
class Presentation:
    seq: int
    at: str
    provider: str
    client_id: str
    grant: str | None
    user: str | None
    kind: str
    fingerprint: str
    outcome: str  # "ok", an error code, or "not_processed" when a fault answered first
    refresh: str | None
    connect: str | None
    issued: str | None  # the fingerprint of the access token in the answer


class Presentations:
    def __init__(self, journal: Journal, *, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: list[Presentation] = []

    def record(
        self,
        *,
        provider: str,
        client_id: str,
        kind: str,
        credential: str,
        outcome: str,
        grant: str | None,
        user: str | None,
        refresh: str | None,
        connect: str | None,
        issued: str | None,
    ) -> None:
        with self._lock:
            seen = Presentation(
                seq=len(self._seen) + 1,
                at=self._clock().isoformat(),
                provider=provider,
                client_id=client_id,
                grant=grant,
                user=user,
                kind=kind,
                fingerprint=fingerprint(credential),
                outcome=outcome,
                refresh=refresh,
                connect=connect,
                issued=fingerprint(issued) if issued else None,
            )
            self._seen.append(seen)
            self._journal.note("presentation", asdict(seen))

    def all(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(seen) for seen in self._seen]
