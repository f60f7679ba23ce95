"""An amount of money in one currency, exact."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from identity.errors import BadInput

_WRITTEN = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ([A-Z]{3})")


@dataclass(frozen=True, kw_only=True)
class Money:
    """*currency* is an ISO 4217 code; *amount* is in its main unit, 12.50 and not 1250."""

    amount: Decimal
    currency: str

    @classmethod
    def read(cls, text: str) -> Money:
        """`5000.00 EUR`. Raises BadInput."""
        written = _WRITTEN.fullmatch(text)
        if written is None:
            raise BadInput(f"{text!r} is no amount of money: write it as 5000 EUR or 12.50 USD")
        return cls(amount=Decimal(written[1]), currency=written[2])

    def exceeds(self, limit: Money) -> bool:
        """Whether it is more than *limit*; another currency cannot be compared, and so is more."""
        return self.currency != limit.currency or self.amount > limit.amount

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"
