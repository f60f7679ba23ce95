"""What we sign is verified by a library nobody here wrote, which knows us by our published metadata alone."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from werkzeug.serving import make_server

from identity.capability import verifier
from identity.capability.authority import Authority
from identity.capability.issuer import Issuer, claims_of
from identity.capability.model import Algorithm
from tests.capability.capability_ledger import BANK, INVOICES, PAY, CapabilityLedger
from tests.docs.pages import page
from tests.servers.npm import install
from tests.servers.process import free_port
from tests.servers.web import serving
from tests.webhooks.parts import MemoryLedger, MemoryRing, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings

PEER = Path(__file__).parents[1] / "peers" / "oidc"


@contextmanager
def published(ledger: CapabilityLedger) -> Iterator[Issuer]:
    """The ledger's authority on a port of its own, by whose address its tokens call it."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    issuer = Issuer(ledger.database, ledger.vault, url=base, clock=ledger.now)
    authority = Authority(ledger.database, issuer, ids=ledger.ids, clock=ledger.now)
    app = create_app(WebSettings(base_url=base), MemoryLedger(), registry(), MemoryRing(), authority=authority)
    server = make_server("127.0.0.1", port, app, threaded=True)
    with serving(server):
        yield issuer


def verified(issuer: Issuer, *tokens: str) -> list[dict[str, Any]]:
    install(PEER)
    command = ["node", "verify-capability.mjs", issuer.url, INVOICES.uri]
    lines = "".join(f"{token}\n" for token in tokens)
    done = subprocess.run(command, cwd=PEER, input=lines, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def example(language: str) -> str:
    """The one block of the page in that language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", page("capabilities.md"), re.DOTALL)
    return str(block)


def test_what_the_page_shows_of_another_language_is_what_is_run() -> None:
    """All but the addresses, which are arguments there."""
    (shown,) = re.findall(r"  audience: [^\n]*\n(.*?)\}\)", example("js"), re.DOTALL)
    (run,) = re.findall(r"      audience,\n(.*?)    \}\)", (PEER / "verify-capability.mjs").read_text(), re.DOTALL)
    assert dedent(shown) == dedent(run)
    assert len(dedent(shown).splitlines()) == 4


def test_what_the_page_shows_in_python_verifies_what_we_sign(
    shared_ledger: CapabilityLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page says: with a copy of the one file, by the published keys."""
    shutil.copy(Path(verifier.__file__), tmp_path / "verifier.py")
    monkeypatch.syspath_prepend(tmp_path)
    given = shared_ledger.issue()
    method, target, body = PAY
    request = {"method": method, "target": target, "body": body, "now": datetime.now(UTC)}
    with published(shared_ledger) as issuer:
        shown = example("python").replace("https://aswhom.example", issuer.url)
        file = tmp_path / "service.py"
        file.write_text(shown.replace("https://invoices.acme.example", INVOICES.uri))
        request["token"] = issuer.sign(given, Algorithm.ED25519).reveal()
        for amount, why_not in (("1250.00", None), ("1500.01", "amount")):
            said = runpy.run_path(str(file), init_globals={**request, "amount": Decimal(amount)})
            assert (said["capability"].subject, said["capability"].id) == ("acme.ada", given.id)
            assert said["why_not"] == why_not


def test_an_independent_library_verifies_what_we_sign(shared_ledger: CapabilityLedger) -> None:
    given, elsewhere = shared_ledger.issue(), shared_ledger.issue(audience=BANK)
    with published(shared_ledger) as issuer:
        tokens = [issuer.sign(given, algorithm).reveal() for algorithm in Algorithm]
        head, payload, signature = tokens[0].split(".")
        answers = verified(
            issuer,
            *tokens,
            issuer.sign(elsewhere, Algorithm.ES256).reveal(),
            f"{head}.{payload[:-2]}AA.{signature}",
        )
    good = [{"alg": str(algorithm), "payload": claims_of(given, issuer=issuer.url)} for algorithm in Algorithm]
    assert answers[:2] == good
    assert answers[2] == {"refused": "ERR_JWT_CLAIM_VALIDATION_FAILED"}
    assert answers[3] == {"refused": "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"}
