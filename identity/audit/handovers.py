"""Handovers of the installation's signing key in the ledger: written at each rotation and kept for ever."""

from __future__ import annotations

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, insert, select, text

from identity import audit
from identity.audit import Act, AsWhom
from identity.audit.links import newest_pruning, signed_end
from identity.audit.tables import signing_handovers
from identity.errors import Misconfigured
from identity.keys.signing import Signer
from identity.keys.trusted_keys import Handover, TrustedKeys, decoded, encoded, key_id
from identity.sql.prepared import Prepared
from identity.sql.sequence import next_number

_NEWEST = Prepared(select(signing_handovers.c.kid).order_by(signing_handovers.c.number.desc()).limit(1))


def trusted_keys(connection: Connection, key: Ed25519PublicKey) -> TrustedKeys:
    """Return what an installation whose key is *key* trusts."""
    rows = connection.execute(select(signing_handovers)).mappings()
    return TrustedKeys(key, [Handover(**row) for row in rows])


def key_ids(connection: Connection, key: Ed25519PublicKey) -> list[str]:
    """Return the ids of the installation's signing keys, present and former: *key*, and those of all rotations."""
    handovers = connection.execute(select(signing_handovers.c.kid, signing_handovers.c.former)).all()
    formers = (key_id(decoded(row.former)) for row in handovers)
    return list(dict.fromkeys([key_id(key), *(row.kid for row in handovers), *formers]))


def newest_kid(connection: Connection) -> str | None:
    """Return the id of the signing key, as the ledger knows it; None if it was never rotated."""
    kid: str | None = _NEWEST.run(connection).scalar_one_or_none()
    return kid


def hold_signing(connection: Connection, signer: Signer) -> None:
    """Prevent rotations until the transaction ends. Call it before reading what is then signed.

    A document signed just before this call may still be written after it: if no other key has followed by now, none had
    then. Raises Misconfigured if *signer* is no longer the installation's.
    """
    if connection.dialect.name == "postgresql":  # SQLite has one writer
        connection.execute(text("lock table signing_handovers in share mode"))
    newest = newest_kid(connection)
    if newest is not None and newest != key_id(signer.public_key()):
        raise Misconfigured(
            f"the signing key was rotated: give this host the file of key {newest} (keys/signing), and restart"
        )


def hand_over(connection: Connection, former: Signer, signer: Signer, act: Act) -> bool:
    """Let *signer* succeed *former* as the installation's signer; False if it already has.

    Raises Misconfigured if *former* is not the present key, or the end of the audit's chain is not signed, since the
    handover would vouch for it.
    """
    if connection.dialect.name == "postgresql":
        # Wait for a seal, a pruning or a receipt in progress, and let none begin.
        connection.execute(text("lock table signing_handovers in exclusive mode"))
    kid = key_id(signer.public_key())
    if newest_kid(connection) == kid:
        return False
    hold_signing(connection, former)
    last = signed_end(connection, trusted_keys(connection, former.public_key()))
    pruned, number = newest_pruning(connection), next_number(connection)
    unsigned = Handover(
        kid=kid,
        former=encoded(former.public_key()),
        seq=last.seq,
        digest=last.digest,
        pruned=0 if pruned is None else pruned.seq,
        number=number,
        at=act.now,
        signature="",
    )
    handover = replace(unsigned, signature=signer.sign(unsigned.document()))
    connection.execute(insert(signing_handovers), vars(handover))
    detail = {"kid": kid, "former": key_id(former.public_key()), "seq": last.seq}
    whom = AsWhom(tenant=None)
    audit.record_act(connection, "signing_key.rotated", whom, act, number=number, outcome="rotated", detail=detail)
    return True
