"""An installation as one command sees it: its settings, and its parts, opened on first use."""

from __future__ import annotations

import os
import pwd
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from deploy import logs
from deploy.environment import name_connections, sudo_user
from deploy.settings import Settings, load
from identity.errors import Misconfigured
from identity.ids import Ids

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from identity.audit import Act
    from identity.http.client import Client
    from identity.keys.signing import Signer
    from identity.keys.vault import Vault
    from pipeline.authoring.registry import Registry
    from pipeline.broker.ring import CeleryRing
    from pipeline.db.database import Database
    from pipeline.model import Bell
    from pipeline.runtime import Runtime
    from pipeline.runtime_settings import Keys

T = TypeVar("T")


class Installation:
    """Settings and lazily opened parts. A context manager that closes whatever was opened."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ids = Ids()
        self.renumbers = False  # True for the command that repairs a sequence behind its rows
        self.note: Callable[[str], None] = lambda line: None  # remarks for the operator beside the answer
        self._close: list[Callable[[], None]] = []

    @classmethod
    def at(cls, **given: object) -> Installation:
        """Return the installation of the given settings and the environment. Raise Misconfigured."""
        settings = load(**given)
        logs.configure("aswhom", format=settings.log_format, level="WARNING")
        name_connections("command")
        return cls(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._close:
            self._close.pop()()

    def now(self) -> datetime:
        return datetime.now(UTC)

    @property
    def operator(self) -> str:
        """Return the operator's name for the audit: the one they claim, or the machine's user."""
        uid = os.getuid()
        if (claimed := self.settings.operator or sudo_user(uid=uid)) is not None:
            return f"cli:{claimed}"
        try:
            return f"cli:{pwd.getpwuid(uid).pw_name}"
        except KeyError:
            return f"cli:{uid}"

    def act(self) -> Act:
        """Return a new act of the operator. Create it before a write, which may run twice."""
        from identity.audit import Act

        return Act(audit_id=self.ids("aud"), by=self.operator, now=self.now())

    @cached_property
    def ledger(self) -> Database:
        """Open the ledger, checking that its tables are this version's and its sequence is ahead of its rows.

        A command that repairs the sequence skips that check. Raise Misconfigured.
        """
        from pipeline.ledger.numbering import behind
        from pipeline.ledger.revision import misfit, revision_of

        if self.settings.data_dir.is_dir():
            self.ledger_file  # noqa: B018 - raises if there is no file, since opening would create an empty one
        database = self.unchecked_ledger
        found = revision_of(database)
        if found is None:
            raise Misconfigured(f"there is no ledger at {self.place}: make it with `aswhom init`")
        if said := misfit(found) or (None if self.renumbers else database.read(behind)):
            raise Misconfigured(said)
        return database

    @cached_property
    def unchecked_ledger(self) -> Database:
        """Open the ledger at whatever version its tables are. Raise Misconfigured."""
        from pipeline.db.database import open_database

        if self.settings.database_url is None and not self.settings.data_dir.is_dir():
            raise Misconfigured(
                f"there is no installation in {self.settings.data_dir}: make one with `aswhom init`, "
                "or say where it is with --data-dir"
            )
        database = open_database(self.settings.database())
        self._close.append(database.close)
        return database

    @property
    def ledger_file(self) -> Path | None:
        """Return the file of an SQLite ledger, which may be damaged, or None. Raise Misconfigured if it is missing."""
        from sqlalchemy import make_url

        if not self.settings.on_sqlite:
            return None
        file = Path(make_url(self.settings.ledger_url()).database or "")
        if not file.is_file():
            says = f"there is no ledger at {file}"
            if self.settings.key_files().missing():
                raise Misconfigured(f"{says}: make it with `aswhom init`, or say with --data-dir where it is")
            # If the ledger was lost, creating a new one under the old keys would only hide that.
            raise Misconfigured(
                f"{says}, but there are keys: restore its backup (docs/operations.md), or say with --data-dir where "
                "it is; only if there never was a ledger, make one with `aswhom init`"
            )
        return file

    @property
    def place(self) -> str:
        """Return the ledger's location without the password."""
        from sqlalchemy import make_url

        url = make_url(self.settings.ledger_url())
        if self.settings.on_sqlite:
            return url.database or ""
        asked = {name: url.query[name] for name in ("host", "hostaddr", "port") if name in url.query}
        return str(url.set(drivername=url.get_backend_name(), username=None, password=None, query=asked))

    @property
    def which(self) -> str:
        """Identify the installation in a question, which could otherwise be answered in the wrong terminal."""
        return f"{self.settings.console_label or self.settings.base_url}, its ledger at {self.place}"

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self.ledger.read(fn)

    def write(self, fn: Callable[[Connection], T], *, ahead: bool = False) -> T:
        return self.ledger.write(fn, ahead=ahead)

    @cached_property
    def http(self) -> Client:
        """Return the guarded HTTP client, for the few commands that contact a provider."""
        from identity.http.client import Client

        client = Client(policy=self.settings.addresses(), pool_size=2, ca_file=self.settings.ca_file)
        self._close.append(client.close)
        return client

    @cached_property
    def keys(self) -> Keys:
        return self.settings.key_files().read()

    @cached_property
    def vault(self) -> Vault:
        from identity.keys.vault import Vault
        from identity.sealed.proven_keys import proves

        return Vault(self.keys.vault, secrets.token_bytes, proves=partial(proves, self.ledger))

    @cached_property
    def signer(self) -> Signer:
        from identity.keys.signing import Signer

        return Signer.from_seed(self.keys.signing)

    @cached_property
    def workflows(self) -> Registry:
        from deploy.process import workflows

        return workflows(self.settings)

    @cached_property
    def runtime(self) -> Runtime:
        """Open all the parts of a process that runs work, for the commands that need them."""
        from deploy.process import open_runtime

        self.ledger  # noqa: B018 - raises if the tables are missing
        runtime = open_runtime(self.settings)
        self._close.append(runtime.close)
        return runtime

    def ring_jobs(self, bells: Sequence[Bell]) -> None:
        """Ring the workers. Best effort: housekeeping rings again."""
        from pipeline.broker.doorbells import Doorbells

        if bells:
            Doorbells(self.ledger, self._ring).jobs(bells)

    def ring_revocations(self, ids: Sequence[str]) -> None:
        """Ring for revocations. Best effort: housekeeping continues them without it."""
        self._ring.revocations(ids)

    @cached_property
    def _ring(self) -> CeleryRing:
        from deploy.process import celery_app
        from pipeline.broker.ring import CeleryRing

        ring = CeleryRing(celery_app(self.settings, self.workflows), tell=self._unheard)
        self._close.append(ring.close)
        return ring

    def _unheard(self, error: BaseException) -> None:
        self.note(
            f"no worker was told, since the broker does not answer ({type(error).__name__}): those that run find out "
            "by themselves, others once they are started"
        )
