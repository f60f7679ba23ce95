"""`keys`: the installation's own keys."""

from __future__ import annotations

import click

from deploy.cli.command import command
from deploy.cli.output import Output
from deploy.installation import Installation


@click.group()
def keys() -> None:
    """The installation's own keys."""


@command(keys)
def new(at: Installation, out: Output) -> None:
    """Add a vault key: it seals from now on, and the earlier ones still open. Restart the processes to use it."""
    files = at.settings.key_files()
    number = files.add_vault_key()
    out.done(
        f"vault key {number} is in {files.vault}. Keep a copy elsewhere, then restart `aswhom up`",
        {"id": number, "file": str(files.vault)},
    )


@command(keys)
def public(at: Installation, out: Output) -> None:
    """Print the public key that receipts and checkpoints are checked with."""
    pem = at.signer.public_pem()
    out.done(pem.rstrip(), {"public_key": pem})
