"""`audit`: who did what as whom, and whether the record is whole."""

from __future__ import annotations

from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.cli.command import PROBLEM, command
from deploy.cli.output import Output
from deploy.installation import Installation
from identity.audit_chain import FirstBad, Sealer, Verified, read_checkpoint, verify
from pipeline.ledger import queries


@click.group()
def audit() -> None:
    """Who did what as whom, in a sealed chain."""


@command(audit, "list")
@click.option("--tenant")
@click.option("--job")
@click.option("--kind", help="step, attempt, account, revocation …, or in full: revocation.effective")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
def list_audit(
    at: Installation, out: Output, tenant: str | None, job: str | None, kind: str | None, limit: int
) -> None:
    """The records, newest first."""
    rows = at.read(lambda c: queries.audit_rows(c, tenant=tenant, job=job, kind=kind, limit=limit))
    columns = (
        "number",
        "at",
        "kind",
        "tenant_id",
        "agent_id",
        "principal_id",
        "pattern",
        "action",
        "outcome",
        "reason",
    )
    out.rows(rows, columns, empty="No such record")


@command(audit, "verify")
@click.option("--checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="One kept elsewhere.")
def verify_chain(at: Installation, out: Output, checkpoint: Path | None) -> int | None:
    """Walk the whole chain, and name the first record that was altered, removed or put in."""
    known = None
    if checkpoint is not None:
        known = read_checkpoint(checkpoint.read_text(encoding="utf-8"), _signing_key(at).public_key())
    match at.read(lambda c: verify(c, at.keys.audit, checkpoint=known)):
        case Verified(count=count, head=head, unsealed=unsealed):
            more = f"; {unsealed} newer one(s) are not sealed yet" if unsealed else ""
            document = {"verified": True, "count": count, "head": head, "unsealed": unsealed}
            out.done(f"the chain holds: {count} record(s){more}", document)
            return None
        case FirstBad(seq=seq, why=why):
            out.done(f"THE CHAIN BREAKS at {seq}: {why}", {"verified": False, "seq": seq, "why": why})
            return PROBLEM


@command(audit)
def checkpoint(at: Installation, out: Output) -> None:
    """Print the chain's length and head, signed: keep it elsewhere, and a chain cut at its end is found."""
    sealer = Sealer(at.ledger, at.keys.audit)
    while sealer.seal(now=at.now()):
        pass
    click.echo(sealer.checkpoint(_signing_key(at), now=at.now()))


def _signing_key(at: Installation) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(at.keys.signing)
