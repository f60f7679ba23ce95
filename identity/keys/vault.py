"""AES-256-GCM envelopes: a data key for each record, wrapped by a versioned key-encryption key.

A sealed value is ver|kek id|nonce|wrapped data key|nonce|ciphertext. Its laws:

- a value is bound to its row: under another tenant, record, provider, field or generation it does not open;
- only the wrap holds the key-encryption key's id, so rewrapping leaves the ciphertext as it is;
- the newest key writes; every key that is still in the file reads;
- a key that differs from the ledger's key of its id seals nothing: see `identity.sealed.proven_keys`.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from identity.errors import KeyMissing, Misconfigured
from identity.secret import Secret

_VERSION = 1
_KEY = 32
_NONCE = 12
_TAG = 16
_WRAPPED = _KEY + _TAG
HEAD = 1 + 4  # version, id of the key-encryption key
_LEAST = HEAD + _NONCE + _WRAPPED + _NONCE + _TAG


@dataclass(frozen=True, kw_only=True)
class Binding:
    """The row that a sealed value belongs to; the value opens only under exactly this binding."""

    tenant: str  # "" for the platform
    record: str  # id of the account, provider connection, intent or session
    provider: str
    field: str
    generation: int = 0

    def authenticated(self) -> bytes:
        """Return the associated data. Length-prefixed: with a separator, two different rows could encode alike."""
        parts = (str(_VERSION), self.tenant, self.record, self.provider, self.field, str(self.generation))
        return _prefixed(*(part.encode() for part in parts))

    def __str__(self) -> str:
        return f"{self.field} of {self.record}"


class Vault:
    """Seals secrets for the database and opens them again."""

    def __init__(
        self,
        keys: Mapping[int, bytes],
        random: Callable[[int], bytes],
        *,
        proves: Callable[[Vault], bool] = lambda vault: True,
    ) -> None:
        """*proves* returns whether the newest key is known to be the ledger's; it raises if one of them is not."""
        if not keys:
            raise Misconfigured("the vault has no key: write one with `aswhom keys add`")
        for key_id, key in keys.items():
            if len(key) != _KEY or not 0 < key_id < 2**32:
                raise Misconfigured(f"vault key {key_id} must have {_KEY} bytes and an id from 1 to {2**32 - 1}")
        self._keys = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._newest = max(keys)
        self._random = random
        self._proves = proves
        self._proven: bool | None = None  # None: not checked yet

    def seal(self, secret: Secret, binding: Binding) -> bytes:
        """Seal *secret*, readable only under *binding*. Raises Misconfigured if no other host could read it."""
        if not self._proven:
            self._proven = self._proves(self)
        data_key, nonce = self._random(_KEY), self._random(_NONCE)
        sealed = AESGCM(data_key).encrypt(nonce, secret.reveal().encode(), binding.authenticated())
        return self._wrap(data_key) + nonce + sealed

    def open(self, sealed: bytes, binding: Binding) -> Secret:
        """Return the secret. Raises Misconfigured, naming the record by its id; KeyMissing if its key is missing."""
        if self._proven is None:  # before a token is presented rather than when its answer is to be sealed
            self._proven = self._proves(self)
        data_key = self._unwrap(sealed, str(binding))
        rest = sealed[HEAD + _NONCE + _WRAPPED :]
        try:
            text = AESGCM(data_key).decrypt(rest[:_NONCE], rest[_NONCE:], binding.authenticated())
        except InvalidTag:
            raise Misconfigured(f"the sealed {binding} was altered or belongs to another row") from None
        return Secret(text.decode())

    def rewrap(self, sealed: bytes) -> bytes:
        """Return the sealed value under the newest key; the ciphertext itself does not change."""
        data_key = self._unwrap(sealed, "value")
        return self._wrap(data_key) + sealed[HEAD + _NONCE + _WRAPPED :]

    def check(self, sealed: bytes, name: str) -> None:
        """Raise Misconfigured, or KeyMissing for a missing key, unless one of the keys wraps this named value."""
        self._unwrap(sealed, name)

    def wraps(self, sealed: bytes) -> bool:
        """True if one of the keys wraps the value."""
        try:
            self.check(sealed, "value")
        except Misconfigured:
            return False
        return True

    def heads(self) -> dict[int, bytes]:
        """Return the first bytes of every value that each key wraps, by the key's id."""
        return {key_id: _head(key_id) for key_id in self._keys}

    @property
    def head(self) -> bytes:
        """The first bytes of every value that the newest key wraps."""
        return _head(self._newest)

    def _wrap(self, data_key: bytes) -> bytes:
        head, nonce = _head(self._newest), self._random(_NONCE)
        return head + nonce + self._keys[self._newest].encrypt(nonce, data_key, _prefixed(b"data key", head))

    def _unwrap(self, sealed: bytes, name: str) -> bytes:
        if len(sealed) < _LEAST or sealed[0] != _VERSION:
            raise Misconfigured(f"the sealed {name} is not in this vault's format")
        head = sealed[:HEAD]
        key_id = key_of(sealed)
        key = self._keys.get(key_id)
        if key is None:
            known = ", ".join(map(str, sorted(self._keys)))
            raise KeyMissing(f"the sealed {name} needs vault key {key_id}, and the key file has only: {known}")
        nonce, wrapped = sealed[HEAD : HEAD + _NONCE], sealed[HEAD + _NONCE : HEAD + _NONCE + _WRAPPED]
        try:
            return key.decrypt(nonce, wrapped, _prefixed(b"data key", head))
        except InvalidTag:
            raise Misconfigured(
                f"vault key {key_id} does not open the sealed {name}: the key was replaced, or the row altered"
            ) from None


def read_keys(text: str) -> dict[int, bytes]:
    """Parse a key file: one `id:base64` a line, the highest id the newest. Raises Misconfigured."""
    keys: dict[int, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not (content := line.partition("#")[0].strip()):
            continue
        key_id, _, encoded = content.partition(":")
        if not key_id.isdecimal():
            raise Misconfigured(f"line {number} of the key file is not `id:base64`")
        try:
            key = b64decode(encoded, validate=True)
        except binascii.Error:
            raise Misconfigured(f"line {number} of the key file has no base64 after its id") from None
        if int(key_id) in keys:
            raise Misconfigured(f"line {number} of the key file repeats id {key_id}")
        keys[int(key_id)] = key
    return keys


def new_key_line(key_id: int, random: Callable[[int], bytes]) -> str:
    """Return a line for the key file with a new key."""
    return f"{key_id}:{b64encode(random(_KEY)).decode()}\n"


def key_of(sealed: bytes) -> int:
    """Return the id of the vault key that wraps a sealed value."""
    return int.from_bytes(sealed[1:HEAD], "big")


def _head(key_id: int) -> bytes:
    return bytes([_VERSION]) + key_id.to_bytes(4, "big")


def _prefixed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
