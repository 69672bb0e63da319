"""The fleet as a state machine: what goes in, what comes out, and not a socket in sight."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING, Any

import pytest

import taskbridge as tb
from taskbridge._engine.lookup import PollResult
from taskbridge._polling.commands import Done, Idle, PollTask, Update, WaitUntil
from taskbridge._polling.scheduler import PollScheduler
from taskbridge.models import Task

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection

    from .conftest import Acme, Maker


class Driven:
    """A fleet driven by hand: the vendor's words stand in a dict."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.scheduler = PollScheduler()
        self.now = 0.0
        self.words: dict[str, str] = {}
        self.looks: list[str] = []

    def add(self, task_id: str, **kwargs: Any) -> Any:
        self.words.setdefault(task_id, "working")
        return self.scheduler.add(self.connection, task_id, self.now, **kwargs)

    def command(self) -> Any:
        return self.scheduler.next(self.now)

    def poll(self) -> PollTask:
        command = self.command()
        assert isinstance(command, PollTask), command
        self.looks.append(command.task_id)
        return command

    def answer(self, poll: PollTask) -> None:
        """Answer a look with the vendor's word."""
        body = json.dumps({"id": poll.task_id, "state": self.words[poll.task_id]}).encode()
        received_at = self.connection.clock.now()
        if body == poll.last_body:
            self.scheduler.on_polled(poll, self.now, PollResult(None, body, received_at))
            return
        flow = self.connection.provider.get(poll.task_id)
        next(flow)
        with pytest.raises(StopIteration) as end:
            flow.send(tb_response(body))
        self.scheduler.on_polled(poll, self.now, PollResult(end.value.value, body, received_at))

    def update(self) -> list[Update]:
        found: list[Update] = []
        while (one := self.scheduler.next_update()) is not None:
            found.append(one)
        return found

    def run(self, until: float = inf) -> list[Update]:
        """Answer every look until nothing is left or the time has come."""
        found: list[Update] = []
        for _ in range(10_000):
            command = self.command()
            found += self.update()
            if isinstance(command, Done) or self.now >= until:
                return found
            if isinstance(command, PollTask):
                self.looks.append(command.task_id)
                self.answer(command)
            else:
                assert isinstance(command, WaitUntil), command
                assert command.time > self.now, "the fleet spins"
                self.now = min(command.time, until)
        raise AssertionError("the fleet never ends")


def tb_response(body: bytes) -> Any:
    from taskbridge.provider.http import Response  # noqa: PLC0415  # only here

    return Response(200, {}, body)


@pytest.fixture
def driven(acme: Maker) -> Driven:
    return Driven(acme(poll={"interval": 2.0}).connection)


def test_an_empty_fleet_has_nothing_to_do() -> None:
    assert PollScheduler().next(0.0) == Done()


def test_a_task_is_looked_at_at_once_and_its_end_is_told(driven: Driven) -> None:
    waiter = driven.add("t1", owner="me", index=7)
    driven.words["t1"] = "done"
    driven.answer(driven.poll())
    [update] = driven.update()
    assert (update.waiter, update.final, waiter.owner, waiter.index) == (waiter, True, "me", 7)
    assert update.outcome.unwrap().status == "completed"
    assert driven.command() == Done()
    assert len(driven.scheduler) == 0


def test_while_a_look_is_under_way_there_is_nothing_to_do(driven: Driven) -> None:
    driven.add("t1")
    driven.poll()
    assert driven.command() == Idle()


def test_a_task_that_goes_on_is_looked_at_again_after_the_interval(driven: Driven) -> None:
    driven.add("t1")
    for _ in range(20):
        driven.answer(driven.poll())
        pause = driven.command()
        assert isinstance(pause, WaitUntil)
        assert 1.0 <= pause.time - driven.now <= 3.0
        assert isinstance(driven.scheduler.next(pause.time - 0.01), WaitUntil)
        driven.now = pause.time
    assert driven.update() == []


def test_the_same_task_twice_is_looked_up_once_and_told_twice(driven: Driven) -> None:
    waiters = [driven.add("t1", index=n) for n in range(3)]
    driven.words["t1"] = "done"
    update = driven.run()
    assert driven.looks == ["t1"]
    assert [one.waiter for one in update] == waiters
    assert len({one.outcome.ref for one in update}) == 1


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


def test_each_party_has_its_own_deadline(driven: Driven) -> None:
    first, second = driven.add("t1", deadline=3.0), driven.add("t1", deadline=8.0)
    ended: list[tuple[Any, float]] = []
    for until in (3.0, 8.0):
        ended += [(update.waiter, driven.now) for update in driven.run(until=until)]
    assert ended == [(first, 3.0), (second, 8.0)]


def test_a_deadline_that_comes_before_any_answer_says_so(driven: Driven) -> None:
    driven.add("t1", deadline=1.0)
    poll = driven.poll()
    driven.now = 1.0
    driven.command()
    [update] = driven.update()
    assert "it was never seen" in str(update.outcome.error)
    assert update.outcome.task is None
    driven.answer(poll)  # comes too late, and harms nobody
    assert driven.update() == []
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
    [update] = driven.update()
    error = update.outcome.error
    assert isinstance(error, tb.WaitTimeout)
    assert "every poll failed, the last with: the machine is on fire" in error.message
    assert isinstance(error.last_error, tb.ServerError)


def test_a_timeout_names_a_word_that_nobody_knows(driven: Driven) -> None:
    driven.add("t1", deadline=4.0)
    driven.words["t1"] = "polishing"
    [update] = driven.run()
    assert "the vendor says 'polishing', a word that taskbridge does not know" in str(update.outcome.error)


def test_who_stops_waiting_while_a_look_is_under_way_is_told_nothing(driven: Driven) -> None:
    waiter = driven.add("t1")
    poll = driven.poll()
    driven.scheduler.drop([waiter])
    assert driven.command() == Done()
    driven.words["t1"] = "done"
    driven.answer(poll)
    assert driven.update() == []
    driven.scheduler.drop([waiter])  # twice does no harm


def test_a_task_that_comes_back_while_its_old_look_is_under_way_is_looked_at_anew(driven: Driven) -> None:
    waiter = driven.add("t1")
    old = driven.poll()
    driven.scheduler.drop([waiter])
    again = driven.add("t1")
    driven.words["t1"] = "done"
    driven.answer(old)
    assert [update.waiter for update in driven.run()] == [again]


def test_dropping_one_of_two_parties_leaves_the_other(driven: Driven) -> None:
    first, second = driven.add("t1"), driven.add("t1")
    driven.scheduler.drop([first])
    driven.words["t1"] = "done"
    assert [update.waiter for update in driven.run()] == [second]


def test_an_unchanged_answer_is_not_translated(driven: Driven, acme_type: type[Acme]) -> None:
    provider = driven.connection.provider
    assert isinstance(provider, acme_type)
    driven.add("t1", deadline=60.0)
    driven.run(until=50.0)
    assert len(driven.looks) >= 15
    assert provider.translated == 1
    driven.run()
    assert provider.translated == 2  # the snapshot for the one that stopped waiting


def test_only_changes_are_told_to_who_asks_for_changes(driven: Driven) -> None:
    watcher, waiter = driven.add("t1", changes=True), driven.add("t1")
    seen: list[tuple[Any, str]] = []
    for word in ("waiting", "waiting", "working", "working", "done"):
        driven.words["t1"] = word
        driven.answer(driven.poll())
        seen += [(one.waiter, str(one.outcome.task and one.outcome.task.native_status)) for one in driven.update()]
        pause = driven.command()
        driven.now = pause.time if isinstance(pause, WaitUntil) else driven.now
    assert seen == [(watcher, "waiting"), (watcher, "working"), (watcher, "done"), (waiter, "done")]


def test_a_failure_in_passing_ends_nothing_and_is_told_to_nobody(driven: Driven) -> None:
    driven.add("t1")
    for error in (tb.ServerError("no"), tb.ConnectFailed("no"), tb.RateLimited("no"), tb.MalformedResponse("no")):
        driven.scheduler.on_poll_failed(driven.poll(), driven.now, error)
        pause = driven.command()
        assert isinstance(pause, WaitUntil)
        assert pause.time > driven.now + 0.9
        driven.now = pause.time
    assert driven.update() == []
    driven.words["t1"] = "done"
    assert driven.run()[0].outcome.error is None


@pytest.mark.parametrize(
    "error",
    [
        tb.TaskNotFound("gone"),
        tb.InvalidRequest("no"),
        tb.PermissionDenied("no"),
        tb.QuotaExceeded("no"),
        tb.TlsError("no"),
        tb.UnexpectedRedirect("no"),
        tb.ContractError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_that_will_not_pass_ends_its_task_and_no_other(driven: Driven, error: tb.TaskbridgeError) -> None:
    bad = driven.add("bad")
    driven.add("good")
    looks = {poll.task_id: poll for poll in (driven.poll(), driven.poll())}
    driven.answer(looks["good"])
    driven.scheduler.on_poll_failed(looks["bad"], driven.now, error)
    [update] = driven.update()
    assert (update.waiter, update.outcome.error, update.outcome.task) == (bad, error, None)
    assert isinstance(driven.command(), WaitUntil)


def test_a_failure_after_a_snapshot_keeps_the_snapshot(driven: Driven) -> None:
    driven.add("t1")
    driven.answer(driven.poll())
    pause = driven.command()
    assert isinstance(pause, WaitUntil)
    driven.now = pause.time
    driven.scheduler.on_poll_failed(driven.poll(), driven.now, tb.TaskNotFound("gone"))
    [update] = driven.update()
    assert isinstance(update.outcome.task, Task)
    assert update.outcome.task.status == "processing"


def test_a_401_ends_every_task_of_its_connection_and_no_other(acme: Maker) -> None:
    ours, theirs = acme(name="ours").connection, acme(name="theirs").connection
    scheduler = PollScheduler()
    for connection in (ours, theirs):
        for n in range(3):
            scheduler.add(connection, f"t{n}", 0.0)
    looks = [scheduler.next(0.0) for _ in range(6)]
    error = tb.AuthenticationError("wrong key")
    mine = next(poll for poll in looks if isinstance(poll, PollTask) and poll.connection is ours)
    ours.refuse(error)
    scheduler.on_poll_failed(mine, 0.0, error)
    ended: list[tb.Outcome] = []
    while (update := scheduler.next_update()) is not None:
        ended.append(update.outcome)
    assert sorted(outcome.ref for outcome in ended) == ["ours:t0", "ours:t1", "ours:t2"]
    assert len({id(outcome.error) for outcome in ended}) == 3
    assert all(isinstance(o.error, tb.AuthenticationError) and o.error.ref == o.ref for o in ended)
    assert len(scheduler) == 3


def test_after_the_first_look_the_line_is_held_and_a_broken_line_falls_back_to_looking(driven: Driven) -> None:
    driven.add("t1", long_poll=True)
    first = driven.poll()
    assert not first.long_poll
    driven.answer(first)
    held = driven.poll()
    assert held.long_poll
    driven.scheduler.on_poll_failed(held, driven.now, tb.DeadlineExceeded("cut after a minute"))
    back = driven.poll()
    assert not back.long_poll
    driven.answer(back)
    assert isinstance(driven.command(), WaitUntil)
    assert driven.update() == []


def test_an_answer_before_the_end_ends_the_holding(driven: Driven) -> None:
    driven.add("t1", long_poll=True)
    driven.answer(driven.poll())
    driven.answer(driven.poll())
    pause = driven.command()
    assert isinstance(pause, WaitUntil)
    driven.now = pause.time
    assert not driven.poll().long_poll


def test_no_more_looks_are_under_way_than_allowed(acme: Maker) -> None:
    driven = Driven(acme(max_in_flight=3).connection)
    for n in range(10):
        driven.add(f"t{n}")
    looks = [driven.poll() for _ in range(3)]
    assert driven.command() == Idle()
    driven.answer(looks[0])
    assert isinstance(driven.command(), PollTask)


def test_the_rate_of_the_connection_is_kept(acme: Maker) -> None:
    driven = Driven(acme(requests_per_second=5.0, poll={"interval": 1.0}).connection)
    for n in range(100):
        driven.add(f"t{n}")
    driven.run(until=20.0)
    assert 80 <= len(driven.looks) <= 106


def test_one_crowded_connection_does_not_hold_up_another(acme: Maker) -> None:
    slow, fast = acme(name="slow", requests_per_second=0.1).connection, acme(name="fast").connection
    scheduler = PollScheduler()
    for n in range(5):
        scheduler.add(slow, f"t{n}", 0.0)
    scheduler.add(fast, "t9", 0.0)
    commands = [scheduler.next(0.0) for _ in range(3)]
    assert "fast" in [command.connection.name for command in commands if isinstance(command, PollTask)]


def test_tasks_that_come_together_are_spread(acme: Maker) -> None:
    made = acme(poll={"interval": 10.0}, max_in_flight=1000)
    made.clock.pinned = None
    driven = Driven(made.connection)
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


def test_closing_tells_everybody_that_the_task_goes_on(driven: Driven) -> None:
    waiters = [driven.add("t1"), driven.add("t2", changes=True)]
    driven.answer(driven.poll())
    driven.update()
    driven.scheduler.close()
    update = driven.update()
    assert [one.waiter for one in update] == waiters
    assert all(isinstance(one.outcome.error, tb.WaitTimeout) and one.final for one in update)
    assert update[0].outcome.task is not None
    assert driven.command() == Done()


def test_a_hint_brings_the_next_look_forward(driven: Driven) -> None:
    driven.add("t1")
    driven.answer(driven.poll())
    driven.scheduler.on_hint("acme:t1", driven.now)
    assert driven.poll().task_id == "t1"
    driven.scheduler.on_hint("acme:t9", driven.now)  # nobody waits for it


def test_what_was_heard_from_outside_ends_a_task_without_a_look(driven: Driven) -> None:
    waiter = driven.add("t1")
    driven.answer(driven.poll())
    other = Driven(driven.connection)
    other.add("t1")
    other.words["t1"] = "done"
    task = other.run()[0].outcome.unwrap()
    driven.scheduler.on_event(task, driven.now)
    assert [(one.waiter, one.outcome.task) for one in driven.update()] == [(waiter, task)]
    assert driven.command() == Done()
