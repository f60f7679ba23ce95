"""A server whose certificate is refused is not merely away: whoever waits for it reads what to mend."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from identity.errors import Unavailable
from tests.ledgers import open_ledger
from tests.servers.tls import self_signed

_SSL_REQUEST = 8  # bytes: https://www.postgresql.org/docs/current/protocol-message-formats.html


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Of what speaks TLS as a PostgreSQL does, with a certificate that nobody vouches for but itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path))

    class Server(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(_SSL_REQUEST, socket.MSG_WAITALL)
            self.request.sendall(b"S")
            with suppress(OSError):
                context.wrap_socket(self.request, server_side=True).close()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_certificate_that_is_refused_is_told_as_such(port: int, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    authority, _ = self_signed(other)
    url = f"postgresql+psycopg://aswhom@127.0.0.1:{port}/aswhom?sslmode=verify-full&sslrootcert={authority}"
    with (
        closing(open_ledger(url)) as database,
        pytest.raises(Unavailable, match=r"certificate verify failed.*sslrootcert.*was not accepted"),
    ):
        database.read(lambda c: c.execute(text("select 1")))


def test_a_server_that_is_away_is_not_said_to_have_a_bad_certificate() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = f"postgresql+psycopg://aswhom@127.0.0.1:{nobody.getsockname()[1]}/aswhom?sslmode=verify-full"
        with closing(open_ledger(url)) as database, pytest.raises(Unavailable, match="no connection") as refused:
            database.read(lambda c: c.execute(text("select 1")))
    assert "was not accepted" not in str(refused.value)
