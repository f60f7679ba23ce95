"""Other people's public keys: a JWK Set (RFC 7517), fetched through the guarded client and kept for a while.

- a key id that is not in the set makes it be fetched anew, at most once a minute: a rotation is seen, a flood is not;
- a set that cannot be fetched anew serves on for a day, since what it verifies can only take authority away; whether a
  key that is not in it is one by now, nobody can say; one that was never fetched is asked for again after a few
  seconds, not for each token;
- anyone may name a key id, so a host that hangs holds the one thread that asks it, and others for a moment at most;
- keys that are too weak or not for signing are left out.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import Lock
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey
from joserfc.util import base64_to_int

from identity.errors import KeysAway
from identity.http import Answer, Client, HttpRequest

log = logging.getLogger(__name__)

Key = RSAKey | ECKey | OKPKey
_KINDS: Mapping[str, type[RSAKey | ECKey | OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_CAP = 1 << 18  # bytes of one set
_WEAKEST_RSA = 2048  # bits, as the SSF interoperability profile has it


@dataclass(frozen=True, kw_only=True)
class _Held:
    keys: Mapping[str, Key]
    fetched: float  # by the monotonic clock
    tried: float


class KeyRing:
    """The key sets of all transmitters. One for all threads; open it after any fork."""

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
        self._http = http
        self._fresh, self._stale, self._pause = fresh.total_seconds(), stale.total_seconds(), pause.total_seconds()
        self._budget = budget
        self._patience = patience.total_seconds()  # with the thread that fetches
        self._monotonic = monotonic
        self._held: dict[str, _Held] = {}
        self._locks: dict[str, Lock] = {}
        self._lock = Lock()

    def key(self, url: str, kid: str) -> KeySet | None:
        """The key of that id alone, or None: there is none in the set at *url*. Raises KeysAway."""
        held = self._held.get(url)
        if held is None or self._is_due(held, kid):
            held = self._renewed(url, kid, held)
        if self._monotonic() - held.fetched > self._stale:  # or never
            raise KeysAway(f"the keys at {url} cannot be fetched", retry_after=self._budget)
        found = held.keys.get(kid)
        if found is None and held.tried > held.fetched:
            raise KeysAway(f"the keys at {url} could not be fetched anew", retry_after=timedelta(seconds=self._pause))
        return None if found is None else KeySet([found])

    def _renewed(self, url: str, kid: str, held: _Held | None) -> _Held:
        """What the one thread that fetches brings; while it is not back, what is *held* of that key."""
        with self._lock:
            one = self._locks.setdefault(url, Lock())
        failed = held is not None and held.tried > held.fetched
        if not one.acquire(timeout=0 if failed else self._patience):
            if held is not None and kid in held.keys:
                return held
            raise KeysAway(f"the keys at {url} are still being fetched", retry_after=self._budget)
        try:
            held = self._held.get(url)
            if held is None or self._is_due(held, kid):
                held = self._renew(url, held)
            return held
        finally:
            one.release()

    def _is_due(self, held: _Held, kid: str) -> bool:
        now = self._monotonic()
        pause = self._pause if held.keys else self._budget.total_seconds()
        return now - held.tried >= pause and (now - held.fetched >= self._fresh or kid not in held.keys)

    def _renew(self, url: str, held: _Held | None) -> _Held:
        keys: Mapping[str, Key] = {}
        try:
            keys = self._fetched(url)
        finally:  # remembered whatever happens: whoever sends tokens must not make us knock each time
            now = self._monotonic()  # the pause begins when the host has taken its time
            before = held or _Held(keys={}, fetched=-math.inf, tried=now)
            renewed = _Held(keys=keys, fetched=now, tried=now) if keys else replace(before, tried=now)
            self._held[url] = renewed
        return renewed

    def _fetched(self, url: str) -> Mapping[str, Key]:
        """The usable keys of the set; empty, and why is in the log, where it cannot be had."""
        answer = self._http.send(HttpRequest(method="GET", url=url), within=self._budget, cap=_CAP)
        if isinstance(answer, Answer) and answer.status == 200 and (keys := read_keys(answer.body)):
            return keys
        why = f"status {answer.status}" if isinstance(answer, Answer) else answer.reason
        log.warning("a key set could not be fetched: %s", why, extra={"action": "jwks.unavailable"})
        return {}


def read_keys(body: bytes) -> Mapping[str, Key]:
    """The usable keys of a JWK Set by their ids; empty for what is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    rows = document.get("keys") if isinstance(document, dict) else None
    found = [_key(row) for row in rows[:100]] if isinstance(rows, list) else []
    return dict(filter(None, found))


def _key(row: Any) -> tuple[str, Key] | None:
    """One key of a set; one that is private, weak, for encryption or unreadable is none."""
    if not isinstance(row, dict) or row.get("use", "sig") != "sig" or "d" in row:
        return None
    kid, kind = row.get("kid"), _KINDS.get(str(row.get("kty")))
    if not isinstance(kid, str) or kind is None:
        return None
    try:
        return None if kind is RSAKey and _is_weak(row) else (kid, kind.import_key(row))
    except (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):  # KeyError: a curve it does not know
        return None


def _is_weak(row: Mapping[str, Any]) -> bool:
    """Whether an RSA modulus is too short: looked at first, since the library warns where it should refuse.

    Read as the library will. Raises ValueError, KeyError or TypeError for what is none.
    """
    return base64_to_int(row["n"]).bit_length() < _WEAKEST_RSA
