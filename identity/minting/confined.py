"""Cache of installation tokens for one repository and one action's permissions, and of refusals.

The confinement limits what a stolen token can reach. A token is minted (`identity.minting.confined_minting`) before a
step opens. It is used only after the step has opened, from this process's memory, and never for another generation of
the account's grant. A revocation stops the openings, and thereby every use.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection

from identity.accounts import leases
from identity.errors import AswhomError
from identity.http.client import NotSent
from identity.minting.confined_minting import ConfinedMinter, Confinement
from identity.model import Leased, LeaseRequest, TokenAnswer
from identity.refresh.situation import Situation, read_situation
from identity.secret import Secret
from identity.sql.store import Store

V = TypeVar("V")

_EXPIRY_MARGIN = timedelta(minutes=2)  # a cached token is not used in this last part of its life
# life beyond that margin that a token needs when a step opens; with less, another is minted first
_AHEAD = timedelta(minutes=1)
_REFUSAL_REMEMBERED = timedelta(minutes=5)


class Confiner:
    """Caches installation tokens for one repository, and has them minted. One for all threads of a process."""

    def __init__(
        self, store: Store, minter: ConfinedMinter, *, clock: Callable[[], datetime], keeps: int = 1_000
    ) -> None:
        """*keeps*: the most tokens, and the most refusals, that are cached; the oldest is evicted first."""
        self._store = store
        self._minter = minter
        self._clock = clock
        self._keeps = keeps
        self._kept: dict[Confinement, TokenAnswer] = {}
        # each with the time until which it is remembered
        self._refused: dict[Confinement, tuple[NotSent, datetime]] = {}
        self._lock = threading.Lock()

    def mint_ahead(self, request: LeaseRequest, *, repository: str, reads: bool) -> None:
        """Mint what `token` will need before a step opens: a failure after that would spend one of its tries.

        *request* is the lease that the step opens with. Raises Unavailable while no token can be had, Misconfigured
        while the provider connection is paused. Lasting refusals are reported after the opening, by it or by `token`. A
        step that could adopt another job's result waits for this as well.

        A step that *reads* does not ask again for a repository that was out of reach a short while ago. Others do,
        because a write fails without it.
        """

        def look(connection: Connection) -> tuple[Confinement, Situation] | None:
            lease = leases.look(connection, request)
            if not isinstance(lease, Leased):  # the opening reports this, or has the account's token renewed first
                return None
            wanted = Confinement(
                account=lease.account, generation=lease.generation, repository=repository, scopes=request.scopes
            )
            if self._cached(wanted, margin=_EXPIRY_MARGIN + _AHEAD) is not None:
                return None
            if reads and (refused := self._refusal(wanted)) is not None and refused.final:
                return None
            return wanted, read_situation(connection, lease.account)

        if (found := self._store.read(look)) is not None:
            wanted, situation = found
            self._mint(situation, wanted, send_before=math.inf)

    def token(self, wanted: Confinement, *, send_before: float) -> Secret | NotSent | None:
        """Return the token; NotSent, with the reason, if there is none; None if only the account's own is possible.

        It was minted ahead, unless it has been evicted since. *send_before* is on the monotonic clock.
        """
        known = self._cached(wanted, margin=_EXPIRY_MARGIN) or self._refusal(wanted)
        if known is not None:
            return known
        try:
            situation = self._store.read(lambda c: read_situation(c, wanted.account))
            return self._mint(situation, wanted, send_before=send_before)
        except AswhomError as error:  # the step is already open: it had no effect, and is tried again
            return NotSent(reason=str(error))

    def _cached(self, wanted: Confinement, *, margin: timedelta) -> Secret | None:
        """Return the cached token, if more than *margin* of its life is left."""
        with self._lock:
            kept = self._kept.get(wanted.folded)
        if kept is None or kept.expires_at is None or self._clock() >= kept.expires_at - margin:
            return None
        return kept.access_token

    def _refusal(self, wanted: Confinement) -> NotSent | None:
        """Return the recent refusal, if there was one."""
        with self._lock:
            refused = self._refused.get(wanted.folded)
        return None if refused is None or self._clock() >= refused[1] else refused[0]

    def _mint(self, situation: Situation, wanted: Confinement, *, send_before: float) -> Secret | NotSent | None:
        """Mint it as `token` does, but raise Unavailable or Misconfigured where the minter does."""
        minted = self._minter.mint(situation, wanted, send_before=send_before)
        if isinstance(minted, NotSent):  # remembered for a while, so that the opened step is told
            self._keep(self._refused, wanted, (minted, self._clock() + _REFUSAL_REMEMBERED))
            return minted
        if minted is None:
            return None
        self._keep(self._kept, wanted, minted)
        with self._lock:
            self._refused.pop(wanted.folded, None)
        return minted.access_token

    def _keep(self, among: dict[Confinement, V], wanted: Confinement, one: V) -> None:
        """Cache *one* as the newest entry, evicting the oldest when full."""
        with self._lock:
            among.pop(wanted.folded, None)
            while len(among) >= self._keeps:
                del among[next(iter(among))]
            among[wanted.folded] = one
