"""The app in front of a ledger in memory."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient

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
