"""What each guard of other people's signed tokens is for: without it, the test that watches it fails."""

from __future__ import annotations

from tests.faults.control import Control

JOSE, KEYS, KEEPS = "identity/oauth/jose.py", "identity/oauth/jwks.py", "tests/identity/test_jwks.py"
EVENT, READS = "webhooks/security_event.py", "tests/webhooks/test_security_event.py"

CONTROLS = (
    Control(
        name="what must be understood is not ignored",
        file=JOSE,
        guard='if "crit" in header:',
        without="if False:",
        test=f"{READS}::test_a_header_parameter_that_nobody_knows",
    ),
    Control(
        name="a key is for one algorithm",
        file=JOSE,
        guard="if key.alg not in (None, algorithm):",
        without="if False:",
        test=f"{KEEPS}::test_a_key_is_for_the_algorithm",
    ),
    Control(
        name="a token without a key id is by one key",
        file=KEYS,
        guard="return fitting[-1] if len(fitting) == 1 or (fitting and token.kid is not None) else None",
        without="return fitting[-1] if fitting else None",
        test=f"{KEEPS}::test_a_token_without_a_key_id",
    ),
    Control(
        name="a key that lets somebody in ends soon",
        file="identity/agents/workloads.py",
        guard="self._keys = KeyRing.giving_authority(http, monotonic=monotonic)",
        without="self._keys = KeyRing(http, monotonic=monotonic)",
        test="tests/api/test_workloads.py::test_a_key_that_was_taken_out",
    ),
    Control(
        name="a security event's type",
        file=EVENT,
        guard='if signed.type != TYPE and not (transmitter.plain_jwt and signed.type in (None, "jwt")):',
        without="if False:",
        test=f"{READS}::test_an_id_token_and_an_unsigned_one",
    ),
    Control(
        name="an untyped security event is no ID token",
        file=EVENT,
        guard='if not is_typed and (expires is not None or "nonce" in claims):',
        without="if False:",
        test=f"{READS}::test_an_untyped_token",
    ),
    Control(
        name="a security event has not expired",
        file=EVENT,
        guard="if expires is not None and (not _is_number(expires) or expires <= (now - AHEAD).timestamp()):",
        without="if False:",
        test=f"{READS}::test_claims_that_are_not_for_us",
    ),
    Control(
        name="a subject of another issuer is nobody",
        file="webhooks/security_event_types.py",
        guard='if subject.get("iss") != issuer:',
        without="if False:",
        test=f"{READS}::test_a_transmitter_may_tell_of_one_other",
    ),
    Control(
        name="a provider that sends its name is not believed without",
        file="identity/console/sign_in.py",
        guard="unsaid = None if self._discovered().sends_iss else self.settings.issuer",
        without="unsaid = self.settings.issuer",
        test="tests/console/test_odd_provider.py::test_who_says_that_it_sends_its_name",
    ),
)
