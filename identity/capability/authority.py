"""The authority behind the HTTP endpoints: keys, token exchange and introspection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from identity.capability import audiences
from identity.capability.introspection import Introspection
from identity.capability.issuer import Issuer
from identity.capability.model import Audience
from identity.capability.narrowing import Narrower
from identity.capability.token_exchange import Exchanged, NotExchanged, TokenExchange
from identity.secret import Secret
from identity.sql.store import Store


class Authority:
    """Answers audiences; one instance serves all threads. All but `key_set` may raise Unavailable."""

    def __init__(
        self, store: Store, issuer: Issuer, *, ids: Callable[[str], str], clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._clock = clock
        self._issuer = issuer
        self._introspection = Introspection(store=store, issuer=issuer, ids=ids, clock=clock)
        self._exchange = TokenExchange(store=store, issuer=issuer, ids=ids, clock=clock)

    def key_set(self) -> Mapping[str, Any]:
        """The JWK Set to publish."""
        return self._issuer.key_set()

    def audience(self, id: str, secret: Secret) -> Audience | None:
        """Return the audience that authenticates as *id* with this secret, or None."""
        return self._store.read(partial(audiences.authenticate, id=id, secret=secret, now=self._clock()))

    def introspect(self, token: Secret, by: Audience, *, request_sha256: str | None) -> Mapping[str, Any]:
        """Return the document of RFC 7662 §2.2. This spends the token."""
        return self._introspection.answer(token, by, request_sha256=request_sha256)

    def exchange(self, token: Secret, by: Audience, *, target: str, asked: Narrower) -> Exchanged | NotExchanged:
        """Exchange *token* for a narrower one for another audience (RFC 8693)."""
        return self._exchange.exchange(token, by, target=target, asked=asked)
