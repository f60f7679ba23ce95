"""A confiner for tests whose accounts have no installation to confine."""

from __future__ import annotations

from typing import Any

from identity.minting.confined import Confiner


class NoConfiner(Confiner):
    """Answers as for an account that only its own token acts for."""

    def __init__(self) -> None:
        """It has no store and no minter."""

    def mint_ahead(self, *_: Any, **__: Any) -> None: ...

    def token(self, *_: Any, **__: Any) -> None:
        return None
