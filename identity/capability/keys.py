"""Signing keys of capabilities, sealed in the ledger and thereby shared by every process of every host.

A key's state follows from the times in its row and its successor's. A rotation proceeds without any action, and a
process that slept reads the current state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from joserfc.jwk import ECKey, OKPKey
from sqlalchemy import Connection, Row, func, insert, select, update

from identity.capability.model import Algorithm
from identity.capability.tables import keys as table
from identity.capability.verifier import LONGEST, Key
from identity.errors import BadInput
from identity.keys.vault import Binding, Vault
from identity.secret import Secret

AHEAD = timedelta(minutes=10)  # from publication to first use: longer than verifiers cache a key set
# From last use to withdrawal from the key set: all it signed has expired, with a minute for clock skew.
BEHIND = LONGEST + timedelta(seconds=60)


class KeyState(StrEnum):
    """The use of a key at a moment."""

    NEXT = "next"  # published, not used yet
    SIGNING = "signing"
    KEPT = "kept"  # published until all it signed has expired
    GONE = "gone"
    WITHDRAWN = "withdrawn"


# Whether a key may be added depends also on those that other transactions are adding, which no row lock covers.
_LOCK = select(func.pg_advisory_xact_lock(func.hashtext("aswhom capability keys")))

PUBLISHED = frozenset({KeyState.NEXT, KeyState.SIGNING, KeyState.KEPT})


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """One key's row, with the private half sealed."""

    kid: str
    algorithm: Algorithm
    public: Mapping[str, str]
    sealed: bytes
    use_from: datetime
    withdrawn_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A new key pair, made before the transaction that stores it, which may run more than once."""

    kid: str
    algorithm: Algorithm
    public: Mapping[str, str]
    sealed: bytes

    @classmethod
    def make(cls, algorithm: Algorithm, vault: Vault) -> Self:
        """Make a key pair with its RFC 7638 thumbprint as id, never one that looks like a command-line option."""
        pair = OKPKey.generate_key("Ed25519") if algorithm is Algorithm.ED25519 else ECKey.generate_key("P-256")
        kid = pair.thumbprint()
        if kid.startswith("-"):
            return cls.make(algorithm, vault)
        public = {**pair.as_dict(private=False), "kid": kid, "alg": str(algorithm), "use": "sig"}
        sealed = vault.seal(Secret(json.dumps(pair.as_dict(private=True))), _binding(kid))
        return cls(
            kid=kid, algorithm=algorithm, public={name: str(part) for name, part in public.items()}, sealed=sealed
        )


def open_key(vault: Vault, key: SigningKey) -> Key:
    """Unseal the private key. Raises Misconfigured."""
    pair: dict[str, Any] = json.loads(vault.open(key.sealed, _binding(key.kid)).reveal())
    return OKPKey.import_key(pair) if key.algorithm is Algorithm.ED25519 else ECKey.import_key(pair)


def states(keys: Iterable[SigningKey], now: datetime) -> dict[str, KeyState]:
    """Return the state of each key at *now*, by id."""
    found: dict[str, KeyState] = {}
    successors: dict[Algorithm, SigningKey] = {}
    for key in sorted(keys, key=lambda one: one.use_from, reverse=True):
        found[key.kid] = _state(key, successors.get(key.algorithm), now)
        # A key that has signed replaces its predecessors even if withdrawn later; one withdrawn before use does not.
        if key.withdrawn_at is None or key.use_from <= key.withdrawn_at:
            successors[key.algorithm] = key
    return found


def _state(key: SigningKey, successor: SigningKey | None, now: datetime) -> KeyState:
    if key.withdrawn_at is not None:
        return KeyState.WITHDRAWN
    if now < key.use_from:
        return KeyState.NEXT
    if successor is None or now < successor.use_from:
        return KeyState.SIGNING
    return KeyState.KEPT if now < successor.use_from + BEHIND else KeyState.GONE


def load(connection: Connection) -> list[SigningKey]:
    """Return every key ever made, oldest first."""
    return [_key(row) for row in connection.execute(select(table).order_by(table.c.use_from, table.c.kid))]


def _load_locked(connection: Connection) -> list[SigningKey]:
    """Return every key, oldest first. No other transaction adds or withdraws one until this one ends."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer
        connection.execute(_LOCK)  # a statement of its own: the snapshot of the read must not precede the wait
    return load(connection)


def ensure(connection: Connection, new: NewKey, *, now: datetime) -> None:
    """Store *new*, signing at once, if its algorithm has no key: no verifier can have cached another one."""
    if not any(key.algorithm is new.algorithm and key.withdrawn_at is None for key in _load_locked(connection)):
        _insert(connection, new, use_from=now, now=now)


def rotate(connection: Connection, new: NewKey, *, now: datetime) -> datetime:
    """Publish *new* and return when it begins to sign. Raises BadInput while another one is waiting to."""
    known = _load_locked(connection)
    told = states(known, now)
    waiting = [key for key in known if key.algorithm is new.algorithm and told[key.kid] is KeyState.NEXT]
    if waiting:
        raise BadInput(f"key {waiting[0].kid} is published already and signs from {waiting[0].use_from:%H:%M:%S} on")
    # An algorithm's first key has no predecessor to overlap with.
    follows = any(key.algorithm is new.algorithm and key.withdrawn_at is None for key in known)
    use_from = now + AHEAD if follows else now
    _insert(connection, new, use_from=use_from, now=now)
    return use_from


def withdraw(connection: Connection, kid: str, new: NewKey, *, now: datetime) -> bool:
    """Stop accepting and publishing a key at once. True if it was signing and *new* replaced it.

    Its tokens are refused wherever the key set is refetched. Raises BadInput for an unknown key.
    """
    known = _load_locked(connection)
    told = states(known, now)
    if told.get(kid, KeyState.WITHDRAWN) is KeyState.WITHDRAWN:
        raise BadInput(f"there is no key {kid} to withdraw: `aswhom capability keys list` shows them")
    connection.execute(update(table).where(table.c.kid == kid).values(withdrawn_at=now))
    if told[kid] is not KeyState.SIGNING:
        return False
    _insert(connection, new, use_from=now, now=now)
    return True


def algorithm_of(connection: Connection, kid: str) -> Algorithm:
    """Return a key's algorithm. Raises BadInput for an unknown key."""
    found = connection.execute(select(table.c.algorithm).where(table.c.kid == kid)).scalar_one_or_none()
    if found is None:
        raise BadInput(f"there is no key {kid}: `aswhom capability keys list` shows them")
    return Algorithm(found)


def _insert(connection: Connection, new: NewKey, *, use_from: datetime, now: datetime) -> None:
    row = {
        "kid": new.kid,
        "algorithm": new.algorithm,
        "public": dict(new.public),
        "private_sealed": new.sealed,
        "use_from": use_from,
        "created_at": now,
    }
    connection.execute(insert(table), row)


def _binding(kid: str) -> Binding:
    return Binding(tenant="", record=kid, provider="", field="capability_key")


def _key(row: Row[Any]) -> SigningKey:
    return SigningKey(
        kid=row.kid,
        algorithm=Algorithm(row.algorithm),
        public=row.public,
        sealed=row.private_sealed,
        use_from=row.use_from,
        withdrawn_at=row.withdrawn_at,
    )
