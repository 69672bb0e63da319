"""The poll scheduler as a state machine: input, output, and no sockets."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING, Any

import pytest

import taskbridge as tb
from taskbridge._engine.lookup import PollResult, StatusResponse
from taskbridge._polling.commands import Done, Idle, PollTask, Update, WaitUntil
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.models import Task
from taskbridge.provider.http import Response

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection

    from .conftest import Acme, Maker


class Driven:
    """A scheduler driven by hand; `states` holds the vendor's status words."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.scheduler = PollScheduler()
        self.now = 0.0
        self.states: dict[str, str] = {}
        self.polled: list[str] = []

    def add(self, task_id: str, **kwargs: Any) -> Any:
        self.states.setdefault(task_id, "working")
        return self.scheduler.add(self.connection, task_id, self.now, **kwargs)

    def command(self) -> Any:
        return self.scheduler.next(self.now)

    def poll(self) -> PollTask:
        command = self.command()
        assert isinstance(command, PollTask), command
        self.polled.append(command.task_id)
        return command

    def answer(self, poll: PollTask) -> None:
        """Answer a poll with the task's state."""
        body = json.dumps({"id": poll.task_id, "state": self.states[poll.task_id]}).encode()
        received_at = self.connection.clock.now()
        if poll.last_seen is not None and body == poll.last_seen.body:
            self.scheduler.on_polled(poll, self.now, PollResult(None, poll.last_seen, received_at))
            return
        flow = self.connection.provider.get(poll.task_id)
        next(flow)
        with pytest.raises(StopIteration) as end:
            flow.send(Response(200, {}, body))
        self.scheduler.on_polled(poll, self.now, PollResult(end.value.value, StatusResponse(body), received_at))

    def updates(self) -> list[Update]:
        updates: list[Update] = []
        while (update := self.scheduler.next_update()) is not None:
            updates.append(update)
        return updates

    def run(self, until: float = inf) -> list[Update]:
        """Answer every poll until no task is left or the time is reached."""
        updates: list[Update] = []
        for _ in range(10_000):
            command = self.command()
            updates += self.updates()
            if isinstance(command, Done) or self.now >= until:
                return updates
            if isinstance(command, PollTask):
                self.polled.append(command.task_id)
                self.answer(command)
            else:
                assert isinstance(command, WaitUntil), command
                assert command.time > self.now, "the scheduler spins"
                self.now = min(command.time, until)
        raise AssertionError("the scheduler never ends")


@pytest.fixture
def driven(acme: Maker) -> Driven:
    return Driven(acme(poll={"interval": 2.0}).connection)


def test_an_empty_scheduler_has_nothing_to_do() -> None:
    assert PollScheduler().next(0.0) == Done()


def test_a_task_is_polled_at_once_and_its_end_is_reported(driven: Driven) -> None:
    waiter = driven.add("t1", owner="me", index=7)
    driven.states["t1"] = "done"
    driven.answer(driven.poll())
    [update] = driven.updates()
    assert (update.waiter, update.final, waiter.owner, waiter.index) == (waiter, True, "me", 7)
    assert update.outcome.unwrap().status == "completed"
    assert driven.command() == Done()
    assert len(driven.scheduler) == 0


def test_during_a_poll_there_is_nothing_to_do(driven: Driven) -> None:
    driven.add("t1")
    driven.poll()
    assert driven.command() == Idle()


def test_a_running_task_is_polled_again_after_the_interval(driven: Driven) -> None:
    driven.add("t1")
    for _ in range(20):
        driven.answer(driven.poll())
        pause = driven.command()
        assert isinstance(pause, WaitUntil)
        assert 1.0 <= pause.time - driven.now <= 3.0
        assert isinstance(driven.scheduler.next(pause.time - 0.01), WaitUntil)
        driven.now = pause.time
    assert driven.updates() == []


def test_two_waits_for_the_same_task_share_its_polls(driven: Driven) -> None:
    waiters = [driven.add("t1", index=n) for n in range(3)]
    driven.states["t1"] = "done"
    updates = driven.run()
    assert driven.polled == ["t1"]
    assert [update.waiter for update in updates] == waiters
    assert len({update.outcome.ref for update in updates}) == 1


def test_a_deadline_is_exact_and_carries_the_last_snapshot(driven: Driven) -> None:
    driven.add("t1", deadline=5.0)
    assert driven.run(until=4.999) == []
    [update] = driven.run()
    assert driven.now == 5.0
    error = update.outcome.error
    assert isinstance(error, tb.WaitTimeout)
    assert error.task is not None
    assert error.task == update.outcome.task
    assert (error.task.native_status, error.ref, error.retryable) == ("working", "acme:t1", True)
    assert "stopped waiting after 5 s, the task continues: it is processing, vendor says 'working'" in error.message


def test_each_waiter_has_its_own_deadline(driven: Driven) -> None:
    first, second = driven.add("t1", deadline=3.0), driven.add("t1", deadline=8.0)
    ended: list[tuple[Any, float]] = []
    for until in (3.0, 8.0):
        ended += [(update.waiter, driven.now) for update in driven.run(until=until)]
    assert ended == [(first, 3.0), (second, 8.0)]


def test_a_timeout_before_any_response_says_so(driven: Driven) -> None:
    driven.add("t1", deadline=1.0)
    poll = driven.poll()
    driven.now = 1.0
    driven.command()
    [update] = driven.updates()
    assert "it was never seen" in str(update.outcome.error)
    assert update.outcome.task is None
    driven.answer(poll)  # too late, and ignored
    assert driven.updates() == []
    assert driven.command() == Done()


def test_a_timeout_names_the_last_error(driven: Driven) -> None:
    driven.add("t1", deadline=4.0)
    for _ in range(10):
        command = driven.command()
        if isinstance(command, PollTask):
            driven.scheduler.on_poll_failed(command, driven.now, tb.ServerError("the machine is on fire"))
        elif isinstance(command, WaitUntil):
            driven.now = command.time
        else:
            break
    [update] = driven.updates()
    error = update.outcome.error
    assert isinstance(error, tb.WaitTimeout)
    assert "it was never seen, last error: the machine is on fire" in error.message
    assert isinstance(error.last_error, tb.ServerError)


def test_a_timeout_names_an_unknown_status_word(driven: Driven) -> None:
    driven.add("t1", deadline=4.0)
    driven.states["t1"] = "polishing"
    [update] = driven.run()
    assert "the vendor says 'polishing', a word that taskbridge does not know" in str(update.outcome.error)


def test_a_waiter_dropped_during_a_poll_gets_no_update(driven: Driven) -> None:
    waiter = driven.add("t1")
    poll = driven.poll()
    driven.scheduler.drop([waiter])
    assert driven.command() == Done()
    driven.states["t1"] = "done"
    driven.answer(poll)
    assert driven.updates() == []
    driven.scheduler.drop([waiter])  # a second time has no effect


def test_a_task_added_again_during_its_old_poll_is_polled_again(driven: Driven) -> None:
    waiter = driven.add("t1")
    old = driven.poll()
    driven.scheduler.drop([waiter])
    again = driven.add("t1")
    driven.states["t1"] = "done"
    driven.answer(old)
    assert [update.waiter for update in driven.run()] == [again]


def test_dropping_one_of_two_waiters_keeps_the_other(driven: Driven) -> None:
    first, second = driven.add("t1"), driven.add("t1")
    driven.scheduler.drop([first])
    driven.states["t1"] = "done"
    assert [update.waiter for update in driven.run()] == [second]


def test_an_unchanged_response_is_not_translated(driven: Driven, acme_type: type[Acme]) -> None:
    provider = driven.connection.provider
    assert isinstance(provider, acme_type)
    driven.add("t1", deadline=60.0)
    driven.run(until=50.0)
    assert len(driven.polled) >= 15
    assert provider.translated == 1
    driven.run()
    assert provider.translated == 2  # the snapshot for the timeout error


def test_changes_are_reported_once_and_only_to_waiters_that_want_them(driven: Driven) -> None:
    watcher, waiter = driven.add("t1", changes=True), driven.add("t1")
    seen: list[tuple[Any, str]] = []
    for word in ("waiting", "waiting", "working", "working", "done"):
        driven.states["t1"] = word
        driven.answer(driven.poll())
        seen += [(one.waiter, str(one.outcome.task and one.outcome.task.native_status)) for one in driven.updates()]
        pause = driven.command()
        driven.now = pause.time if isinstance(pause, WaitUntil) else driven.now
    assert seen == [(watcher, "waiting"), (watcher, "working"), (watcher, "done"), (waiter, "done")]


def test_a_temporary_error_ends_no_wait_and_is_not_reported(driven: Driven) -> None:
    driven.add("t1")
    for error in (tb.ServerError("no"), tb.ConnectFailed("no"), tb.RateLimited("no"), tb.MalformedResponse("no")):
        driven.scheduler.on_poll_failed(driven.poll(), driven.now, error)
        pause = driven.command()
        assert isinstance(pause, WaitUntil)
        assert pause.time > driven.now + 0.9
        driven.now = pause.time
    assert driven.updates() == []
    driven.states["t1"] = "done"
    assert driven.run()[0].outcome.error is None


@pytest.mark.parametrize(
    "error",
    [
        tb.TaskNotFound("gone", http_status=410),
        tb.InvalidRequest("no"),
        tb.PermissionDenied("no"),
        tb.QuotaExceeded("no"),
        tb.TlsError("no"),
        tb.UnexpectedRedirect("no"),
        tb.ContractError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_permanent_error_ends_the_wait_for_its_task_only(driven: Driven, error: tb.TaskbridgeError) -> None:
    bad = driven.add("bad")
    driven.add("good")
    polls = {poll.task_id: poll for poll in (driven.poll(), driven.poll())}
    driven.answer(polls["good"])
    driven.scheduler.on_poll_failed(polls["bad"], driven.now, error)
    [update] = driven.updates()
    assert (update.waiter, update.outcome.error, update.outcome.task) == (bad, error, None)
    assert isinstance(driven.command(), WaitUntil)


def test_an_error_after_a_snapshot_keeps_the_snapshot(driven: Driven) -> None:
    driven.add("t1")
    driven.answer(driven.poll())
    pause = driven.command()
    assert isinstance(pause, WaitUntil)
    driven.now = pause.time
    driven.scheduler.on_poll_failed(driven.poll(), driven.now, tb.TaskNotFound("gone", http_status=410))
    [update] = driven.updates()
    assert isinstance(update.outcome.task, Task)
    assert update.outcome.task.status == "processing"


def test_a_401_ends_all_waits_of_its_connection_and_no_others(acme: Maker) -> None:
    refused, other = acme(name="refused").connection, acme(name="other").connection
    scheduler = PollScheduler()
    for connection in (refused, other):
        for n in range(3):
            scheduler.add(connection, f"t{n}", 0.0)
    commands = [scheduler.next(0.0) for _ in range(6)]
    error = tb.AuthenticationError("wrong key")
    poll = next(poll for poll in commands if isinstance(poll, PollTask) and poll.connection is refused)
    refused.credentials.refuse(error, refused.name)
    scheduler.on_poll_failed(poll, 0.0, error)
    ended: list[tb.Outcome] = []
    while (update := scheduler.next_update()) is not None:
        ended.append(update.outcome)
    assert sorted(outcome.ref for outcome in ended) == ["refused:t0", "refused:t1", "refused:t2"]
    assert len({id(outcome.error) for outcome in ended}) == 3
    assert all(isinstance(o.error, tb.AuthenticationError) and o.error.ref == o.ref for o in ended)
    assert len(scheduler) == 3


def test_a_long_poll_follows_the_first_poll_and_falls_back_to_polling_when_it_fails(driven: Driven) -> None:
    driven.add("t1", long_poll=True)
    first = driven.poll()
    assert not first.long_poll
    driven.answer(first)
    second = driven.poll()
    assert second.long_poll
    driven.scheduler.on_poll_failed(second, driven.now, tb.DeadlineExceeded("cut after a minute"))
    third = driven.poll()
    assert not third.long_poll
    driven.answer(third)
    assert isinstance(driven.command(), WaitUntil)
    assert driven.updates() == []


def test_a_long_poll_that_returns_before_the_end_is_not_repeated(driven: Driven) -> None:
    driven.add("t1", long_poll=True)
    driven.answer(driven.poll())
    driven.answer(driven.poll())
    pause = driven.command()
    assert isinstance(pause, WaitUntil)
    driven.now = pause.time
    assert not driven.poll().long_poll


def test_no_more_polls_run_in_parallel_than_allowed(acme: Maker) -> None:
    driven = Driven(acme(max_in_flight=3).connection)
    for n in range(10):
        driven.add(f"t{n}")
    polls = [driven.poll() for _ in range(3)]
    assert driven.command() == Idle()
    driven.answer(polls[0])
    assert isinstance(driven.command(), PollTask)


def test_the_rate_of_the_connection_is_kept(acme: Maker) -> None:
    driven = Driven(acme(requests_per_second=5.0, poll={"interval": 1.0}).connection)
    for n in range(100):
        driven.add(f"t{n}")
    driven.run(until=20.0)
    assert 80 <= len(driven.polled) <= 106


def test_a_busy_connection_does_not_delay_another(acme: Maker) -> None:
    slow, fast = acme(name="slow", requests_per_second=0.1).connection, acme(name="fast").connection
    scheduler = PollScheduler()
    for n in range(5):
        scheduler.add(slow, f"t{n}", 0.0)
    scheduler.add(fast, "t9", 0.0)
    commands = [scheduler.next(0.0) for _ in range(3)]
    assert "fast" in [command.connection.name for command in commands if isinstance(command, PollTask)]


def test_tasks_added_together_are_spread(acme: Maker) -> None:
    harness = acme(poll={"interval": 10.0}, max_in_flight=1000)
    harness.clock.pinned = None
    driven = Driven(harness.connection)
    for n in range(1000):
        driven.add(f"t{n}")
    per_second: dict[int, int] = {}
    for _ in range(20_000):
        command = driven.command()
        if isinstance(command, PollTask):
            per_second[int(driven.now)] = per_second.get(int(driven.now), 0) + 1
            driven.answer(command)
        elif isinstance(command, WaitUntil):
            driven.now = command.time
            if driven.now >= 100.0:
                break
    assert max(count for second, count in per_second.items() if second >= 50) <= 200  # twice the mean


def test_closing_ends_all_waits_with_a_timeout(driven: Driven) -> None:
    waiters = [driven.add("t1"), driven.add("t2", changes=True)]
    driven.answer(driven.poll())
    driven.updates()
    driven.scheduler.close()
    updates = driven.updates()
    assert [update.waiter for update in updates] == waiters
    assert all(isinstance(update.outcome.error, tb.WaitTimeout) and update.final for update in updates)
    assert updates[0].outcome.task is not None
    assert driven.command() == Done()


def test_a_hint_triggers_a_poll(driven: Driven) -> None:
    driven.add("t1")
    driven.answer(driven.poll())
    driven.scheduler.on_hint("acme:t1", driven.now)
    assert driven.poll().task_id == "t1"
    driven.scheduler.on_hint("acme:t9", driven.now)  # no waiter


def test_a_confirmed_event_ends_a_wait_without_a_poll(driven: Driven) -> None:
    waiter = driven.add("t1")
    driven.answer(driven.poll())
    other = Driven(driven.connection)
    other.add("t1")
    other.states["t1"] = "done"
    task = other.run()[0].outcome.unwrap()
    driven.scheduler.on_event(task, driven.now)
    assert [(one.waiter, one.outcome.task) for one in driven.updates()] == [(waiter, task)]
    assert driven.command() == Done()
