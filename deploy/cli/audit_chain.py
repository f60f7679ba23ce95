"""`audit verify` and `audit checkpoint`: whether the record is intact."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click

from deploy.cli.audit import audit
from deploy.cli.command import PROBLEM, command, new_file_option
from deploy.cli.output import Bar, Output
from deploy.cli.public_key import key_option, public_keys
from deploy.installation import Installation
from deploy.new_file import refuse_unwritable, whole
from identity.audit.chain import FirstBad, Verified
from identity.audit.export import Audited, verify_files
from identity.audit.links import links_behind, newest_checkpoint
from identity.audit.sealer import Sealer
from identity.audit.statements import (
    Head,
    WholeVerification,
    read_checkpoint,
    read_verification,
    sign_verification,
)
from identity.audit.verification import verify
from identity.errors import BadInput
from identity.keys.trusted_keys import TrustedKeys

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_TOLD_AT_ONCE = 256 * 1024  # bytes


@command(audit, "verify")
@click.argument("files", nargs=-1, type=_FILE)
@key_option
@click.option("--checkpoint", type=_FILE, help="A checkpoint that was kept elsewhere.")
@click.option(
    "--statement",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a signed statement to this new file if the whole chain in the ledger verifies.",
)
@click.option("--since", type=_FILE, help="Verify only what the ledger has after this earlier --statement file.")
def verify_chain(
    at: Installation,
    out: Output,
    files: tuple[Path, ...],
    key: Path | None,
    checkpoint: Path | None,
    statement: Path | None,
    since: Path | None,
) -> int | None:
    """Verify the chain, and name the first record that was altered, removed or inserted.

    FILES are consecutive exports. With FILES and --key nothing else is needed: no ledger, network or secret.

    --since does not find records that were altered before its statement: verify the whole chain from time to time.
    """
    if files and (statement or since):
        raise click.UsageError("--statement and --since apply to the ledger's own chain: do not also give FILES.")
    if statement and since:
        raise click.UsageError("--statement needs the whole chain verified: do not also give --since.")
    if statement:
        refuse_unwritable(statement)  # before hours of work
    keys = public_keys(at, key)
    known = None if checkpoint is None else read_checkpoint_file(checkpoint, keys)
    verified = None if since is None else read_verification(_text(since, "a statement"), keys)
    audited = _of_files(out, files, keys, known) if files else _of_ledger(at, out, keys, known, verified)
    match audited.outcome:
        case Verified() as held:
            stated = statement
            if statement is not None and held.compared:
                stated = _state(at, out, held, statement)
            _tell(out, held, withheld=audited.withheld, since=verified, statement=stated)
            return None if held.compared and stated == statement else PROBLEM
        case FirstBad(seq=seq, why=why, proven=proven):
            told = f"THE CHAIN BREAKS at {seq}: {why}. Signatures prove what comes before {proven + 1}."
            out.done(told, {"verified": False, "seq": seq, "why": why, "proven": proven})
            return PROBLEM


@command(audit)
@new_file_option
def checkpoint(at: Installation, out: Output, output: Path | None) -> None:
    """Print the chain's length and head, signed. A copy kept elsewhere reveals a chain that was cut at its end."""
    sealer = Sealer(at.ledger, at.signer)
    with out.count("sealing") as tell:
        while sealed := sealer.seal(now=at.now()):
            tell("records", sealed)
    head = at.read(newest_checkpoint)
    if head is None:
        raise BadInput("nothing is sealed yet: there is no record")
    if output is None:
        click.echo(head.line())
        return
    with whole(output, at.ids("part")) as part:
        part.write_text(f"{head.line()}\n", encoding="utf-8")
    out.done(f"the checkpoint at {head.seq} is in {output}", {"file": str(output), "seq": head.seq})


def read_checkpoint_file(file: Path, keys: TrustedKeys) -> Head:
    """Return the checkpoint stored in a file. Raise BadInput if it is malformed or its signature does not verify."""
    return read_checkpoint(_text(file, "a checkpoint"), keys)


def _text(file: Path, what: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read as {what}: it is not a text in UTF-8") from error


def _state(at: Installation, out: Output, held: Verified, file: Path) -> Path | None:
    """Write the signed statement that the whole chain verified. Return None, with a note, if that is impossible."""
    last, number = held.first + held.count - 1, held.accounted
    if number is None:
        raise AssertionError("what was not walked as a whole is not stated")
    said = sign_verification(at.signer, seq=last, digest=held.head, number=number, at=at.now())
    try:
        with whole(file, at.ids("part")) as part:
            part.write_text(f"{said.line()}\n", encoding="utf-8")
    except BadInput as fault:  # the result of the walk is told all the same
        out.note(str(fault))
        return None
    return file


def _of_files(out: Output, files: tuple[Path, ...], keys: TrustedKeys, checkpoint: Head | None) -> Audited:
    with ExitStack() as opened:
        bar = opened.enter_context(out.progress(sum(file.stat().st_size for file in files), what="verifying"))
        lines = [(file.name, _watched(opened.enter_context(file.open("rb")), bar)) for file in files]
        return verify_files(lines, keys, checkpoint=checkpoint)


def _of_ledger(
    at: Installation, out: Output, keys: TrustedKeys, checkpoint: Head | None, since: WholeVerification | None
) -> Audited:
    behind = at.read(partial(links_behind, after=0 if since is None else since.seq))
    with out.progress(behind, what="verifying") as bar:
        walked = verify(at.ledger, keys, checkpoint=checkpoint, since=since, progress=bar.update)
    return Audited(outcome=walked, withheld=0)


def _watched(lines: Iterable[bytes], bar: Bar) -> Iterator[bytes]:
    """Yield the lines unchanged, and report their bytes to *bar* in batches of some hundred lines."""
    told = 0
    for line in lines:
        told += len(line)
        if told >= _TOLD_AT_ONCE:
            bar.update(told)
            told = 0
        yield line
    bar.update(told)


def _tell(
    out: Output, held: Verified, *, withheld: int, since: WholeVerification | None, statement: Path | None
) -> None:
    more = f"; {held.unsealed} newer one(s) are not sealed yet" if held.unsealed else ""
    # None also if its records were pruned, and the whole chain was walked.
    after = since if since is not None and held.accounted is None else None
    if after is not None:
        more += f"; records before {held.first} were verified at {after.at.isoformat()}, not now"
    elif held.first > 1:
        more += f"; it begins at {held.first}"
    if not held.compared:
        more += "; THE CHECKPOINT IS OLDER THAN THESE RECORDS AND WAS NOT COMPARED: keep newer ones"
    if statement is not None:
        more += f"; {statement} says so, for --since" if held.compared else f"; {statement} was not written"
    if withheld:
        more += f"; {withheld} record(s) were exported as digests only"
    document = {"verified": True, "first": held.first, "count": held.count, "head": held.head}
    document |= {"signed_at": held.signed_at, "unsealed": held.unsealed, "withheld": withheld}
    document |= {"compared": held.compared, "whole": after is None}
    out.done(f"the chain holds: {held.count} record(s){more}", document)
