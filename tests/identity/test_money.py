"""An amount of money is what can be written: nothing below 0, nothing endless, and no more than can be counted."""

from __future__ import annotations

from decimal import Decimal

import pytest

from identity.errors import BadInput
from identity.money import MOST, Money


@pytest.mark.parametrize(
    "amount",
    ["-5000", "-0.01", "-0", "NaN", "sNaN", "Infinity", "-Infinity", "0.0000001", "1E+15", "1E+999999", "1E-999999999"],
)
def test_what_policy_could_not_compare_or_would_find_below_every_limit_is_no_amount(amount: str) -> None:
    with pytest.raises(BadInput, match="is no amount of money: it is at least 0"):
        Money(amount=Decimal(amount), currency="EUR")


@pytest.mark.parametrize("currency", ["eur", "EURO", "", "E R", "ÉUR", "EUR\n"])
def test_a_currency_is_three_capitals(currency: str) -> None:
    with pytest.raises(BadInput):
        Money(amount=Decimal(1), currency=currency)


@pytest.mark.parametrize(
    ("amount", "written"), [("0", "0 EUR"), ("12.50", "12.50 EUR"), ("1E+3", "1000 EUR"), (str(MOST), f"{MOST} EUR")]
)
def test_what_is_written_is_read_again(amount: str, written: str) -> None:
    money = Money(amount=Decimal(amount), currency="EUR")
    assert str(money) == written
    assert Money.read(written) == money


@pytest.mark.parametrize("written", ["٥٠٠٠ EUR", "５000 EUR", "12.५ EUR"])
def test_an_amount_in_other_digits_than_a_reviewer_reads_is_none(written: str) -> None:
    with pytest.raises(BadInput, match="write it as 5000 EUR"):
        Money.read(written)
