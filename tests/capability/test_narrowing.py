"""Narrowing gives whatever is within the capability, nothing that is beyond it in any one way, and says in which."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.capability.model import DEEPEST, Algorithm, Audience
from identity.capability.narrowing import Narrower, TooWide, narrow
from identity.capability.verifier import Capability, Limit

AT = datetime(2026, 3, 1, tzinfo=UTC)
NEXT = "a" * 64
CENT = Decimal("0.01")
KEPT = ("tenant", "subject", "job", "step", "action", "approved_by")
PARTS = st.lists(st.sampled_from(["lines", "2", "x", "..."]), min_size=1, max_size=3).map("/".join)
NO_PART = ("else", "inv", "inv/70", "inv/7/..", "inv/7//x", "inv/7/../8", "inv/7/%2e%2e", "inv/7/", "")

capabilities = st.builds(
    Capability,
    id=st.just("cap_1"),
    audience=st.just("https://one.example"),
    tenant=st.sampled_from(["acme", "globex"]),
    subject=st.just("acme.ada"),
    actors=st.lists(st.sampled_from(["payer", "zero"]), min_size=1, max_size=DEEPEST - 1).map(tuple),
    job=st.just("job"),
    step=st.just("step"),
    action=st.sampled_from(["pay", "read"]),
    resource=st.just("inv/7"),
    limit=st.builds(Limit, amount=st.decimals(1, 300, places=2), currency=st.sampled_from(["EUR", "USD"])),
    request_sha256=st.just("0" * 64),
    issued_at=st.just(AT),
    expires_at=st.integers(2, 180).map(lambda seconds: AT + timedelta(seconds=seconds)),
    approved_by=st.just(()),
)


def audience(name: str, **other: Any) -> Audience:
    base = Audience(
        id=name, uri=f"https://{name}.example", tenant=None, connection=None, algorithm=Algorithm.ED25519, passes_to=()
    )
    return replace(base, **other)


@st.composite
def asked_within(draw: st.DrawFn, whole: Capability) -> Narrower:
    """What is asked of *whole* and within it: the same, or a part of it, in each way."""
    limit = whole.limit
    assert limit is not None
    part = st.decimals(0, limit.amount, places=2).map(lambda amount: replace(limit, amount=amount))
    return Narrower(
        request_sha256=NEXT,
        action=draw(st.sampled_from([None, whole.action])),
        resource=draw(st.sampled_from([None, whole.resource]) | PARTS.map(lambda below: f"{whole.resource}/{below}")),
        limit=draw(st.sampled_from([None, limit]) | part),
        lifetime=draw(st.none() | st.integers(1, 1000).map(lambda seconds: timedelta(seconds=seconds))),
    )


@st.composite
def cases(draw: st.DrawFn, beyond: TooWide | None) -> tuple[Capability, Narrower, Audience, Audience, datetime]:
    """What is within in every way but the one of *beyond*."""
    whole = draw(capabilities)
    limit = whole.limit
    assert limit is not None
    wanted = draw(asked_within(whole))
    at = AT + timedelta(milliseconds=draw(st.integers(0, int((whole.expires_at - AT).total_seconds()) * 1000 - 1000)))
    by = audience("one", passes_to=("zero", "two"))
    target = audience("two", tenant=draw(st.sampled_from([None, whole.tenant])))
    match beyond:
        case TooWide.TARGET:
            by = replace(by, passes_to=draw(st.sampled_from([(), ("zero",), ("one",)])))
        case TooWide.TENANT:
            target = replace(target, tenant="globex" if whole.tenant == "acme" else "acme")
        case TooWide.APPROVED:
            whole = replace(whole, approved_by=("acme.grace",))
        case TooWide.DEPTH:
            whole = replace(whole, actors=("zero",) * draw(st.integers(DEEPEST, DEEPEST + 2)))
        case TooWide.ACTION:
            wanted = replace(wanted, action="read" if whole.action == "pay" else "pay")
        case TooWide.RESOURCE:
            wanted = replace(wanted, resource=draw(st.sampled_from(NO_PART)))
        case TooWide.AMOUNT:
            more = draw(st.decimals(CENT, 300, places=2))
            amount = draw(st.sampled_from([limit.amount + more, -more]))
            wanted = replace(wanted, limit=replace(limit, amount=amount))
            whole = replace(whole, limit=draw(st.sampled_from([whole.limit, None])))
        case TooWide.CURRENCY:
            other = "EUR" if limit.currency == "USD" else "USD"
            wanted = replace(wanted, limit=replace(wanted.limit or limit, currency=other))
        case TooWide.LIFETIME:
            at = whole.expires_at + timedelta(seconds=draw(st.integers(0, 20)))
    return whole, wanted, by, target, at


@pytest.mark.parametrize("beyond", [None, *TooWide])
def test_exchange_only_ever_narrows(beyond: TooWide | None) -> None:
    narrowed: set[str] = set()

    @given(cases(beyond))
    def holds(case: tuple[Capability, Narrower, Audience, Audience, datetime]) -> None:
        whole, wanted, by, target, at = case
        child = narrow(whole, wanted, by=by, target=target, id="cap_2", now=at)
        if beyond is not None:
            assert child is beyond
            return
        assert isinstance(child, Capability), f"{child}, of what was within"
        check(child, whole, wanted, at)
        narrowed.update(
            name for name in ("resource", "limit", "expires_at") if getattr(child, name) != getattr(whole, name)
        )

    holds()
    assert narrowed == (set() if beyond else {"resource", "limit", "expires_at"}), "else little was shown"


def check(child: Capability, whole: Capability, wanted: Narrower, at: datetime) -> None:
    """It is what was asked for, and no more than there was."""
    assert all(getattr(child, name) == getattr(whole, name) for name in KEPT)
    assert (child.id, child.audience, child.request_sha256) == ("cap_2", "https://two.example", NEXT)
    assert child.actors == ("one", *whole.actors)
    assert len(child.actors) <= DEEPEST
    assert child.resource == (wanted.resource or whole.resource)
    assert child.resource == whole.resource or child.resource.startswith(f"{whole.resource}/")
    assert child.limit == (wanted.limit or whole.limit)
    assert child.limit is not None
    assert whole.limit is not None
    assert 0 <= child.limit.amount <= whole.limit.amount
    assert child.limit.currency == whole.limit.currency
    assert at.replace(microsecond=0) < child.expires_at <= whole.expires_at
    assert wanted.lifetime is None or child.expires_at <= at + wanted.lifetime


def test_of_a_capability_without_a_limit_nothing_is_made_that_has_one() -> None:
    """It moves no amount, so neither does a narrower one, of 0 either."""
    whole = Capability(
        id="cap_1",
        audience="https://one.example",
        tenant="acme",
        subject="acme.ada",
        actors=("payer",),
        job="job",
        step="step",
        action="read",
        resource="inv/7",
        limit=None,
        request_sha256="0" * 64,
        issued_at=AT,
        expires_at=AT + timedelta(seconds=60),
        approved_by=(),
    )
    by, target = audience("one", passes_to=("two",)), audience("two")
    of_nothing = Narrower(request_sha256=NEXT, limit=Limit(amount=Decimal(0), currency="EUR"))
    assert narrow(whole, of_nothing, by=by, target=target, id="cap_2", now=AT) is TooWide.AMOUNT
    child = narrow(whole, Narrower(request_sha256=NEXT), by=by, target=target, id="cap_2", now=AT)
    assert isinstance(child, Capability)
    assert child.limit is None
