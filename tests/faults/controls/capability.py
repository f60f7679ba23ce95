"""What each guard of a capability is for: without it, the test that watches it fails."""

from __future__ import annotations

from tests.faults.control import Control

SPENDING, SPENDS = "identity/capability/spending.py", "tests/capability/test_spending.py"
VERIFIER, VERIFIES = "identity/capability/verifier.py", "tests/capability/test_verifier.py"
OPENINGS, OPENS = "pipeline/ledger/openings.py", "tests/capability/test_openings.py"

CONTROLS = (
    Control(
        name="a revocation reaches what was not spent",
        file=SPENDING,
        guard="if ruled_out is not None:",
        without="if False:",
        test=f"{SPENDS}::test_a_revocation_reaches_a_token_that_was_not_spent and tenant",
    ),
    Control(
        name="one spend",
        file=SPENDING,
        guard=".where(_ALIVE, capabilities.c.spent_sha256.is_(None), capabilities.c.expires_at > database_now())",
        without=".where(_ALIVE, capabilities.c.expires_at > database_now())",
        test=f"{SPENDS}::test_fifty_concurrent_uses and sqlite",
    ),
    Control(
        name="an expired one is not spent",
        file=SPENDING,
        guard=".where(_ALIVE, capabilities.c.spent_sha256.is_(None), capabilities.c.expires_at > database_now())",
        without=".where(_ALIVE, capabilities.c.spent_sha256.is_(None))",
        test=f"{SPENDS}::test_one_that_has_expired_by_the_ledgers_clock and sqlite",
    ),
    Control(
        name="an expired one is passed on to nobody",
        file="identity/capability/token_exchange.py",
        guard="capabilities.c.expires_at > database_now(),",
        without="",
        test="tests/capability/test_exchange.py::test_what_has_expired_by_the_ledgers_clock and sqlite",
    ),
    Control(
        name="a spend for no request in particular is repeated by nobody",
        file=SPENDING,
        guard="request = request_sha256 or _NOT_SAID",
        without="request = request_sha256 or record.capability.request_sha256",
        test=f"{SPENDS}::test_a_spend_that_was_for_no_request_in_particular and sqlite",
    ),
    Control(
        name="a closed one is of no use",
        file=SPENDING,
        guard="if found.closed_at is not None:",
        without="if False:",
        test=f"{SPENDS}::test_what_is_done_is_closed and sqlite",
    ),
    Control(
        name="what is done is passed on to nobody",
        file="identity/capability/token_exchange.py",
        guard="capabilities.c.closed_at.is_(None),",
        without="capabilities.c.jti.is_not(None),",
        test="tests/capability/test_exchange.py::test_what_is_done_is_passed_on and sqlite",
    ),
    Control(
        name="a spend waits for a revocation",
        file=SPENDING,
        guard="lock_shared(connection, scopes)",
        without="pass",
        test=f"{SPENDS}::test_a_spend_beside_a_revocation and postgresql",
    ),
    Control(
        name="what was recorded is what counts",
        file=SPENDING,
        guard="if why := _differs(claimed, found.capability):",
        without="if why := None:",
        test=f"{SPENDS}::test_whoever_has_the_signing_key",
    ),
    Control(
        name="the audience is who asks",
        file=VERIFIER,
        guard='if claims.get("aud") != self.audience:',
        without="if False:",
        test=f"{VERIFIES}::test_each_claim",
    ),
    Control(
        name="the type of the token",
        file=VERIFIER,
        guard='if header.get("typ") != TYPE:',
        without="if False:",
        test=f"{VERIFIES}::test_another_kind_of_token",
    ),
    Control(
        name="the request it is for",
        file=VERIFIER,
        guard="if request_sha256 is not None and request_sha256 != capability.request_sha256:",
        without="if False:",
        test=f"{VERIFIES}::test_another_request",
    ),
    Control(
        name="a token ends",
        file=VERIFIER,
        guard="if now >= capability.expires_at + self.leeway:",
        without="if False:",
        test=f"{VERIFIES}::test_each_claim",
    ),
    Control(
        name="a token is not used early",
        file=VERIFIER,
        guard='if now < _time(claims, "nbf") - self.leeway:',
        without="if False:",
        test=f"{VERIFIES}::test_each_claim",
    ),
    Control(
        name="the resource it is for",
        file=VERIFIER,
        guard="if resource != self.resource:",
        without="if False:",
        test=f"{VERIFIES}::test_a_capability_allows",
    ),
    Control(
        name="the amount it is for",
        file=VERIFIER,
        guard="if self.limit is None or not 0 <= amount <= self.limit.amount:",
        without="if self.limit is None:",
        test=f"{VERIFIES}::test_a_capability_allows",
    ),
    Control(
        name="a confined token is not used that was revoked while it was minted",
        file="identity/withdrawals/held_tokens.py",
        guard="usable = revoked_since(connection, scopes, new.consented, or_stopped=False) is None",
        without="usable = True",
        test="tests/ledger/test_held_tokens.py::test_a_token_of_a_revoked_consent and sqlite",
    ),
    Control(
        name="who may pass on, and to whom",
        file="identity/capability/narrowing.py",
        guard="if target.id not in by.passes_to:",
        without="if False:",
        test="tests/capability/test_exchange.py::test_exchange_only_ever_narrows",
    ),
    Control(
        name="one exchange",
        file="identity/capability/token_exchange.py",
        guard="capabilities.c.exchanged_sha256.is_(None),",
        without="",
        test="tests/capability/test_exchange.py::test_the_same_exchange and sqlite",
    ),
    Control(
        name="what an exchange under way makes is closed too",
        file="identity/capability/issued.py",
        guard="while connection.execute(_CLOSE, values).rowcount > 0:",
        without="if connection.execute(_CLOSE, values).rowcount > 0:",
        test="tests/capability/test_exchange.py::test_what_is_passed_on_while_the_step_ends",
    ),
    Control(
        name="one that expired is not sent again",
        file=OPENINGS,
        guard="if intent.resends and issued.living(connection, intent.step, at=alive_at, approved_by=by) is None:",
        without="if False:",
        test=f"{OPENS}::test_one_that_expired and sqlite",
    ),
    Control(
        name="an effect closes its capability",
        file="pipeline/ledger/closings.py",
        guard="_close_capability(connection, intent, closing, now=now)",
        without="pass",
        test=f"{OPENS}::test_without_effect and sqlite",
    ),
    Control(
        name="a withdrawal brings no former key back",
        file="identity/capability/keys.py",
        guard="if key.withdrawn_at is None or key.use_from <= key.withdrawn_at:",
        without="if key.withdrawn_at is None:",
        test="tests/capability/test_keys.py::test_a_withdrawal_brings_no_former_key_back and sqlite",
    ),
    Control(
        name="a key is published before it signs",
        file="identity/capability/keys.py",
        guard="use_from = now + AHEAD if follows else now",
        without="use_from = now",
        test="tests/capability/test_keys.py::test_a_new_key_is_published and sqlite",
    ),
)
