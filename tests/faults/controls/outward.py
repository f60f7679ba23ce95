"""What guards what goes out: secrets at rest, the lock of a refresh, the one client. Without it, a test fails."""

from __future__ import annotations

from tests.faults.control import Control

DEADLINE, HTTP = "identity/http/deadline.py", "tests/identity/test_http.py"
LOCK, LOCKS = "identity/refresh/lock.lua", "tests/identity/test_lock.py"
READ = "return self._inner.read(max_bytes, _clamp(timeout, httpcore.ReadTimeout))"
OWNER = 'if redis.call("GET", KEYS[1]) ~= ARGV[1] then'

CONTROLS = (
    Control(
        name="what is sealed is its row's",
        file="identity/keys/vault.py",
        guard="return _prefixed(*(part.encode() for part in parts))",
        without='return b""',
        test="tests/identity/test_rewrap.py::test_what_was_swapped_between_two_rows and sqlite",
    ),
    Control(
        name="what is sealed is its record's",
        file="identity/keys/vault.py",
        guard="parts = (str(_VERSION), self.tenant, self.record, self.provider, self.field, str(self.generation))",
        without="parts = (str(_VERSION), self.tenant, self.provider, self.field, str(self.generation))",
        test="tests/identity/test_rewrap.py::test_what_was_swapped_between_two_rows and sqlite",
    ),
    Control(
        name="two rows never read alike",
        file="identity/keys/vault.py",
        guard='return b"".join(len(part).to_bytes(4, "big") + part for part in parts)',
        without='return b"".join(parts)',
        test="tests/identity/test_vault.py::test_a_row_moved_elsewhere",
    ),
    Control(
        name="no other key of the same id seals",
        file="identity/keys/vault.py",
        guard="if not self._proven:",
        without="if False:",
        test="tests/identity/test_proven_keys.py::test_of_two_hosts and sqlite",
    ),
    Control(
        name="another key is found before anything is shown",
        file="identity/keys/vault.py",
        guard="if self._proven is None:  # before a token is presented rather than when its answer is to be sealed",
        without="if False:",
        test="tests/identity/test_proven_keys.py::test_it_is_found_when_a_secret_is_opened and sqlite",
    ),
    Control(
        name="no new keys over a ledger that has others",
        file="deploy/up.py",
        guard="if missing := keys.missing():",
        without="if not (missing := keys.missing()):",
        test="tests/deploy/test_other_keys.py::test_no_keys_are_made and sqlite",
    ),
    Control(
        name="one owner",
        file="identity/refresh/lock.py",
        guard="taken = self._reach(lambda client: bool(client.set(key, token, nx=True, px=self._ttl_ms)))",
        without="taken = self._reach(lambda client: bool(client.set(key, token, px=self._ttl_ms)))",
        test=f"{LOCKS}::test_one_of_many",
    ),
    Control(
        name="a late owner renews nothing",
        file=LOCK,
        guard=OWNER,
        without='if ARGV[2] == "release" and redis.call("GET", KEYS[1]) ~= ARGV[1] then',
        test=f"{LOCKS}::test_a_late_owner",
    ),
    Control(
        name="a late owner releases nothing",
        file=LOCK,
        guard=OWNER,
        without='if ARGV[2] == "renew" and redis.call("GET", KEYS[1]) ~= ARGV[1] then',
        test=f"{LOCKS}::test_a_late_owner",
    ),
    Control(
        name="the deadline is of the whole head",
        file=DEADLINE,
        guard=READ,
        without="return self._inner.read(max_bytes, timeout)",
        test=f"{HTTP}::test_the_deadline_is_total and headers",
    ),
    Control(
        name="the deadline is of the whole body",
        file=DEADLINE,
        guard=READ,
        without="return self._inner.read(max_bytes, timeout)",
        test=f"{HTTP}::test_the_deadline_is_total and body",
    ),
    Control(
        name="the deadline is of all that is sent",
        file=DEADLINE,
        guard="self._inner.write(buffer[start : start + 65536], _clamp(timeout, httpcore.WriteTimeout))",
        without="self._inner.write(buffer[start : start + 65536], timeout)",
        test=f"{HTTP}::test_a_body_nobody_reads",
    ),
    Control(
        name="every address is looked at before it is connected to",
        file=DEADLINE,
        guard="if refusal := self._policy.prohibits(host, port, addresses):",
        without="if refusal := None:",
        test=f"{HTTP}::test_an_address_that_is_not_public",
    ),
    Control(
        name="what was looked at is what is connected to",
        file=DEADLINE,
        guard="stream = self._inner.connect_tcp(address, port, left, local_address, socket_options)",
        without="stream = self._inner.connect_tcp(host, port, left, local_address, socket_options)",
        test="tests/identity/test_addresses.py::test_a_name_that_changes_its_mind",
    ),
    Control(
        name="the form of an address is looked at",
        file="identity/http/client.py",
        guard="if refusal := self.policy.prohibits_url(url.scheme, host, port, userinfo=bool(url.userinfo)):",
        without="if refusal := None:",
        test="tests/identity/test_addresses.py::test_the_client_refuses_what_configuration_would",
    ),
    Control(
        name="a private host gets nothing in clear text",
        file="identity/http/addresses.py",
        guard='if scheme == "http" and not self._may_be_plain(host, port):',
        without='if scheme == "http" and not self.allows_by_name(host, port):',
        test="tests/identity/test_addresses.py::test_a_host_allowed_by_name_gets_nothing_in_clear_text",
    ),
    Control(
        name="the environment says who may be reached",
        file="identity/http/addresses.py",
        guard="if not self.egress_hosts or self.allows_by_name(host, port) or host in self.egress_hosts:",
        without="if True:",
        test="tests/identity/test_addresses.py::test_a_host_that_is_not_listed_is_not_reached",
    ),
    Control(
        name="a key of some users acts as no other",
        file="pipeline/agents_api/tool_requests.py",
        guard="caller.check_user(identified.principal.id)",
        without="pass",
        test="tests/api/test_execute.py::test_a_key_of_some_users_acts_as_no_other",
    ),
    Control(
        name="a key of some users invites no other",
        file="pipeline/accounts/invitations.py",
        guard="caller.check_user(principal)",
        without="pass",
        test="tests/api/test_accounts.py::test_a_key_of_some_users_invites_no_other and sqlite",
    ),
    Control(
        name="an agent asks for no scope that nothing needs",
        file="pipeline/accounts/askable.py",
        guard="if beyond := [scope for scope in scopes if scope not in askable]:",
        without="if beyond := []:",
        test="tests/api/test_accounts.py::test_an_agent_has_nobody_asked_for_a_scope and sqlite",
    ),
)
