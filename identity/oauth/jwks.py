"""Other people's public keys: a JWK Set (RFC 7517), fetched through the guarded client and kept for a while.

- a key id that is not in the set makes it be fetched anew, at most once a minute: a rotation is seen, a flood is not;
- a token without a key id (RFC 7515 §4.1.4 leaves it out at will) is by the one key of the set that fits its algorithm;
  where several do, by none. Nothing in it tells of a rotation, so the set is no older than a minute for it;
- a set that cannot be fetched anew serves on for a while, which is `stale`: a day where what is verified can only take
  authority away, and an hour where it gives authority, since a key that leaked may have been taken out. Whether a key
  that is not in it is one by now, nobody can say; a set that was never fetched is asked for again after a few seconds,
  not for each token;
- anyone may name a key id, so a host that hangs holds the one thread that asks it, and others for a moment at most;
- keys that are too weak or not for signing are left out.
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
_WEAKEST_RSA = 2048  # bits, as the SSF interoperability profile has it


@dataclass(frozen=True, kw_only=True)
class _Held:
    keys: Sequence[Key]
    fetched: float  # by the monotonic clock
    tried: float


class KeyRing:
    """The key sets of all issuers of one sort. One for all threads; open it after any fork."""

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
        """*fresh*: how long a key set is gone by before it is fetched anew, and *stale* how long where it cannot be."""
        self._http = http
        self._fresh, self._stale, self._pause = fresh.total_seconds(), stale.total_seconds(), pause.total_seconds()
        self._budget = budget
        self._patience = patience.total_seconds()  # with the thread that fetches
        self._monotonic = monotonic
        self._held: dict[str, _Held] = {}
        self._locks: dict[str, Lock] = {}
        self._lock = Lock()

    @classmethod
    def giving_authority(cls, http: Client, *, monotonic: Callable[[], float] = time.monotonic) -> KeyRing:
        """One whose keys let somebody in: a key that was taken out serves on for ten minutes, an hour at the most."""
        return cls(http, fresh=timedelta(minutes=10), stale=timedelta(hours=1), monotonic=monotonic)

    def key(self, url: str, token: Signed) -> Key | None:
        """The key that *token* names, or None: there is none in the set at *url*. Raises KeysAway."""
        held = self._held.get(url)
        if held is None or self._is_due(held, token):
            held = self._renewed(url, token, held)
        if self._monotonic() - held.fetched > self._stale:  # or never
            raise KeysAway(f"the keys at {url} cannot be fetched", retry_after=self._budget)
        found = _named(held.keys, token)
        if found is None and held.tried > held.fetched:
            raise KeysAway(f"the keys at {url} could not be fetched anew", retry_after=timedelta(seconds=self._pause))
        return found

    def _renewed(self, url: str, token: Signed, held: _Held | None) -> _Held:
        """What the one thread that fetches brings; while it is not back, what is *held* of that key."""
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
        finally:  # remembered whatever happens: whoever sends tokens must not make us knock each time
            now = self._monotonic()  # the pause begins when the host has taken its time
            before = held or _Held(keys=(), fetched=-math.inf, tried=now)
            renewed = _Held(keys=keys, fetched=now, tried=now) if keys else replace(before, tried=now)
            self._held[url] = renewed
        return renewed

    def _fetched(self, url: str) -> Sequence[Key]:
        """The usable keys of the set; empty, and why is in the log, where it cannot be had."""
        answer = self._http.send(HttpRequest(method="GET", url=url), within=self._budget, cap=_CAP)
        if isinstance(answer, Answer) and answer.status == 200 and (keys := read_keys(answer.body)):
            return keys
        why = f"status {answer.status}" if isinstance(answer, Answer) else answer.reason
        log.warning("a key set could not be fetched: %s", why, extra={"action": "jwks.unavailable"})
        return ()


def _named(keys: Sequence[Key], token: Signed) -> Key | None:
    """The key that *token* names. Keys of different kinds may share an id (RFC 7517 §4.5)."""
    fitting = [key for key in keys if jose.fits(key, token.algorithm) and token.kid in (None, key.kid)]
    return fitting[-1] if len(fitting) == 1 or (fitting and token.kid is not None) else None


def read_keys(body: bytes) -> Sequence[Key]:
    """The usable keys of a JWK Set; empty for what is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    rows = document.get("keys") if isinstance(document, dict) else None
    found = [_key(row) for row in rows[:100]] if isinstance(rows, list) else []
    return tuple(key for key in found if key is not None)


def _key(row: Any) -> Key | None:
    """One key of a set; one that is private, weak, for encryption or unreadable is none."""
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
    """Whether an RSA modulus is too short: looked at first, since the library warns where it should refuse.

    Read as the library will. Raises ValueError, KeyError or TypeError for what is none.
    """
    return base64_to_int(row["n"]).bit_length() < _WEAKEST_RSA
