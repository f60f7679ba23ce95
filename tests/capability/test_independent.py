"""What we sign is verified by a library nobody here wrote, which knows us by our published metadata alone."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import request
from joserfc import jws
from werkzeug.serving import make_server

from identity.capability import keys, verifier
from identity.capability.authority import Authority
from identity.capability.issuer import Issuer, claims_of
from identity.capability.model import Algorithm
from identity.capability.verifier import SIGNATURES, TYPE, Capability, request_hash
from tests.capability.capability_ledger import BANK, INVOICES, PAY, CapabilityLedger
from tests.docs.pages import page
from tests.servers.npm import install
from tests.servers.process import free_port
from tests.servers.web import serving
from tests.waiting import PATIENCE
from tests.webhooks.parts import MemoryLedger, MemoryRing, registry
from webhooks.app import create_app
from webhooks.settings import WebSettings

PEER = Path(__file__).parents[1] / "peers" / "oidc"


@contextmanager
def published(ledger: CapabilityLedger, asked_for: list[str] | None = None) -> Iterator[Issuer]:
    """The ledger's authority on a port of its own, by whose address its tokens call it; *asked_for* gets the paths."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    issuer = Issuer(ledger.database, ledger.vault, url=base, clock=ledger.now)
    authority = Authority(ledger.database, issuer, ids=ledger.ids, clock=ledger.now)
    app = create_app(WebSettings(base_url=base), MemoryLedger(), registry(), MemoryRing(), authority=authority)
    if asked_for is not None:
        app.before_request(lambda: asked_for.append(request.path))
    server = make_server("127.0.0.1", port, app, threaded=True)
    with serving(server):
        yield issuer


def asked(issuer: Issuer, *lines: dict[str, Any]) -> list[dict[str, Any]]:
    """What it says to each token and request, or to each request alone."""
    install(PEER)
    command = ["node", "verify-capability.mjs", issuer.url, INVOICES.uri]
    sent = "".join(f"{json.dumps(line)}\n" for line in lines)
    done = subprocess.run(command, cwd=PEER, input=sent, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def example(language: str) -> str:
    """The one block of the page in that language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", page("capabilities.md"), re.DOTALL)
    return str(block)


def test_what_the_page_shows_of_another_language_is_what_is_run() -> None:
    """All but the addresses, which are arguments there."""
    functions = re.compile(r"^(?:async )?function .*?^}", re.DOTALL | re.MULTILINE)
    shown, run = (functions.findall(text) for text in (example("js"), (PEER / "verify-capability.mjs").read_text()))
    assert shown == run
    assert len(shown) == 4
    kept = re.compile(r"^const keys = createRemoteJWKSet\(new URL\(.*\), (\{.*\})\)$", re.MULTILINE)
    assert kept.findall(example("js")) == kept.findall((PEER / "verify-capability.mjs").read_text())


def test_the_hashes_that_the_page_shows_are_ours_and_another_languages(shared_ledger: CapabilityLedger) -> None:
    rows = re.findall(r"^\| `([A-Z]+) (\S+)` \| (.*) \| `([0-9a-f]{64})` \|$", page("capabilities.md"), re.MULTILINE)
    bodies = ["" if body == "none" else body.strip("`") for _, _, body, _ in rows]
    assert [bool(re.search(sign, text)) for sign, text in zip(("inv_7", "", "ü"), bodies, strict=True)] == [
        False,
        True,
        True,
    ]
    wanted = [digest for *_, digest in rows]
    requests = [
        {"method": method, "target": target, "body": body}
        for (method, target, *_), body in zip(rows, bodies, strict=True)
    ]
    assert [request_hash(one["method"], one["target"], one["body"].encode()) for one in requests] == wanted
    with published(shared_ledger) as issuer:
        assert asked(issuer, *({"request": one} for one in requests)) == [{"hash": digest} for digest in wanted]


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
    unlimited = shared_ledger.issue(limit=None)
    longer = replace(given, expires_at=given.issued_at + timedelta(seconds=181))
    _, target, body = PAY
    request = request_of(given)
    with published(shared_ledger) as issuer:
        token, other = (issuer.sign(given, algorithm).reveal() for algorithm in Algorithm)
        head, payload, signature = token.split(".")
        broken = f"{head}.{payload[:-2]}AA.{signature}"
        without_amount = {name: value for name, value in request.items() if name != "amount"}
        cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
            *((one, request, said(given, issuer, one)) for one in (token, other)),
            (issuer.sign(unlimited, Algorithm.ED25519).reveal(), without_amount, {}),
            (issuer.sign(elsewhere, Algorithm.ES256).reveal(), request, refused("ERR_JWT_CLAIM_VALIDATION_FAILED aud")),
            (broken, request, refused("ERR_JWS_SIGNATURE_VERIFICATION_FAILED")),
            (issuer.sign(longer, Algorithm.ED25519).reveal(), request, refused("lifetime")),
            (issuer.sign(unlimited, Algorithm.ED25519).reveal(), request, refused("amount")),
            *(
                (token, {**request, name: value}, refused(why))
                for name, value, why in (
                    ("body", body.decode() + "\n", "request"),
                    ("target", f"{target}?", "request"),
                    ("method", "PUT", "request"),
                    ("tenant", "globex", "tenant"),
                    ("action", "invoices.RefundInvoice", "action"),
                    ("resource", "invoices/inv_70", "resource"),
                    ("amount", "1500.000001", "amount"),
                    ("currency", "USD", "currency"),
                )
            ),
        ]
        answers = asked(issuer, *({"token": each, "request": about} for each, about, _ in cases))
    for number, (answer, (_, about, wanted)) in enumerate(zip(answers, cases, strict=True)):
        assert ("refused" not in answer) if not wanted else answer == wanted, (number, about)


def test_an_independent_library_refuses_what_we_never_sign(shared_ledger: CapabilityLedger) -> None:
    """By our own key."""
    given = shared_ledger.issue()
    request = request_of(given)
    issued_at = int(given.issued_at.timestamp())
    claim = "ERR_JWT_CLAIM_VALIDATION_FAILED {}".format
    with published(shared_ledger) as issuer:
        claims = claims_of(given, issuer=issuer.url)
        sign = partial(signed, shared_ledger)
        without = [
            (sign({name: value for name, value in claims.items() if name != missing}), issued_at, claim(missing))
            for missing in ("iss", "aud", "iat", "nbf", "exp", "jti", "request_sha256")
        ]
        cases = [
            (sign(claims), issued_at, None),
            (sign({**claims, "iss": "https://other.example"}), issued_at, claim("iss")),
            (sign({**claims, "aud": [claims["aud"]]}), issued_at, "audience"),
            (sign({**claims, "authorization_details": claims["authorization_details"] * 2}), issued_at, "details"),
            (sign(claims, typ="JWT"), issued_at, claim("typ")),
            (sign(claims, typ=None), issued_at, claim("typ")),
            *((with_algorithm(sign(claims), alg), issued_at, "ERR_JOSE_ALG_NOT_ALLOWED") for alg in ("EdDSA", "HS256")),
            *without,
            (sign(claims), claims["nbf"] - 5, None),
            (sign(claims), claims["nbf"] - 6, claim("nbf")),
            (sign(claims), claims["exp"] + 4, None),
            (sign(claims), claims["exp"] + 5, "ERR_JWT_EXPIRED exp"),
        ]
        answers = asked(issuer, *({"token": token, "request": request, "at": at} for token, at, _ in cases))
    assert [answer.get("refused") for answer in answers] == [why for *_, why in cases]


def test_an_independent_library_asks_for_our_keys_again_after_five_minutes(shared_ledger: CapabilityLedger) -> None:
    """A withdrawn key is believed no longer."""
    given = shared_ledger.issue()
    began = int(given.issued_at.timestamp())
    paths: list[str] = []
    with published(shared_ledger, paths) as issuer:
        token = issuer.sign(given, Algorithm.ED25519).reveal()
        for later, times in (([0, 299], 1), ([0, 299, 301], 2)):
            paths.clear()
            asked(issuer, *({"token": token, "request": request_of(given), "at": began + one} for one in later))
            assert paths.count("/.well-known/jwks.json") == times


def request_of(given: Capability) -> dict[str, Any]:
    """The request that it was issued for, and what that is about."""
    method, target, body = PAY
    return {
        "method": method,
        "target": target,
        "body": body.decode(),
        "tenant": "acme",
        "action": given.action,
        "resource": given.resource,
        "amount": "1500.00",
        "currency": "EUR",
    }


def said(given: Capability, issuer: Issuer, token: str) -> dict[str, Any]:
    head = json.loads(urlsafe_b64decode(token.split(".", maxsplit=1)[0] + "=="))
    return {"alg": head["alg"], "payload": claims_of(given, issuer=issuer.url)}


def refused(why: str) -> dict[str, Any]:
    return {"refused": why}


def signed(ledger: CapabilityLedger, claims: Mapping[str, Any], *, typ: str | None = TYPE) -> str:
    """Signed by our own key, whatever it says."""
    (pair,) = [key for key in ledger.database.read(keys.load) if key.algorithm is Algorithm.ED25519]
    head = {"alg": str(pair.algorithm), "kid": pair.kid, **({} if typ is None else {"typ": typ})}
    return jws.serialize_compact(head, json.dumps(claims), keys.open_key(ledger.vault, pair), registry=SIGNATURES)


def with_algorithm(token: str, alg: str) -> str:
    """That token, with another algorithm in its header, which has to be refused before its signature is looked at."""
    head, rest = token.split(".", maxsplit=1)
    changed = json.dumps({**json.loads(urlsafe_b64decode(head + "==")), "alg": alg})
    return f"{urlsafe_b64encode(changed.encode()).decode().rstrip('=')}.{rest}"
