"""The app behind a real server, with a broker that hangs: `gunicorn tests.webhooks.served:app`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pipeline.model import Bell
from tests.webhooks.parts import MemoryLedger, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings


class FrozenRing:
    """Never comes back within a test."""

    def jobs(self, bells: Sequence[Bell]) -> bool:
        time.sleep(60)
        return False

    def revocations(self, ids: Sequence[str]) -> None:
        time.sleep(60)


app = create_app(WebSettings(base_url="http://localhost", max_body=200_000), MemoryLedger(), registry(), FrozenRing())
