"""Other parties' public keys: JWK Sets (RFC 7517), fetched through the guarded client and cached.

- An unknown key id triggers a refetch, at most once a minute: rotations are noticed, and floods are absorbed.
- A token without a key id (optional by RFC 7515 §4.1.4) is verified with the one key that fits its algorithm; if
  several fit, with none. Such a token cannot reveal a rotation, so the set it is checked against is at most a minute
  old.
- A set that cannot be refetched serves on until `stale`: a day where verification can only take authority away, an hour
  where it gives authority, since a leaked key may have been removed. Meanwhile nobody can say whether an unknown key is
  valid by now. A set that was never fetched is requested again after a few seconds, not for each token.
- Anyone may name a key id, so a host that hangs holds only the one thread that fetches, and others for a moment at
  most.
- Keys that are too weak or not for signing are left out.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import Lock
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.util import base64_to_int

from identity.errors import KeysAway
from identity.http.client import Answer, Client, HttpRequest
from identity.oauth import jose
from identity.oauth.jose import Key, Signed

log = logging.getLogger(__name__)

_CAP = 1 << 18  # bytes of one set
_WEAKEST_RSA = 2048  # bits, as in the SSF interoperability profile


@dataclass(frozen=True, kw_only=True)
class _Held:
    keys: Sequence[Key]
    fetched: float  # on the monotonic clock
    tried: float


class KeyRing:
    """A cache of the key sets of all issuers of one sort. One for all threads; open it after any fork."""

    def __init__(
        self,
        http: Client,
        *,
        fresh: timedelta = timedelta(hours=1),
        stale: timedelta = timedelta(days=1),
        pause: timedelta = timedelta(minutes=1),
        budget: timedelta = timedelta(seconds=5),
        patience: timedelta = timedelta(seconds=1),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*fresh*: the age at which a key set is refetched; *stale*: its greatest age if that fails."""
        self._http = http
        self._fresh, self._stale, self._pause = fresh.total_seconds(), stale.total_seconds(), pause.total_seconds()
        self._budget = budget
        self._patience = patience.total_seconds()  # how long others wait for the thread that fetches
        self._monotonic = monotonic
        self._held: dict[str, _Held] = {}
        self._locks: dict[str, Lock] = {}
        self._lock = Lock()

    @classmethod
    def giving_authority(cls, http: Client, *, monotonic: Callable[[], float] = time.monotonic) -> KeyRing:
        """Return a ring for keys that let somebody in: a removed key serves for ten minutes more, an hour at most."""
        return cls(http, fresh=timedelta(minutes=10), stale=timedelta(hours=1), monotonic=monotonic)

    def key(self, url: str, token: Signed) -> Key | None:
        """Return the key that *token* names; None if the set at *url* has none. Raises KeysAway."""
        held = self._held.get(url)
        if held is None or self._is_due(held, token):
            held = self._renewed(url, token, held)
        if self._monotonic() - held.fetched > self._stale:  # or it was never fetched
            raise KeysAway(f"the keys at {url} cannot be fetched", retry_after=self._budget)
        found = _named(held.keys, token)
        if found is None and held.tried > held.fetched:
            raise KeysAway(f"the keys at {url} could not be fetched anew", retry_after=timedelta(seconds=self._pause))
        return found

    def _renewed(self, url: str, token: Signed, held: _Held | None) -> _Held:
        """Let one thread fetch the set. While it is out, return *held* if it has that key, or raise KeysAway."""
        with self._lock:
            one = self._locks.setdefault(url, Lock())
        failed = held is not None and held.tried > held.fetched
        if not one.acquire(timeout=0 if failed else self._patience):
            if held is not None and _named(held.keys, token) is not None:
                return held
            raise KeysAway(f"the keys at {url} are still being fetched", retry_after=self._budget)
        try:
            held = self._held.get(url)
            if held is None or self._is_due(held, token):
                held = self._renew(url, held)
            return held
        finally:
            one.release()

    def _is_due(self, held: _Held, token: Signed) -> bool:
        now = self._monotonic()
        pause = self._pause if held.keys else self._budget.total_seconds()
        fresh = self._pause if token.kid is None else self._fresh
        return now - held.tried >= pause and (now - held.fetched >= fresh or _named(held.keys, token) is None)

    def _renew(self, url: str, held: _Held | None) -> _Held:
        keys: Sequence[Key] = ()
        try:
            keys = self._fetched(url)
        finally:  # record the attempt whatever happens, so that incoming tokens do not trigger one each
            now = self._monotonic()  # the pause begins when the host has answered
            before = held or _Held(keys=(), fetched=-math.inf, tried=now)
            renewed = _Held(keys=keys, fetched=now, tried=now) if keys else replace(before, tried=now)
            self._held[url] = renewed
        return renewed

    def _fetched(self, url: str) -> Sequence[Key]:
        """Return the usable keys of the set; empty, with the reason in the log, if it cannot be fetched."""
        answer = self._http.send(HttpRequest(method="GET", url=url), within=self._budget, cap=_CAP)
        if isinstance(answer, Answer) and answer.status == 200 and (keys := read_keys(answer.body)):
            return keys
        why = f"status {answer.status}" if isinstance(answer, Answer) else answer.reason
        log.warning("a key set could not be fetched: %s", why, extra={"action": "jwks.unavailable"})
        return ()


def _named(keys: Sequence[Key], token: Signed) -> Key | None:
    """Return the key that *token* names. Keys of different kinds may share an id (RFC 7517 §4.5)."""
    fitting = [key for key in keys if jose.fits(key, token.algorithm) and token.kid in (None, key.kid)]
    return fitting[-1] if len(fitting) == 1 or (fitting and token.kid is not None) else None


def read_keys(body: bytes) -> Sequence[Key]:
    """Return the usable keys of a JWK Set; empty if it is not one."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    rows = document.get("keys") if isinstance(document, dict) else None
    found = [_key(row) for row in rows[:100]] if isinstance(rows, list) else []
    return tuple(key for key in found if key is not None)


def _key(row: Any) -> Key | None:
    """Return one key of a set; None if it is private, weak, for encryption or unreadable."""
    if not isinstance(row, dict) or row.get("use", "sig") != "sig" or "d" in row:
        return None
    operations = row.get("key_ops")
    if not isinstance(row.get("kid"), str | None) or (isinstance(operations, list) and "verify" not in operations):
        return None
    try:
        return None if row.get("kty") == "RSA" and _is_weak(row) else jose.public_key(row)
    except (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):  # KeyError: a curve it does not know
        return None


def _is_weak(row: Mapping[str, Any]) -> bool:
    """True if an RSA modulus is too short. Checked before import, because the library only warns.

    Decoded as the library does. Raises ValueError, KeyError or TypeError for an invalid one.
    """
    return base64_to_int(row["n"]).bit_length() < _WEAKEST_RSA
