"""A secret value whose text is accessible only through `reveal()`."""

from __future__ import annotations

import hashlib
import hmac
from typing import NoReturn, final


@final
class Secret:
    """A token, client secret or key. `str()`, `repr()`, formatting and pickling never show it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not value:
            raise ValueError("a secret must not be empty")
        self._value = value

    def reveal(self) -> str:
        """Return the text: for the wire or the vault, never for a message."""
        return self._value

    def fits_header(self) -> bool:
        """True if it can follow a scheme in a header: ASCII, without white space or control characters.

        That is slightly more than RFC 6750 §2.1 allows a bearer token, because providers do not keep to it.
        """
        return self.is_printable() and " " not in self._value

    def is_printable(self) -> bool:
        """True if it is printable ASCII, as RFC 6749 §A requires of secrets and tokens."""
        return self._value.isascii() and self._value.isprintable()

    def fingerprint(self) -> str:
        """Return the SHA-256 in hex: enough to recognise a secret, not to use it."""
        return hashlib.sha256(self._value.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self.fingerprint())

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: seal it with the vault")
