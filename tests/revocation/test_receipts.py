"""What is told of a receipt's signature: it counts for its own revocation, as it was told, and as the newest."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from identity.keys.signing import Signer
from identity.keys.trusted_keys import HANDOVER, TrustedKeys
from identity.model import Scope, ScopeKind
from pipeline.revocation import declaration
from pipeline.revocation.receipt import issue, outdate
from pipeline.revocation.receipt_content import ProviderAnswer, ProviderSide
from pipeline.revocation.tables import revocations
from pipeline.revoker.proof import disproof, holds
from tests.ledger.acts import revoke
from tests.ledger.house import House, account_scope
from tests.ledger.revokers import quiet_revoker

SIGNER = Signer.from_seed(b"s" * 32)
KEYS = TrustedKeys(SIGNER.public_key())


def receipted(house: House, scope: Scope | None = None) -> str:
    made = revoke(house, scope or account_scope())
    assert quiet_revoker(house.database, SIGNER).advance(made)
    return made


def issued_again(house: House, made: str) -> None:
    """Its next revision: the provider has answered."""

    def write(c: Connection) -> None:
        done = ProviderSide(answer=ProviderAnswer.DONE)
        issue(c, declaration.load(c, made), SIGNER, lambda _, of: done, now=datetime.now(UTC))

    house.database.write(write)


def row_of(house: House, made: str) -> dict[str, Any]:
    wanted = select(revocations).where(revocations.c.id == made)
    return house.database.read(lambda c: dict(c.execute(wanted).mappings().one()))


def alter(house: House, made: str, **values: object) -> None:
    house.database.write(lambda c: c.execute(update(revocations).where(revocations.c.id == made).values(**values)))


def why(house: House, made: str) -> str | None:
    return house.database.read(partial(disproof, keys=KEYS, row=row_of(house, made)))


def test_a_receipt_holds_in_each_of_its_revisions_while_it_is_the_newest(house: House) -> None:
    made = receipted(house)
    assert why(house, made) is None
    before = row_of(house, made)
    issued_again(house, made)
    assert (row_of(house, made)["revision"], why(house, made)) == (2, None)
    overtaken: str | None = house.database.read(partial(disproof, keys=KEYS, row=before))
    assert overtaken is None  # it was read a moment before


@pytest.mark.parametrize("open_ends", [0, 1])
def test_what_changes_while_a_revision_is_composed_is_not_lost(house: House, open_ends: int) -> None:
    """It is composed in a read, so that a long one holds up nobody's write."""
    made, looks = receipted(house), list[str]()
    alter(house, made, open_ends=open_ends)

    def side(connection: Connection, of: str) -> ProviderSide:
        looks.append(of)
        if len(looks) == 1:
            house.database.write(lambda c: outdate(c, [made]))
        return ProviderSide(answer=ProviderAnswer.DONE)

    assert quiet_revoker(house.database, SIGNER, provider_side=side).advance(made)
    assert looks == [made, made]
    assert [row_of(house, made)[name] for name in ("revision", "open_ends")] == [2, 0]
    assert why(house, made) is None


def test_of_two_who_compose_the_next_revision_one_writes_it(house: House) -> None:
    made, looks = receipted(house), list[str]()

    def side(connection: Connection, of: str) -> ProviderSide:
        looks.append(of)
        if len(looks) == 1:
            issued_again(house, made)
        return ProviderSide(answer=ProviderAnswer.DONE)

    assert quiet_revoker(house.database, SIGNER, provider_side=side).advance(made)
    assert (looks, row_of(house, made)["revision"], why(house, made)) == ([made, made], 2, None)


@pytest.mark.parametrize(
    "column",
    [
        "kind",
        "key",
        "source",
        "signal_id",
        "doubt",
        "requested_by",
        "reason",
        "number",
        "effective_at",
        "quiesced_at",
    ],
)
def test_what_is_told_beside_a_receipt_is_held_against_it(house: House, column: str) -> None:
    made = receipted(house)
    other = {"number": 1, "effective_at": datetime.now(UTC), "quiesced_at": datetime.now(UTC)}
    alter(house, made, **{column: other.get(column, "user")})
    assert "they differ in" in (why(house, made) or "")


def test_a_receipt_proves_nothing_of_another_revocation(house: House) -> None:
    mine, theirs = receipted(house), receipted(house, Scope(kind=ScopeKind.TENANT, key="globex"))
    of_theirs = row_of(house, theirs)
    alter(house, mine, receipt=of_theirs["receipt"], signature=of_theirs["signature"])
    assert "another revocation's" in (why(house, mine) or "")


def test_an_earlier_revision_that_is_put_back_is_found_by_the_audit(house: House) -> None:
    made = receipted(house)
    first = row_of(house, made)
    issued_again(house, made)
    alter(house, made, **{name: first[name] for name in ("receipt", "signature", "revision")})
    assert why(house, made) == "the receipt is not the newest: the audit has revision 2"


def test_a_receipt_that_a_leaked_key_signed_is_not_the_one_whose_digest_is_in_the_audit(house: House) -> None:
    made = receipted(house)
    forged = {**row_of(house, made)["receipt"], "cancelled_count": 0, "in_flight": [{"attempt": "att_1"}]}
    alter(house, made, receipt=forged, signature=SIGNER.sign(forged))
    assert why(house, made) == "the receipt is not the one whose digest is in the audit"


def test_what_the_same_key_signed_for_another_purpose_is_no_receipt() -> None:
    handover = {"says": HANDOVER, "kid": "x", "number": 7}
    assert not holds(KEYS, handover, SIGNER.sign(handover))
