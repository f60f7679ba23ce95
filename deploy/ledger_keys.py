"""Guards that key files and ledger belong together: new keys only for a new ledger, and no foreign keys."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deploy.keys import KeyFiles
from deploy.settings import Settings
from identity.errors import Misconfigured

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pipeline.db.database import Database

T = TypeVar("T")


def is_unmade(settings: Settings) -> bool:
    """True if an SQLite ledger has no file yet. Opening it would create one."""
    return settings.on_sqlite and not Path(settings.ledger_url().removeprefix("sqlite:///")).exists()


def refuse_new_keys(settings: Settings, files: KeyFiles, missing: Collection[Path]) -> None:
    """Raise Misconfigured if the ledger depends on one of the *missing* key files."""
    from identity.sealed.proven_keys import held

    if is_unmade(settings):
        return
    sealed, links = _read(settings, held)
    faults = []
    if files.vault in missing and sealed:
        number = "1 secret" if sealed == 1 else f"{sealed} secrets"
        faults.append(f"there is no {files.vault}, and the ledger has {number} that only the keys of that file open")
    if files.signing in missing and links:
        faults.append(f"there is no {files.signing}, and the ledger has a chain of {links} audit rows signed by it")
    if faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        raise Misconfigured(
            f"no new keys are made over a ledger that has others:{listed}\n"
            "Copy the files from a host that has them, or restore them from the backup, with mode 0600"
        )


def tell_of_new_ledger(settings: Settings, made: Collection[Path], say: Callable[[str], None]) -> None:
    """Warn when an empty ledger is about to be created under existing keys, that is, none *made* just now."""
    from pipeline.ledger.revision import revision_of

    files = settings.key_files()
    if files.missing() or files.vault in made or files.signing in made:
        return
    if is_unmade(settings) or _with(settings, revision_of) is None:
        say(
            "there are keys but no ledger, so a new, empty one is created. If a ledger was lost, remove the new one "
            "and restore the backup (docs/operations.md)"
        )


def prove_keys(settings: Settings) -> None:
    """Raise Misconfigured if the vault's keys are not the ledger's, at whatever version its tables are."""
    from identity.keys.vault import Vault
    from identity.sealed.proven_keys import kept_there, prove

    vault = Vault(settings.key_files().read().vault, secrets.token_bytes)
    _read(settings, lambda connection: prove(connection, vault, fields=kept_there(connection)))


def _read(settings: Settings, fn: Callable[[Connection], T]) -> T:
    return _with(settings, lambda database: database.read(fn))


def _with(settings: Settings, fn: Callable[[Database], T]) -> T:
    from pipeline.db.database import open_database

    with closing(open_database(settings.database())) as database:
        return fn(database)
