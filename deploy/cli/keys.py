"""`keys`: the installation's own keys."""

from __future__ import annotations

from collections import Counter
from functools import partial

import click

from deploy.cli.command import YES, command, confirm
from deploy.cli.output import Output
from deploy.cli.public_key import public_keys
from deploy.installation import Installation
from identity.audit.handovers import hand_over
from identity.errors import BadInput
from identity.keys.signing import Signer
from identity.keys.trusted_keys import key_id
from identity.sealed.proven_keys import prove
from identity.sealed.rewrap import Field, in_use
from identity.sealed.rewrap import rewrap as rewrap_all


@click.group()
def keys() -> None:
    """The installation's own keys."""


@command(keys, "list")
def list_keys(at: Installation, out: Output) -> None:
    """List the vault's keys, and how many stored secrets each of them wraps."""
    ring, wraps = at.keys.vault, _wraps(at)
    rows = [
        {"id": number, "seals": number == max(ring), "opens": number in ring, "secrets": wraps[number]}
        for number in sorted({*ring, *wraps})
    ]
    out.rows(rows, ("id", "seals", "opens", "secrets"), empty="No key")
    for row in rows:
        if not row["opens"]:
            out.note(f"{row['secrets']} secrets need key {row['id']}, which is not there: restore it from a copy")


@command(keys)
def add(at: Installation, out: Output) -> None:
    """Add a vault key. Restart every process to use it: it seals from then on, and earlier keys still open."""
    files = at.settings.key_files()
    number = files.add_vault_key()
    out.done(
        f"vault key {number} is in {files.vault}. Copy it elsewhere, restart everything, then `aswhom keys rewrap`",
        {"id": number, "file": str(files.vault)},
    )


@command(keys)
def rewrap(at: Installation, out: Output) -> None:
    """Rewrap every stored secret under the newest vault key, skipping those that already are."""
    at.read(partial(prove, vault=at.vault))
    newest, done = max(at.keys.vault), Counter[str]()
    behind = sum(number for key, number in _wraps(at).items() if key != newest)
    with out.progress(behind, what="rewrapping") as bar:

        def tell(field: Field, moved: int) -> None:
            done[str(field)] += moved
            bar.update(moved)

        total = rewrap_all(at.ledger, at.vault, progress=tell)
    left = sum(number for key, number in _wraps(at).items() if key != newest)
    out.done(
        f"{total} secrets were moved under vault key {newest}"
        + (
            f"; {left} were sealed under another one meanwhile: restart all processes, then run this again"
            if left
            else ""
        ),
        {"key": newest, "moved": total, "left": left, "fields": dict(done)},
    )


@command(keys)
@click.argument("id", type=int)
@click.option("--yes", is_flag=True, help="Confirm that every process was restarted since that key stopped sealing.")
def retire(at: Installation, out: Output, id: int, yes: bool) -> None:
    """Remove a vault key that nothing needs any more."""
    if needed := _wraps(at)[id]:
        raise BadInput(f"{needed} stored secrets need vault key {id}: move them with `aswhom keys rewrap` first")
    confirm(f"A process that was not restarted since key {id} stopped sealing still seals with it. Retire it?", yes=yes)
    beside = at.settings.key_files().retire_vault_key(id)
    out.done(
        f"vault key {id} is out of the ring, and in {beside}: backups from before may need it. "
        "Delete it there when no backup does",
        {"id": id, "file": str(beside)},
    )


@command(keys)
def public(at: Installation, out: Output) -> None:
    """Print the public key that verifies receipts and checkpoints, and its signed handovers from earlier keys."""
    pem = at.signer.public_pem()
    handovers = [handover.line() for handover in public_keys(at, None).handovers]
    out.done("\n".join([pem.rstrip(), *handovers]), {"public_key": pem, "handovers": handovers})


@command(keys)
@YES
def rotate_signing(at: Installation, out: Output, yes: bool) -> None:
    """Sign receipts and the audit with a new key from now on. Everything signed before still verifies.

    If it is interrupted, run it again to finish.
    """
    confirm("Connect and approval links that were given out stop working. Rotate the signing key?", yes=yes)
    files, act = at.settings.key_files(), at.act()
    signer = Signer.from_seed(files.next_signing_key())
    at.write(lambda c: hand_over(c, at.signer, signer, act))
    files.adopt_signing_key()
    kid = key_id(signer.public_key())
    out.done(
        f"key {kid} signs from now on. Copy {files.signing} to every host, restart everything, "
        "and give out `aswhom keys public` anew",
        {"kid": kid, "file": str(files.signing)},
    )


def _wraps(at: Installation) -> Counter[int]:
    """Return the number of stored secrets each key wraps."""
    return sum(at.read(in_use).values(), Counter[int]())
