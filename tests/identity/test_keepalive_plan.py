"""When a grant is refreshed ahead of need: pure functions of what is stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from identity.model import Credential
from identity.providers import PROFILES
from identity.refresh.keepalive_plan import IDLE, IN_USE, Tended, place, plan, retry_in
from tests.identity.world import START

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FORGETFUL = replace(PROFILES["github"], idle_limit=90 * DAY)  # min_ttl is ten minutes
GRANT = Tended(
    account="account-1",
    credential=Credential.AUTHORIZATION_CODE,
    renewable=True,
    obtained_at=START,
    expires_at=START + 8 * HOUR,
    used_at=START + HOUR,
)
ACCOUNTS = [f"account-{number}" for number in range(500)]


def test_what_is_in_use_is_refreshed_before_a_step_would_have_to() -> None:
    dues = [plan(replace(GRANT, account=account), FORGETFUL, now=START) for account in ACCOUNTS]
    moments = [due.due for due in dues if due is not None]
    assert len(moments) == 500
    assert max(moments) <= START + 8 * HOUR - FORGETFUL.min_ttl
    assert min(moments) >= START + 6 * HOUR
    assert max(moments) - min(moments) > HOUR  # a herd spreads


def test_a_token_that_nobody_used_earns_no_successor_until_the_idle_limit_asks() -> None:
    for used_at in (None, START - HOUR):
        planned = plan(replace(GRANT, used_at=used_at), FORGETFUL, now=START)
        assert planned is not None
        assert (planned.rank, START + 54 * DAY <= planned.due <= START + 77 * DAY) == (IDLE, True)


def test_close_to_the_idle_limit_it_goes_first() -> None:
    planned = plan(replace(GRANT, used_at=None), FORGETFUL, now=START + 82 * DAY)
    assert planned is not None
    assert planned.rank == IN_USE


@pytest.mark.parametrize(
    "grant",
    [
        replace(GRANT, renewable=False),
        replace(GRANT, credential=Credential.STATIC, renewable=False, expires_at=None),
        replace(GRANT, credential=Credential.INSTALLATION, renewable=False, used_at=None),
    ],
    ids=["no refresh token", "a static key", "a minted token that is not in use"],
)
def test_what_cannot_be_renewed_or_need_not_is_left_alone(grant: Tended) -> None:
    assert plan(grant, FORGETFUL, now=START + 80 * DAY) is None


def test_a_provider_that_forgets_nothing_is_not_asked_for_idle_grants() -> None:
    assert plan(replace(GRANT, used_at=None), replace(FORGETFUL, idle_limit=None), now=START + 900 * DAY) is None


def test_a_minted_token_in_use_is_minted_ahead() -> None:
    minted = replace(GRANT, credential=Credential.INSTALLATION, renewable=False, expires_at=START + HOUR)
    planned = plan(minted, FORGETFUL, now=START)
    assert planned is not None
    assert START + timedelta(minutes=30) <= planned.due <= START + timedelta(minutes=50)


def test_tokens_that_live_for_seconds_are_not_chased() -> None:
    planned = plan(replace(GRANT, expires_at=START + timedelta(seconds=2)), FORGETFUL, now=START)
    assert planned is not None
    assert planned.due >= START + timedelta(minutes=1)


def test_every_host_finds_the_same_moment() -> None:
    assert place("account-1") == place("account-1") != place("account-2")
    assert all(0 <= place(account) < 1 for account in ACCOUNTS)


def test_failures_wait_longer_each_time_up_to_a_limit_and_as_long_as_was_asked() -> None:
    pauses = [retry_in("account-1", failures=failures, asked=timedelta(0)) for failures in range(1, 40)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= timedelta(minutes=1)
    assert pauses[-1] <= timedelta(hours=1.5)
    assert retry_in("account-1", failures=1, asked=5 * HOUR) >= 5 * HOUR
