"""Exports of the audit: files that verify anywhere, one after the other, and tell of one tenant if that is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from sqlalchemy import Connection

from identity import audit
from identity.audit import AsWhom, Work
from identity.audit.chain import FirstBad, Verified
from identity.audit.export import Audited, export_lines, verify_files
from identity.audit.links import newest_checkpoint
from identity.audit.sealer import Sealer
from identity.audit.statements import sign
from identity.errors import BadInput
from identity.model import AccessPattern
from tests.identity.audits import DAY, KEYS, SIGNER, kept, prune, seal, write
from tests.identity.world import START, World

Lines = list[bytes]

# Chains and files that are kept elsewhere have records in just these bytes: no later version may write others.
FULL = (
    '{"seq":1,"digest":"f71af63129390a6000e8c87b45ddf9f364fd378e4f7431b3dc3272a68f1404a5","row":{"id":"att_1.opened",'
    '"at":"2026-11-24T12:00:00+00:00","number":7,"kind":"attempt.opened","tenant_id":"acme",'
    '"agent_id":"devops-assistant","principal_id":"acme.anna","pattern":"delegated","on_behalf_of":"acme.bob",'
    '"account_id":"acc_1","generation":3,"job_id":"job_1","step_id":"stp_1","attempt_id":"att_1",'
    '"action":"github.Comment","outcome":"open","reason":"named by the workflow: é",'
    '"detail":{"rules":["a"],"n":1,"none":null,"deep":{"z":true,"a":"é"}}}'
)


@pytest.fixture
def sealed(world: World) -> World:
    """Eight rows in three batches; the fourth and fifth are another tenant's."""
    for day, (batch, tenant) in enumerate((("abc", "acme"), ("de", "globex"), ("fgh", "acme"))):
        seal(world, *batch, tenant=tenant, at=START + day * DAY)
    return world


def export(world: World, *, tenant: str | None = None, after: int = 0) -> Lines:
    return list(export_lines(world.store, tenant=tenant, after=after))


def check(*files: Sequence[bytes], checkpoint: str | None = None) -> Audited:
    from identity.audit.statements import read_checkpoint

    known = read_checkpoint(checkpoint, KEYS) if checkpoint else None
    named = [(f"file-{number}", file) for number, file in enumerate(files, start=1)]
    return verify_files(named, KEYS, checkpoint=known)


def held(*files: Sequence[bytes]) -> Verified:
    outcome = check(*files).outcome
    assert isinstance(outcome, Verified), outcome
    return outcome


def bad(*files: Sequence[bytes], checkpoint: str | None = None) -> FirstBad:
    outcome = check(*files, checkpoint=checkpoint).outcome
    assert isinstance(outcome, FirstBad)
    return outcome


def test_an_export_verifies_by_itself(sealed: World) -> None:
    lines = export(sealed)
    newest = sealed.store.read(newest_checkpoint)
    assert newest is not None
    assert (held(lines).first, held(lines).count, held(lines).head) == (1, 8, newest.digest)
    assert [json.loads(line)["row"]["id"] for line in lines[1:]] == list("abcdefgh")


def test_a_full_record_is_exported_in_these_bytes(world: World) -> None:
    def record(connection: Connection) -> None:
        audit.record(
            connection,
            "attempt.opened",
            AsWhom(
                tenant="acme",
                agent="devops-assistant",
                principal="acme.anna",
                pattern=AccessPattern.DELEGATED,
                on_behalf_of="acme.bob",
                account="acc_1",
                generation=3,
            ),
            Work(job="job_1", step="stp_1", attempt="att_1", action="github.Comment"),
            id="att_1.opened",
            at=START,
            number=7,
            outcome="open",
            reason="named by the workflow: é",
            detail={"rules": ["a"], "n": 1, "none": None, "deep": {"z": True, "a": "é"}},
        )

    world.store.write(record)
    assert Sealer(world.store, SIGNER).seal(now=START) == 1
    line, _, signed = export(world)[1].partition(b',"signed_at":')
    assert signed
    assert line.decode() == FULL


def test_a_tenants_export_verifies_and_tells_nothing_of_others(sealed: World) -> None:
    lines = export(sealed, tenant="globex")
    audited = check(lines)
    assert isinstance(audited.outcome, Verified)
    assert (audited.outcome.count, audited.withheld) == (8, 6)
    assert [json.loads(line)["row"]["id"] for line in lines[1:] if b'"row":' in line] == ["d", "e"]
    assert b"acme" not in b"".join(lines)


@pytest.mark.parametrize("place", range(1, 8))
def test_every_line_that_is_altered_removed_or_swapped_is_named(sealed: World, place: int) -> None:
    lines = export(sealed)
    edited = lines.copy()
    edited[place] = edited[place].replace(b'"anna"', b'"eve"')
    emptied = lines.copy()
    emptied[place] = emptied[place].replace(b'"principal_id":"anna",', b"")
    removed = lines[:place] + lines[place + 1 :]
    swapped = lines.copy()
    swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
    doubled = [*lines[: place + 1], *lines[place:]]
    for altered, first in ((edited, place), (emptied, place), (removed, place), (swapped, place), (doubled, place + 1)):
        assert altered != lines
        found = bad(altered)
        assert found.seq == first
        assert f"file-1, line {first + 1}" in found.why


def test_a_file_cut_within_a_batch_is_found_and_one_cut_behind_it_by_a_checkpoint(sealed: World) -> None:
    lines = export(sealed)
    assert "cut" in bad(lines[:8]).why
    assert held(lines[:6]).count == 5
    assert "cut" in bad(lines[:6], checkpoint=kept(sealed)).why


def test_files_go_on_where_the_one_before_them_ends(sealed: World) -> None:
    first = export(sealed)
    seal(sealed, "i", "j", at=START + 3 * DAY)
    more = export(sealed, after=8)
    assert (held(first, more).count, held(more).first) == (10, 9)
    seal(sealed, "k", at=START + 4 * DAY)
    assert bad(first, export(sealed, after=10)).seq == 9
    why = bad(first, export(sealed, after=10)).why
    assert why.startswith("file-2 goes on behind link 10, and the file before it ends at 8: ")
    assert bad(more, first).seq == 11


def test_an_export_from_before_a_pruning_and_one_from_after_are_one_chain(sealed: World) -> None:
    before = export(sealed)[:6]  # up to the second signature
    assert prune(sealed, days=2) == 5
    after = export(sealed)
    assert (held(after).first, held(after).count) == (6, 3)
    assert (held(before, after).first, held(before, after).count) == (1, 8)
    assert export(sealed, after=5) == after
    with pytest.raises(BadInput, match="begins behind 5"):
        export(sealed, after=3)


def test_a_chain_forged_without_the_key_is_found(sealed: World) -> None:
    from identity.audit.chain import link_digest, row_digest

    lines = export(sealed)
    forged, before = [lines[0]], "0" * 64
    for line in lines[1:]:
        link = json.loads(line)
        link["row"]["principal_id"] = "eve"
        before = link["digest"] = link_digest(before, link["seq"], row_digest(link["row"]))
        forged.append(json.dumps(link).encode())
    assert (bad(forged).seq, bad(forged).proven) == (1, 0)
    other = sign(SIGNER, seq=3, digest="0" * 64, at=START)
    link = json.loads(forged[3]) | {"signature": other.signature}
    assert bad([*forged[:3], json.dumps(link).encode()]).seq == 1


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"{}"],
        [b"not JSON"],
        [b"[1]"],
        [b'{"says":"aswhom-audit-1","seq":0,"digest":"0"}', b'{"seq":"1"}'],
        [b'{"says":"aswhom-audit-1","seq":0,"digest":"0"}', b'{"seq":1,"digest":"0","row":{},"signature":"x"}'],
    ],
)
def test_what_is_no_export_is_told_apart(lines: Lines) -> None:
    with pytest.raises(BadInput, match="file-1"):
        check(lines)


def test_whoever_takes_the_lines_may_take_their_time(world: World) -> None:
    """No transaction waits for the reader, which PostgreSQL would end."""
    write(world, *(f"row-{number}" for number in range(1_100)))
    Sealer(world.store, SIGNER).run(now=START)
    lines, taken = export_lines(world.store), []
    for line in lines:
        taken.append(line)
        assert world.store.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        if len(taken) == 3:
            seal(world, "late")
    assert (len(taken), held(taken).count) == (1_101, 1_100)
    assert held(taken, export(world, after=1_100)).count == 1_101


def test_what_is_pruned_before_it_was_exported_is_told(sealed: World) -> None:
    lines = export_lines(sealed.store)
    next(lines)
    assert prune(sealed, days=1) == 3
    with pytest.raises(BadInput, match="pruned up to 3 while it was read"):
        next(lines)


def test_a_checkpoint_of_before_an_export_is_not_compared_and_that_is_told(sealed: World) -> None:
    early = sign(SIGNER, seq=3, digest="0" * 64, at=START).line()
    for after, compared in ((3, None), (5, False)):
        outcome = check(export(sealed, after=after), checkpoint=early).outcome
        assert getattr(outcome, "compared", None) is compared  # at its beginning, it is found to be another chain's
