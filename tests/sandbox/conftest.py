"""One sandbox for the session; each test leaves no fault behind."""

from collections.abc import Iterator

import pytest

from tests.sandbox.driver import SERVICES, Sandbox, running


@pytest.fixture(scope="session")
def _sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Iterator[Sandbox]:
    _sandbox.receiver.take()
    yield _sandbox
    for service in SERVICES:
        _sandbox.http.delete(_sandbox.url(service, "/_sandbox/faults"))
