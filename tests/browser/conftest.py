"""Debian's Chromium, and a whole system for it to visit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.connect_site import ConnectSite
from tests.browser.console_site import ConsoleSite
from tests.browser.person import Person
from tests.servers.npm import install
from tests.servers.oidc import oidc as run_oidc
from tests.servers.valkey import valkey as run_valkey
from tests.system.rig import System
from tests.waiting import PATIENCE

SWITCHES = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SCREENSHOTS = Path(__file__).parent / "screenshots"
expect.set_options(timeout=PATIENCE * 1000)  # a context's default timeout does not count for it
AXE = Path(__file__).parents[1] / "peers" / "axe"


@pytest.fixture(scope="session")
def browser(chromium: Path) -> Iterator[Browser]:
    """One browser; every person gets a profile of her own in it."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=SWITCHES)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The accessibility rules, as the script that carries them."""
    install(AXE)
    return (AXE / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture(scope="session")
def connect_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConnectSite]:
    """The sandbox's providers, npm's oidc-provider, and Aswhom's web over a real ledger."""
    directory = tmp_path_factory.mktemp("connect_site")
    with run_valkey() as broker:
        system = System(directory, f"sqlite:///{directory}/ledger.sqlite", broker)
        try:
            system.start_sandbox()
            with (
                run_oidc(redirect_uri=f"{system.web}/connect/callback/oidc") as oidc,
                ConnectSite(system, oidc) as opened,
            ):
                yield opened
        finally:
            system.close()


@pytest.fixture
def site(tmp_path: Path, migrated_sqlite: Path) -> Iterator[ConsoleSite]:
    """The console, over a ledger with something of everything."""
    shutil.copy(migrated_sqlite, tmp_path / "ledger.sqlite")
    with ConsoleSite(tmp_path / "ledger.sqlite") as opened:
        yield opened


@pytest.fixture
def person(browser: Browser, axe: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Person]]:
    """Makes people at fresh browsers; what they saw is kept as screenshots."""
    met: list[Person] = []

    def meet(**context: object) -> Person:
        SCREENSHOTS.mkdir(exist_ok=True)
        arrived = Person(browser, axe, SCREENSHOTS / request.node.name, **context)
        met.append(arrived)
        return arrived

    yield meet
    for one in met:
        one.leave()
