"""The app behind a real server, with a broker that hangs: `gunicorn tests.webhooks.served:app`.

`--worker-class tests.webhooks.served.Hasty` is the web's own worker in a hurry, `Patient` one with time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.web_worker import Worker
from pipeline.model import Acceptance, Bell, SignedDelivery
from tests.webhooks.parts import MemoryLedger, MemoryRing, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings


class Hasty(Worker):
    """Gives a request two seconds, and who was answered a moment."""

    seconds = 2.0
    goodbye = 0.1
    silence = 1.0


class Patient(Worker):
    """Gives a request minutes."""

    seconds = 600.0


class FrozenRing(MemoryRing):
    """Never comes back. That somebody hangs in it is to be seen by a file."""

    def jobs(self, bells: Sequence[Bell]) -> bool:
        self.revocations([])
        return False

    def revocations(self, ids: Sequence[str]) -> None:
        Path(os.environ["HANGS"]).touch()
        threading.Event().wait()


class TimedLedger(MemoryLedger):
    """Writes down since when the sender of each command waits, by the clock of the whole machine."""

    def accept(self, delivery: SignedDelivery, *of: Any, began: float, **more: Any) -> Acceptance:
        if delivery.source == "slack":
            with Path(os.environ["BEGAN"]).open("a") as file:
                file.write(f"{began}\n")
        return super().accept(delivery, *of, began=began, **more)


settings = WebSettings(base_url="http://localhost", max_body=200_000)
app = create_app(settings, TimedLedger(), registry(), FrozenRing(), clock=lambda: datetime.now(UTC))
