"""The app in front of a ledger in memory."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.webhooks import published
from tests.webhooks.parts import NOW, MemoryLedger, MemoryRing, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger()


@pytest.fixture
def ring() -> MemoryRing:
    return MemoryRing()


@pytest.fixture
def app(ledger: MemoryLedger, ring: MemoryRing) -> Flask:
    settings = WebSettings(base_url="https://aswhom.example", max_body=200_000)
    return create_app(settings, ledger, registry(), ring, clock=lambda: NOW)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def needs_published() -> Callable[[], None]:
    """Skips loudly where nothing published is at hand, and fails in CI."""

    def need() -> None:
        if published.folder() is None:
            if "CI" in os.environ:
                pytest.fail("no published data: set ASWHOM_SHARED_DATA")
            pytest.skip("NOT CHECKED against what senders publish: set ASWHOM_SHARED_DATA")

    return need
