"""Installation tokens for one repository and one action's permissions: which are kept, and whose refusals.

A stolen token reaches no further than that. It is minted (`identity.minting.confined_minting`) before a step opens and
used only after the step has opened, from this process's memory, and never for another generation of the account's
grant: a revocation ends the openings, and with them every use.
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

_EXPIRY_MARGIN = timedelta(minutes=2)  # the end of a cached token's life, in which it is not used
_AHEAD = timedelta(minutes=1)  # more than that is left of it when a step opens, or another is minted before
_REFUSAL_REMEMBERED = timedelta(minutes=5)  # how long a refusal is remembered


class Confiner:
    """Keeps installation tokens for one repository, and has them minted. One for all threads of a process."""

    def __init__(
        self, store: Store, minter: ConfinedMinter, *, clock: Callable[[], datetime], keeps: int = 1_000
    ) -> None:
        """*keeps* tokens at most, and refusals: for one more, the oldest is asked for again when it is wanted."""
        self._store = store
        self._minter = minter
        self._clock = clock
        self._keeps = keeps
        self._kept: dict[Confinement, TokenAnswer] = {}
        self._refused: dict[Confinement, tuple[NotSent, datetime]] = {}  # and until when that is remembered
        self._lock = threading.Lock()

    def mint_ahead(self, request: LeaseRequest, *, repository: str, reads: bool) -> None:
        """Before a step opens, mint what `token` will be asked for: afterwards a failure would spend one of its tries.

        *request* is the lease that the step opens with. Raises Unavailable while there is no token to be had,
        Misconfigured while the provider connection is paused. What no waiting mends is said after the opening: by it,
        or by `token`. The result of another job's step that could be adopted waits for this as well.

        A step that *reads* asks for nothing that was out of reach a short while ago. Others do: a write fails of it.
        """

        def look(connection: Connection) -> tuple[Confinement, Situation] | None:
            lease = leases.look(connection, request)
            if not isinstance(lease, Leased):  # the opening says so, or has the account's token renewed first
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
        """The token; NotSent: there is none now, and why; None: the account's own is all there can be.

        It was minted ahead, unless it had to give way since. *send_before* is on the monotonic clock.
        """
        known = self._cached(wanted, margin=_EXPIRY_MARGIN) or self._refusal(wanted)
        if known is not None:
            return known
        try:
            situation = self._store.read(lambda c: read_situation(c, wanted.account))
            return self._mint(situation, wanted, send_before=send_before)
        except AswhomError as error:  # the step is open already: it had no effect, and is tried again
            return NotSent(reason=str(error))

    def _cached(self, wanted: Confinement, *, margin: timedelta) -> Secret | None:
        """The token that was minted for it before, if more than *margin* is left of its life."""
        with self._lock:
            kept = self._kept.get(wanted.folded)
        if kept is None or kept.expires_at is None or self._clock() >= kept.expires_at - margin:
            return None
        return kept.access_token

    def _refusal(self, wanted: Confinement) -> NotSent | None:
        """What was said when it was refused, if that was a short while ago."""
        with self._lock:
            refused = self._refused.get(wanted.folded)
        return None if refused is None or self._clock() >= refused[1] else refused[0]

    def _mint(self, situation: Situation, wanted: Confinement, *, send_before: float) -> Secret | NotSent | None:
        """As `token`, but raises Unavailable or Misconfigured where the minter does."""
        minted = self._minter.mint(situation, wanted, send_before=send_before)
        if isinstance(minted, NotSent):  # remembered for a while: the step that opens is told of it
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
