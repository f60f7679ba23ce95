"""The console before a browser: a ledger with something of everything, served in this process."""

from __future__ import annotations

import secrets
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from werkzeug.serving import WSGIRequestHandler, make_server

from identity.audit import Act
from identity.console import sessions
from identity.console.sign_in import SignIn
from identity.secret import Secret
from tests.console.console_app import ConsoleApp
from tests.ledgers import open_ledger
from tests.servers.process import free_port


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...


class ConsoleSite:
    """A context in which the console answers at `web`."""

    def __init__(self, ledger: Path, *, port: int | None = None, sign_in: SignIn | None = None) -> None:
        port = port or free_port()
        self.web = f"http://127.0.0.1:{port}"
        self._database = open_ledger(f"sqlite:///{ledger}")
        self.console = ConsoleApp(self._database, base_url=self.web, sign_in=sign_in)
        self.ids = self.console.fill()
        self._server = make_server("127.0.0.1", port, self.console.app, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.console.close()
        self._database.close()

    def link(self) -> str:
        """A link that signs an owner in."""
        token, now = Secret(secrets.token_urlsafe(32)), datetime.now(UTC)
        audit_id = self.console.house.ids("aud")
        self._database.write(lambda c: sessions.make_link(c, token, Act(audit_id=audit_id, by="cli:root", now=now)))
        return f"{self.web}/console/link/{token.reveal()}"
