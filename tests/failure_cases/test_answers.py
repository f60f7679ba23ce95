"""Cases 9 to 22: what token endpoints answer, and do not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from identity.accounts.grants import REFRESH
from identity.connections.registry import paused_reason
from identity.connections.secrets import CLIENT_SECRET
from identity.errors import Misconfigured, ReauthRequired
from identity.metrics import REFRESHES
from identity.model import AccountState, Leased, NeedsRefresh
from tests.failure_cases.rig import Rig
from tests.ledgers import MOSTLY_SQLITE

pytestmark = MOSTLY_SQLITE

HOUR, IDLE_LIMIT = timedelta(hours=1), timedelta(days=90)


def life(rig: Rig, account: str) -> timedelta | None:
    """How long the stored token is taken to live."""
    grant = rig.grant(account)
    return None if grant.expires_at is None else grant.expires_at - grant.obtained_at


def refreshes(outcome: str) -> float:
    return float(REFRESHES.labels("github", outcome)._value.get())


def needs_a_person(rig: Rig, account: str, *, because: str) -> None:
    """The account says why it waits, nothing more is presented for it, and a new consent makes it whole."""
    presented = len(rig.provider.outcomes())
    found = rig.account(account)
    assert found.state is AccountState.NEEDS_RECONNECT
    assert found.reason is not None
    assert because in found.reason
    for _ in range(3):
        with pytest.raises(ReauthRequired):
            rig.coordinator().refresh(account, after_generation=rig.grant(account).generation)
    assert len(rig.provider.outcomes()) == presented
    assert rig.consent() == account
    assert isinstance(rig.lease(), Leased)
    assert rig.works(account)


def test_case_09_no_lifetime_at_connect(rig: Rig) -> None:
    """A token without a known end is neither expired nor everlasting: it is used as it is, nothing is refreshed at
    connect, and a token that is refused upstream is refreshed then.
    """
    account = rig.consent()
    assert rig.grant(account).expires_at is None
    assert isinstance(rig.lease(), Leased)
    assert rig.provider.outcomes() == []
    assert isinstance(rig.lease(after_generation=1), NeedsRefresh)
    assert rig.coordinator().refresh(account, after_generation=1, refused=True) == 2
    assert isinstance(rig.lease(), Leased)
    assert rig.works(account)


def test_case_10_a_gateway_time_out_after_the_rotation(rig: Rig) -> None:
    """A gateway's 504 leaves the outcome unknown: the intent is on record, the token is not presented again, the
    account says why it needs a person, and the metric and the audit show it.
    """
    account, before = rig.consent(), refreshes("unknown")
    with pytest.raises(ReauthRequired):
        rig.coordinator().refresh(account, after_generation=1)
    (intent,) = rig.intents()
    assert (intent.state, intent.presented) == ("unknown", 1)
    assert (rig.audited("grant.unknown"), refreshes("unknown") - before) == (1, 1)
    assert rig.provider.outcomes() == ["ok"]
    needs_a_person(rig, account, because="504")


def test_case_11_no_replay_inside_the_grace_window(rig: Rig) -> None:
    """If the provider's window was verified and is in its profile, the same token is presented once more inside it,
    counted, and never a third time. No provider's has been verified yet: the 30 s are from a profile of the test's own.
    """
    account = rig.consent()
    assert rig.coordinator(grace=30).refresh(account, after_generation=1) == 2
    (intent,) = rig.intents()
    assert (intent.state, intent.presented) == ("committed", 2)
    assert (rig.provider.outcomes(), rig.provider.most_presented()) == (["ok", "ok"], 2)
    assert rig.works(account)


def test_case_12_an_ambiguous_time_out_and_death_of_idleness(rig: Rig) -> None:
    """Without a verified window a lost answer fails closed: the token was presented once, and a person is needed. A
    grant that nobody uses is refreshed before the provider's idle limit, each time.
    """
    account = rig.consent()
    with pytest.raises(ReauthRequired):
        rig.coordinator().refresh(account, after_generation=1)
    assert rig.provider.outcomes() == ["ok"]
    assert rig.audited("grant.dead") == 0
    needs_a_person(rig, account, because="unknown")  # and connects again: from here on nobody uses it
    keepalive = rig.keepalive(idle_limit=IDLE_LIMIT)
    for _ in range(3):
        keepalive.run()
        ahead = rig.keepalive_due(account) - rig.clock()
        assert 0.5 * IDLE_LIMIT < ahead < 0.9 * IDLE_LIMIT  # well before, and not needlessly often
        generation = rig.grant(account).generation
        rig.wait(ahead - HOUR)
        assert keepalive.run() == 0
        rig.wait(2 * HOUR)
        assert keepalive.run() == 1
        assert rig.grant(account).generation == generation + 1
        assert rig.works(account)
    assert rig.provider.outcomes() == ["ok"] * 4
    rig.wait(IDLE_LIMIT)  # what would have become of it otherwise
    with pytest.raises(ReauthRequired, match="invalid_grant"):
        rig.coordinator().refresh(account, after_generation=rig.grant(account).generation)


def test_case_13_a_refusal_with_status_200(rig: Rig) -> None:
    """The body is read before the status: bad_refresh_token ends the grant, and no part of it becomes a token."""
    account = rig.consent()
    with pytest.raises(ReauthRequired, match="bad_refresh_token"):
        rig.coordinator().refresh(account, after_generation=1)
    assert rig.grant(account).access_sealed is None
    assert rig.audited("grant.dead") == 1
    needs_a_person(rig, account, because="bad_refresh_token")


def test_case_14_a_form_where_json_was_asked_for(rig: Rig) -> None:
    """JSON is asked for, and a form-encoded answer is read as well, unless it may have been cut."""
    account = rig.consent()
    assert rig.coordinator().refresh(account, after_generation=1) == 2
    assert rig.works(account)
    assert life(rig, account) == HOUR


def test_case_15_a_success_without_a_token(rig: Rig) -> None:
    """A success needs a token that is not empty. Without one the provider may have rotated: the outcome is unknown, and
    nothing is overwritten.
    """
    account = rig.consent()
    stored = rig.token(account), rig.token(account, REFRESH)
    with pytest.raises(ReauthRequired):
        rig.coordinator().refresh(account, after_generation=1)
    assert (rig.token(account), rig.token(account, REFRESH)) == stored
    needs_a_person(rig, account, because="without access_token")


def test_case_16_a_rate_limit_is_taken_for_a_dead_grant(rig: Rig) -> None:
    """429 says nothing about the grant, whatever its body says. The current token serves while it lives, Retry-After is
    respected, and then the same refresh token works.
    """
    account = rig.consent()
    rig.age(account)
    for _ in range(3):
        assert rig.coordinator().refresh(account, after_generation=1) == 1
    assert rig.provider.outcomes() == ["not_processed"]
    assert rig.account(account).state is AccountState.ACTIVE
    rig.clock.advance(seconds=31)
    assert rig.coordinator().refresh(account, after_generation=1) == 2
    assert rig.works(account)


def test_case_17_a_rotated_client_secret_wipes_user_tokens(rig: Rig) -> None:
    """invalid_client is the operator's fault: the provider connection pauses with an alarm, no grant is touched, and
    the new client secret resumes everything.
    """
    account = rig.consent()
    with pytest.raises(Misconfigured, match="invalid_client"):
        rig.coordinator().refresh(account, after_generation=1)
    with pytest.raises(Misconfigured, match="paused"):
        rig.coordinator().refresh(account, after_generation=1, refused=True)
    assert rig.provider.outcomes() == ["not_processed"]
    assert (rig.account(account).state, rig.grant(account).generation) == (AccountState.ACTIVE, 1)
    assert isinstance(rig.lease(), Leased)  # what it holds goes on working
    assert rig.database.read(lambda c: paused_reason(c, "gh"))
    rig.add_secret(CLIENT_SECRET, "the new one")
    assert rig.coordinator().refresh(account, after_generation=1) == 2
    assert rig.works(account)


def test_case_18_an_empty_refresh_token_overwrites_the_old_one(rig: Rig) -> None:
    """An empty, null or absent refresh token never overwrites the stored one."""
    account = rig.consent()
    kept = rig.token(account, REFRESH)
    for generation in (1, 2, 3):
        coordinator = rig.coordinator(rotates=False)
        assert coordinator.refresh(account, after_generation=generation) == generation + 1
        assert rig.token(account, REFRESH) == kept
        assert rig.works(account)
    assert rig.provider.outcomes() == ["ok"] * 3


def test_case_19_a_refresh_without_a_lifetime_is_the_last_one(rig: Rig) -> None:
    """The last known lifetime is used, so the token is renewed when that ends. A token that is refused upstream earlier
    is renewed then.
    """
    account = rig.consent()
    assert rig.coordinator().refresh(account, after_generation=1) == 2
    assert life(rig, account) == HOUR
    assert rig.coordinator().refresh(account, after_generation=2, refused=True) == 3
    assert life(rig, account) == HOUR
    rig.clock.advance(minutes=58)
    assert isinstance(rig.lease(), NeedsRefresh)


def test_case_20_a_lifetime_that_cannot_be_read(rig: Rig) -> None:
    """Whatever the lifetime is, the tokens beside it are kept, and they are assumed to expire."""
    account = rig.consent()
    lives = []
    for generation in range(1, 5):
        assert rig.coordinator().refresh(account, after_generation=generation) == generation + 1
        assert rig.works(account)
        lives.append(life(rig, account))
    odd = timedelta(seconds=3600.5)
    assert lives == [odd] * 4  # read once, and the last known one from then on
    assert rig.provider.outcomes() == ["ok"] * 4


def test_case_21_clocks_that_differ(rig: Rig) -> None:
    """Lifetimes count from the start of the request, absolute times are read against the answer's own Date, and a token
    is renewed some time before its end.
    """
    rig.provider.play(21, seconds=0.6)
    account, asked = rig.consent(), rig.clock()
    assert rig.coordinator().refresh(account, after_generation=1) == 2
    answered = rig.clock()
    grant, lived = rig.grant(account), life(rig, account)
    assert lived is not None
    assert asked <= grant.obtained_at <= answered - timedelta(seconds=0.5)  # the answer was late
    assert HOUR - timedelta(minutes=2) < lived <= HOUR
    assert isinstance(rig.lease(), Leased)
    rig.clock.advance(minutes=57)
    assert isinstance(rig.lease(), NeedsRefresh)


def test_case_22_two_rotations_that_end_at_the_same_moment(rig: Rig) -> None:
    """Tokens are ordered by generation, never by their end. A holder of the older token finds the newer one, and
    nothing is presented for that.
    """
    account = rig.consent()
    ends, tokens = [], []
    for generation in (1, 2):
        assert rig.coordinator().refresh(account, after_generation=generation) == generation + 1
        ends.append(rig.grant(account).expires_at)
        tokens.append(rig.token(account))
    assert ends[0] is not None
    assert ends[1] is not None
    assert abs(ends[1] - ends[0]) < timedelta(minutes=1)
    assert [rig.provider.takes(token) for token in tokens] == [False, True]
    assert rig.coordinator().refresh(account, after_generation=2, refused=True) == 3
    assert rig.provider.outcomes() == ["ok", "ok"]
    leased = rig.lease(after_generation=2)
    assert isinstance(leased, Leased)
    assert leased.generation == 3
