"""An exact amount of money in one currency."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from identity.errors import BadInput

_WRITTEN = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ([A-Z]{3})")


@dataclass(frozen=True, kw_only=True)
class Money:
    """An amount in the currency's main unit (12.50, not 1250); *currency* is an ISO 4217 code.

    It is never negative: a negative amount would be within every limit, however much money it moved.
    """

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        """Raise BadInput for an amount or currency that cannot be written."""
        # Check the size first: the text of an amount like 1E+999999 or 1E-999999 would be huge.
        if not self._is_written_shortly() or _WRITTEN.fullmatch(str(self)) is None:
            raise BadInput(
                f"{self.amount} {self.currency} is no amount of money: it is at least 0, has up to 15 digits before "
                "the point and 6 behind it, and a currency of three capitals. What flows back is a positive amount too"
            )

    def _is_written_shortly(self) -> bool:
        exponent = self.amount.as_tuple().exponent
        return isinstance(exponent, int) and exponent >= -6 and self.amount.adjusted() < 15

    @classmethod
    def read(cls, text: str) -> Money:
        """Parse an amount such as `5000.00 EUR`. Raises BadInput."""
        written = _WRITTEN.fullmatch(text)
        if written is None:
            raise BadInput(f"{text!r} is no amount of money: write it as 5000 EUR or 12.50 USD")
        return cls(amount=Decimal(written[1]), currency=written[2])

    def exceeds(self, limit: Money) -> bool:
        """True if it is more than *limit*, or in another currency, which cannot be compared."""
        return self.currency != limit.currency or self.amount > limit.amount

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"


#: The largest amount in any currency.
MOST = Decimal("999999999999999.999999")
