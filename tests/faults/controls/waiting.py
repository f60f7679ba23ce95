"""What the guards of schedules, budgets and waits are for: without one, the test that watches it fails."""

from __future__ import annotations

from tests.faults.control import Control

CONTROLS = (
    Control(
        name="a repeated hour",
        file="pipeline/authoring/timetable.py",
        guard="if slot > moment:",
        without="if slot:",
        test="tests/ledger/test_timetable.py::test_from_any_moment_the_next_slot_is_later",
    ),
    Control(
        name="a slot fires once",
        file="pipeline/schedules/slots.py",
        guard="if not insert_new(connection, slots, taken):",
        without="if not connection:",
        test="tests/ledger/test_schedules.py::test_a_removed_schedule_that_is_added_again and sqlite",
    ),
    Control(
        name="a beat moves what it looked at",
        file="pipeline/schedules/slots.py",
        guard="mine = (schedules.c.id == row.id) & (schedules.c.next_at == row.next_at) & LIVE",
        without="mine = (schedules.c.id == row.id) & LIVE",
        test="tests/ledger/test_schedules.py::test_a_beat_that_stood_still_before_its_move",
    ),
    Control(
        name="what a line owes comes first",
        file="pipeline/schedules/changes.py",
        guard="behind = owed_first and due and row.fault is None and not same_line",
        without="behind = False",
        test="tests/ledger/test_schedules.py::test_what_passed_by_the_old_line and sqlite-all",
    ),
    Control(
        name="what a tick had no time for was not missed",
        file="pipeline/schedules/slots.py",
        guard="late=late if row.fault is None else ON_TIME,",
        without="late=ON_TIME,",
        test="tests/ledger/test_schedules.py::test_a_tick_ends and sqlite",
    ),
    Control(
        name="a clock that is behind brings nothing back",
        file="pipeline/schedules/overshoot.py",
        guard="now = max(now, ledger_now(connection))",
        without="ledger_now(connection)",
        test="tests/ledger/test_schedules.py::test_a_beat_whose_clock_is_a_little_ahead and sqlite",
    ),
    Control(
        name="what is drawn is gone",
        file="pipeline/throttle/budget.lua",
        guard='set("remaining", state.remaining - 1)',
        without='set("remaining", state.remaining)',
        test="tests/ledger/test_budget.py::test_threads_that_draw_at_once",
    ),
    Control(
        name="one tenant opens no breaker of all",
        file="pipeline/throttle/breaker.lua",
        guard="fail(host, ARGV[5], own or host.last == ARGV[5])",
        without="fail(host, ARGV[5], own)",
        test="tests/ledger/test_breaker.py::test_one_tenants_failures and redis",
    ),
    Control(
        name="an outage spends no attempt",
        file="pipeline/execution/retrying.py",
        guard="goes_on = self.waits_out is None or (self.waits_out == self.waits_for and not self.over)",
        without="goes_on = False",
        test="tests/ledger/test_outage.py::test_a_job_that_is_alone and sqlite",
    ),
    Control(
        name="to be told that an upstream is away is no look",
        file="pipeline/execution/host_use.py",
        guard="raise upstream_away(self._services, self._step, reason, delay=told, over=self._others_looked)",
        without="raise upstream_away(self._services, self._step, reason, delay=told, over=self._step.waited_out)",
        test="tests/ledger/test_outage_ends.py::test_to_be_told_by_a_breaker and sqlite",
    ),
    Control(
        name="a probe fails by its own failure alone",
        file="pipeline/throttle/breaker.lua",
        guard="if state.open and state.prober ~= ARGV[4] then",
        without="if state.open and state.open > now then",
        test="tests/ledger/test_breaker.py::test_what_fails_beside_the_probe and redis",
    ),
    Control(
        name="a host that hangs gets no thread beyond its share",
        file="pipeline/throttle/in_flight.py",
        guard="if min(len(of_all.flying), len(of_all.unanswered) + of_all.lost) >= self._most:",
        without="if self._most < 0:",
        test="tests/ledger/test_outage.py::test_a_host_that_hangs and sqlite",
    ),
    Control(
        name="who waits for a refresh is woken",
        file="identity/refresh/coordinator.py",
        guard="if not self._lock.wait(account, within=timedelta(seconds=left)):",
        without="if True:",
        test="tests/identity/test_ailing_redis.py::test_who_waits_for_anothers_refresh and sqlite",
        says="nothing is waited for",
    ),
    Control(
        name="what is in use is kept alive first",
        file="identity/refresh/keepalive_ledger.py",
        guard="for rank in (IN_USE, IDLE):",
        without="for rank in (IDLE, IN_USE):",
        test="tests/identity/test_keepalive.py::test_what_is_in_use_is_claimed and sqlite",
    ),
    Control(
        name="a pause is of all workers",
        file="pipeline/throttle/budget.lua",
        guard="wait = math.max((state.held or 0) - now, (whole.held or 0) - now, 0)",
        without="wait = 0",
        test="tests/ledger/test_budget.py::test_a_pause_is_of_its_class",
    ),
    Control(
        name="an answer that nobody knows is not waited for",
        file="identity/minting/confined_minting.py",
        guard="case Transient(reason=reason, recognised=False):",
        without="case Transient(reason=reason, recognised=False) if False:",
        test="tests/identity/test_confined.py::test_an_answer_that_nobody_knows and sqlite",
    ),
    Control(
        name="a token for one repository is minted before its step opens",
        file="pipeline/execution/attempt.py",
        guard="mint_ahead(services, step, intent.lease)",
        without="pass",
        test="tests/tasks/test_confined.py::test_while_its_token_endpoint_fails",
    ),
)
