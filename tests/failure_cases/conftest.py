"""One provider process for the session: every test begins its case anew. And a migrated ledger of each kind."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import redis

from identity.http.client import Client
from pipeline.db.database import Database
from tests.failure_cases.provider import Provider, running
from tests.failure_cases.rig import SIGNING_SECRET, Rig
from tests.servers.valkey import Valkey

SECONDS = 60  # how late slow answers are, unless a test releases them


@pytest.fixture(scope="session")
def _provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    folder = tmp_path_factory.mktemp("provider")
    signed_with = folder / "signing"
    signed_with.write_text(SIGNING_SECRET)
    options = ("--case", "1", "--seconds", str(SECONDS), "--signing-secret-file", str(signed_with))
    with running(folder, *options) as provider:
        yield provider


@pytest.fixture
def provider(_provider: Provider, request: pytest.FixtureRequest) -> Provider:
    """The provider at the start of the case that the test is named after."""
    named = re.match(r"test_case_(\d\d)_", request.node.name)
    assert named, f"{request.node.name} is not named after a case"
    _provider.play(int(named[1]))
    return _provider


@pytest.fixture
def rig(database: Database, provider: Provider, http: Client) -> Rig:
    built = Rig(database, provider, http)
    built.build()
    return built


@pytest.fixture
def locks(valkey: Valkey) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client
