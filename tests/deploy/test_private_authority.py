"""A provider whose certificate only an authority of one's own vouches for: ASWHOM_CA_FILE."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.process import open_runtime
from deploy.settings import load
from identity.errors import Misconfigured
from identity.http.client import Answer, HttpRequest
from tests.deploy.conftest import Cli
from tests.identity.published_providers import server
from tests.servers.tls import tls_before

CLIENT = ("--client-id", "c", "--client-secret-file", "-")


@pytest.fixture
def certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Of an issuer that speaks TLS at ASWHOM_BASE_URL."""
    monkeypatch.setenv("ASWHOM_ALLOW_HOSTS", "127.0.0.1")
    with server() as playing, tls_before(urlsplit(playing.url).port or 0, tmp_path) as (port, certificate):
        url = f"https://127.0.0.1:{port}"
        addresses = {"authorization_endpoint": f"{url}/auth", "token_endpoint": f"{url}/token"}
        playing.say(200, {"issuer": url, **addresses, "token_endpoint_auth_methods_supported": ["client_secret_post"]})
        monkeypatch.setenv("ASWHOM_BASE_URL", url)
        yield certificate


def test_an_authority_of_ones_own_is_trusted_where_it_is_named(
    cli: Cli, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = load().base_url
    add = ("connections", "add", "oidc", "--issuer", issuer, *CLIENT)
    refused = cli.json(*add, input="hunter2\n", code=1)
    assert "CERTIFICATE_VERIFY_FAILED" in refused["message"]
    given = ("connections", "add", "oauth2", "--api-url", issuer, "--token-url", f"{issuer}/token", *CLIENT)
    cli.json(*given, input="hunter2\n")
    looked_at = cli("doctor").output
    assert "CERTIFICATE_VERIFY_FAILED" in looked_at
    assert "ASWHOM_CA_FILE" in looked_at
    monkeypatch.setenv("ASWHOM_CA_FILE", str(certificate))
    cli.json(*add, input="hunter2\n")
    assert cli.json("connections", "show", "oidc")["token_url"] == f"{issuer}/token"
    looked_at = cli("doctor").output
    assert "CERTIFICATE_VERIFY_FAILED" not in looked_at
    assert f"ready at {issuer}" in looked_at


def test_what_runs_work_trusts_it_too(cli: Cli, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASWHOM_CA_FILE", str(certificate))
    runtime = open_runtime(load(data_dir=cli.data_dir))
    try:
        answer = runtime.http.send(HttpRequest(method="GET", url=load().base_url), within=timedelta(seconds=5))
    finally:
        runtime.close()
    assert isinstance(answer, Answer)


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read: No such file"), ("nonsense", "no certificate in PEM"), ("", "no certificate in PEM")],
)
def test_a_file_of_authorities_that_cannot_be_used_is_told_at_the_start(
    tmp_path: Path, content: str | None, why: str
) -> None:
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Misconfigured, match=f"ASWHOM_CA_FILE: .*{why}"):
        load(ca_file=path)
