"""Export of the audit as JSON Lines, which anybody can verify with only the public keys.

The first line says what the chain in the file follows: `{"says": …, "seq": …, "digest": …, "tenant": …}`. Every other
line is a link: `{"seq": …, "digest": …, "row": {…}}`. A row of another tenant than the file's is replaced by its
`row_digest`, so that the chain holds and reveals nothing. A signed link also has `signed_at` and `signature`; the last
line is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, select

from identity.audit.chain import FirstBad, Link, Start, Verified, row_digest, walk
from identity.audit.links import Progress, last_seq, newest_pruning, sealed_rows_between, unwatched
from identity.audit.statements import Head
from identity.audit.tables import audit_seals
from identity.errors import BadInput
from identity.keys.trusted_keys import TrustedKeys
from identity.sql.store import Store

FORMAT = "aswhom-audit-1"
_NEVER_REACHED = 1 << 53  # no ledger number gets here


@dataclass(frozen=True, kw_only=True)
class Audited:
    """The result of a walk through files."""

    outcome: Verified | FirstBad
    withheld: int  # links whose rows are not in the files


def export_lines(
    store: Store, *, tenant: str | None = None, after: int = 0, progress: Progress = unwatched
) -> Iterator[bytes]:
    """Yield the sealed rows after *after*; rows of other tenants than *tenant* only as digests.

    *progress* is called for each thousand. Each thousand is a read of its own, so the consumer may be slow; rows sealed
    meanwhile are left to the next export. Raises BadInput if a chain cannot begin at *after*, or the next rows were
    pruned meanwhile.
    """
    start, end = store.read(lambda c: (_start(c, after), last_seq(c)))
    yield _line({"says": FORMAT, "seq": start.seq, "digest": start.digest, "tenant": tenant})
    for link, row in sealed_rows_between(store, after=start.seq, end=end, progress=progress):
        yield _link_line(link, row, tenant)


def _link_line(link: Link, row: Mapping[str, Any] | None, tenant: str | None) -> bytes:
    told: dict[str, Any] = {"seq": link.seq, "digest": link.digest}
    if row is not None and tenant in (None, row["tenant_id"]):
        told["row"] = row
    else:
        told["row_digest"] = link.row_digest
    if link.signed is not None:
        told |= {"signed_at": link.signed.at, "signature": link.signed.signature}
    return _line(told)


def newest_number(name: str, lines: Iterable[bytes]) -> int:
    """Return the greatest ledger number among the rows of an export, unverified; 0 if it has none.

    Raises BadInput if it is not an export.
    """
    reading = _Reading([(name, lines)])
    reading.begin()
    return max(reading.numbers(), default=0)


def last_link(name: str, lines: Iterable[bytes]) -> int:
    """Return the chain number at which an export ends, unverified. Raises BadInput if it does not end as one."""
    last = b""
    for line in lines:
        last = line
    try:
        return int(orjson.loads(last)["seq"])
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{name} does not end as an export does: take it out of the folder") from error


def verify_files(
    files: Iterable[tuple[str, Iterable[bytes]]], keys: TrustedKeys, *, checkpoint: Head | None = None
) -> Audited:
    """Walk the chain through *files*, pairs of name and lines, each of which continues where the previous one ends.

    Raises BadInput if one is not an export.
    """
    reading = _Reading(files)
    start = reading.begin()
    outcome = walk(reading.links(start), keys, start=start, checkpoint=checkpoint)
    if isinstance(outcome, FirstBad) and reading.last_line:
        outcome = replace(outcome, why=reading.gap or f"{outcome.why} ({reading.last_line})")
    return Audited(outcome=outcome, withheld=reading.withheld)


class _Reading:
    """A reader of several files as one chain, which knows its position in them."""

    def __init__(self, files: Iterable[tuple[str, Iterable[bytes]]]) -> None:
        self._files = iter(files)
        self._lines: Iterator[tuple[str, bytes]] = iter(())
        self.withheld = 0
        self.last_line = ""
        self.gap = ""  # the likelier explanation than forgery where a file does not continue the previous one

    def begin(self) -> Start:
        first = self._open_next()
        if first is None:
            raise BadInput("there is no file to verify")
        return first

    def links(self, start: Start) -> Iterator[Link]:
        here: Start | None = start
        end = start
        while here is not None:
            if here != end:
                # Rows missing between two files are reported like any missing link.
                self.gap = (
                    f"{self.last_line.rpartition(', line')[0]} goes on behind link {here.seq}, and the file before it "
                    f"ends at {end.seq}: an export between them is left out, they are in another order, `--after` "
                    "was another number, or the ledger was restored between them, with which a new series begins"
                )
                yield Link(here.seq, "between the two files", here.digest, None, None)
            for where, line in self._lines:
                self.last_line = where
                link = self._link(line)
                end = Start(seq=link.seq, digest=link.digest)
                yield link
            here = self._open_next()

    def numbers(self) -> Iterator[int]:
        """Yield the ledger numbers of the rows in the current file."""
        for where, line in self._lines:
            self.last_line = where
            match self._document(line):
                case {"row": {"number": int(number)}} if number < _NEVER_REACHED:
                    yield number
                case {"row": _}:
                    raise BadInput(f"{where}: a row without a ledger number")

    def _open_next(self) -> Start | None:
        name, lines = next(self._files, (None, ()))
        if name is None:
            return None
        self._lines = ((f"{name}, line {number}", line) for number, line in enumerate(lines, start=1))
        self.last_line, first = next(self._lines, (f"{name}, line 1", b""))
        match self._document(first):
            case {"says": said, "seq": int(seq), "digest": str(digest)} if said == FORMAT:
                return Start(seq=seq, digest=digest)
        raise BadInput(f"{name} is not an export of the audit: `aswhom audit export` writes one")

    def _link(self, line: bytes) -> Link:
        document = self._document(line)
        match document:
            case {"seq": int(seq), "digest": str(digest), "row": dict(row)}:
                named, rowed = str(row.get("id")), row_digest(row)
            case {"seq": int(seq), "digest": str(digest), "row_digest": str(rowed)}:
                named = "that is withheld"
                self.withheld += 1
            case {"seq": int(seq), "digest": str(digest), "row_digest": None}:
                return Link(seq, "that was not there to export", digest, None, None)
            case _:
                raise BadInput(f"{self.last_line}: this is not a link of the audit's chain")
        return Link(seq, named, digest, rowed, self._head(document, seq, digest))

    def _head(self, document: dict[str, Any], seq: int, digest: str) -> Head | None:
        signature = document.get("signature")
        if signature is None:
            return None
        try:
            at = datetime.fromisoformat(document["signed_at"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{self.last_line}: a signature without the time it was made at") from error
        return Head(seq=seq, digest=digest, at=at, signature=str(signature))

    def _document(self, line: bytes) -> dict[str, Any]:
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadInput(f"{self.last_line}: this is not JSON") from error
        if not isinstance(document, dict):
            raise BadInput(f"{self.last_line}: this is not a JSON object")
        return document


def _start(connection: Connection, after: int) -> Start:
    pruned = newest_pruning(connection)
    if after == 0:
        return Start() if pruned is None else Start(seq=pruned.seq, digest=pruned.digest)
    if pruned is not None and pruned.seq == after:
        return Start(seq=after, digest=pruned.digest)
    known = select(audit_seals.c.digest).where(audit_seals.c.seq == after)
    digest = connection.execute(known).scalar_one_or_none()
    if digest is None:
        begins = f"it begins behind {pruned.seq}" if pruned else "see `aswhom audit checkpoint`"
        raise BadInput(f"the chain has no link {after}: {begins}")
    return Start(seq=after, digest=digest)


def _line(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
