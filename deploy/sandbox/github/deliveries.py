"""Signed webhook deliveries. As at GitHub, a redelivery keeps the guid and gets a list row of its own."""

import hashlib
import hmac
import itertools
import json
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from deploy.sandbox import clear
from deploy.sandbox.github.times import stamp
from deploy.sandbox.journal import Clock, Journal

ACKNOWLEDGE_SECONDS = 10  # GitHub's time limit


@dataclass(kw_only=True, frozen=True)
class Try:
    id: int
    at: datetime
    status: int  # 0: no answer


@dataclass(kw_only=True, eq=False)
class Delivery:
    id: int
    guid: str
    event: str
    action: str
    body: bytes
    installation_id: int | None
    repository_id: int | None
    at: datetime
    late: bool = False  # not attempted yet: missing from GitHub's list, so it cannot be redelivered
    tries: list[Try] = field(default_factory=list)

    @property
    def statuses(self) -> list[int]:
        return [one.status for one in self.tries]

    def rows(self) -> list[dict[str, Any]]:
        """Return its rows in `GET /app/hook/deliveries`, first attempt first. An unsent delivery has one row too."""
        if self.late and not self.tries:
            return []
        return [self.row(place) for place in range(max(1, len(self.tries)))]

    def row(self, place: int = -1) -> dict[str, Any]:
        """Return one attempt's row."""
        made = self.tries[place] if self.tries else Try(id=self.id, at=self.at, status=0)
        status = made.status
        return {
            "id": made.id,
            "guid": self.guid,
            "delivered_at": stamp(made.at),
            "redelivery": made.id != self.id,
            "duration": 0.03,
            "status": "OK" if 200 <= status < 300 else "Invalid HTTP Response",
            "status_code": status,
            "event": self.event,
            "action": self.action,
            "installation_id": self.installation_id,
            "repository_id": self.repository_id,
            "throttled_at": None,
        }

    def whole(self) -> dict[str, Any]:
        """Return it as `GET /app/hook/deliveries/ID` does."""
        headers = {"X-GitHub-Delivery": self.guid, "X-GitHub-Event": self.event, "Content-Type": "application/json"}
        return self.row() | {
            "url": "",
            "request": {"headers": headers, "payload": json.loads(self.body)},
            "response": {"headers": None, "payload": None},
        }


class Deliveries:
    def __init__(self, github: dict[str, Any], *, journal: Journal, clock: Clock) -> None:
        self._github = github
        self._journal = journal
        self._clock = clock
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._made: dict[str, Delivery] = {}
        self._client = clear.client(timeout=ACKNOWLEDGE_SECONDS)

    def make(self, event: str, payload: dict[str, Any], *, late: bool = False) -> Delivery:
        """Create a delivery without sending it."""
        with self._lock:
            delivery = Delivery(
                id=next(self._ids),
                guid=str(uuid.uuid4()),
                event=event,
                action=payload["action"],
                body=json.dumps(payload).encode(),
                installation_id=payload.get("installation", {}).get("id"),
                repository_id=payload.get("repository", {}).get("id"),
                at=self._clock(),
                late=late,
            )
            self._made[delivery.guid] = delivery
            return delivery

    def make_withdrawn(self, user: dict[str, Any], *, late: bool = False) -> Delivery:
        """Create the event of a user's ended authorization, whoever ended it: an action and a sender, but no time."""
        return self.make("github_app_authorization", {"action": "revoked", "sender": user}, late=late)

    def send(self, delivery: Delivery) -> int:
        """Send a delivery. Return the receiver's status, or 0 if it did not answer."""
        try:
            status = self._client.post(
                self._github["webhook_url"], content=delivery.body, headers=self._headers(delivery)
            ).status_code
        except httpx.HTTPError:
            status = 0
        with self._lock:
            id = next(self._ids) if delivery.tries else delivery.id
            delivery.tries.append(Try(id=id, at=self._clock(), status=status))
        self._journal.note("delivery", {"event": delivery.event, "guid": delivery.guid, "status": status})
        return status

    def give(self, made: Sequence[Delivery], *, hold: bool) -> dict[str, Any]:
        """Send deliveries unless they are held. Return the fields of the control endpoint's answer."""
        statuses = [] if hold else [self.send(delivery) for delivery in made]
        return {"deliveries": [delivery.guid for delivery in made], "statuses": statuses}

    def find(self, reference: str) -> Delivery | None:
        """Find a delivery by guid, or by an id from the list."""
        with self._lock:
            return self._made.get(reference) or next(
                (
                    delivery
                    for delivery in self._made.values()
                    if reference in {str(delivery.id), *(str(one.id) for one in delivery.tries)}
                ),
                None,
            )

    def all(self) -> list[Delivery]:
        with self._lock:
            return list(self._made.values())

    def rows(self) -> list[dict[str, Any]]:
        """Return every attempt, newest first."""
        with self._lock:
            rows = [row for delivery in self._made.values() for row in delivery.rows()]
        return sorted(rows, key=lambda row: row["id"], reverse=True)

    def _headers(self, delivery: Delivery) -> dict[str, str]:
        digest = hmac.new(self._github["webhook_secret"].encode(), delivery.body, hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/sandbox",
            "X-GitHub-Delivery": delivery.guid,
            "X-GitHub-Event": delivery.event,
            "X-GitHub-Hook-ID": "1",
            "X-GitHub-Hook-Installation-Target-Type": "integration",
            "X-GitHub-Hook-Installation-Target-ID": str(self._github["app_id"]),
            "X-Hub-Signature-256": f"sha256={digest}",
        }
