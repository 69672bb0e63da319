"""Kill the processes of stores at random moments, and check that nothing is lost or doubled.

    make test-kills SEEDS=100
    make test-kills SEEDS=1 FIRST=17      # one seed again

Each seed has a database, four accounts of a vendor, three watchers and a consumer. Most tasks are only watched, and
some hundred are submitted meanwhile. The first violation ends the program with exit code 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from statistics import median
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, text

import taskbridge as tb
from taskbridge.store import EventKind, Phase, State, StoreUnavailable
from taskbridge.store.schema import ACCOUNT, EVENT, INTENT, WATCH

from ..postgresql import Cluster, cluster, missing  # noqa: TID252  # as in the tests beside it
from . import processes, vendor

_WATCHERS: Final = 3
_ACCOUNTS: Final = tuple(f"account-{number}" for number in range(4))
_LIMIT: Final = 60  # requests per second of an account
_SUBMITTED: Final = 0.15  # of the tasks; the others are only watched
_LONGEST: Final = 10.0  # seconds that a task takes
_ARRIVING: Final = 8.0  # seconds in which tasks arrive
_AT_ONCE: Final = 20  # tasks that are stored in one transaction
_END: Final = 90.0  # seconds after which everything must have ended, and
_END_PER_TASK: Final = 0.01  # more for each task
_LIMITS: Final = {"SIGKILL": 3.0, "SIGSTOP": 8.0}  # seconds until the next owner
_EVERY: Final = 5.0  # seconds between two reads of the sessions of the database while a takeover is late
_LOGGED: Final = 30  # lines of each watcher that are printed after a violation
_OWNING: Final = 0.8  # of the watchers that are killed
_REPEATED: Final = 0.01  # of the polls: the target; all tasks of a seed end within seconds, so a kill repeats many
_SESSIONS: Final = """
SELECT pid, application_name, client_port, state, wait_event, pg_blocking_pids(pid) AS blocked_by,
       now() - state_change AS since, now() - xact_start AS in_transaction, left(query, 200) AS statement,
       (SELECT string_agg(concat_ws(' ', locktype, relation::regclass, classid, objid, mode, granted), '; ')
        FROM pg_locks WHERE pg_locks.pid = pg_stat_activity.pid AND locktype IN ('advisory', 'tuple', 'transactionid'))
FROM pg_stat_activity WHERE backend_type = 'client backend' ORDER BY pid
"""
_SPAWN: Final = multiprocessing.get_context("forkserver")


class Violation(Exception):
    """A guarantee was broken."""


@dataclass
class Result:
    """What a seed has shown.

    Attributes:
        seconds: How long it took.
        takeovers: Seconds until the next owner, by signal.
        disturbed: How often each disturbance happened.
        polls: Status requests.
        repeated: Those for an end that another process had been shown.
        again: Events that the consumer got more than once.
        load: Of the machine, per core.
    """

    seconds: float = 0.0
    takeovers: dict[str, list[float]] = field(default_factory=lambda: {"SIGKILL": [], "SIGSTOP": []})
    disturbed: Counter[str] = field(default_factory=Counter[str])
    polls: int = 0
    repeated: int = 0
    again: int = 0
    load: float = 0.0

    def __str__(self) -> str:
        takeovers = "  ".join(f"{how} {_spread(seconds)}" for how, seconds in self.takeovers.items())
        done = ", ".join(f"{count} {what}" for what, count in sorted(self.disturbed.items()))
        return (
            f"{self.seconds:5.1f} s  takeover {takeovers}  repeated {self.repeated}/{self.polls}  "
            f"delivered again {self.again}  ({done}; load {self.load:.1f})"
        )


def allowance(load: float) -> float:
    """Return the additional seconds that a takeover may take on a machine with so many busy processes per core."""
    return max(0.0, min(load, 6.0) - 1.0)


class Played:
    """A seed while it is played."""

    def __init__(self, seed: int, tasks: int, running: Cluster, folder: Path, stack: ExitStack) -> None:
        self._random = random.Random(seed)
        self._cluster = running
        self._folder = folder
        self._stack = stack
        self._url = running.create_database()
        self._store = stack.enter_context(tb.Store(self._url))
        ours, theirs = _SPAWN.Pipe()
        self._vendor = ours
        self._start(vendor.run, theirs, _LONGEST)
        self._port: int = ours.recv()
        self._keys = folder / "keys"
        self._names = 0
        self._stopping = threading.Event()
        self._late: list[str] = []  # the sessions of the database while a takeover is late
        self.result = Result()
        self._end = _END + tasks * _END_PER_TASK
        numbers = range(tasks)
        self._submitted = {
            f"key-{number}": self._random.choice(_ACCOUNTS) for number in numbers if self._random.random() < _SUBMITTED
        }
        self._watched = {
            name: [str(UUID(int=self._random.getrandbits(128))) for _ in numbers[at :: len(_ACCOUNTS)]]
            for at, name in enumerate(_ACCOUNTS)
        }
        surplus = len(self._submitted)
        for name in _ACCOUNTS:
            self._watched[name] = self._watched[name][: -(surplus // len(_ACCOUNTS)) or None]

    def play(self) -> None:
        """Begin, disturb, wait for the end and check.

        Raises:
            Violation: A guarantee was broken.
        """
        began = time.monotonic()
        watchers = [self._start_watcher() for _ in range(_WATCHERS)]
        consumer = self._start(processes.consume, self._url, self._keys)
        caller = threading.Thread(target=self._call, daemon=True)
        caller.start()
        self._stack.callback(caller.join)
        self._stack.callback(self._stopping.set)
        self._until(
            lambda: [bool(each.owner) for each in self._owners().values()] == [True] * len(_ACCOUNTS),
            30.0,
            "no owner began",
        )
        disturbances = ["kill", "kill", "stop", "consumer", "database", self._random.choice(["kill", "pause", "both"])]
        self._random.shuffle(disturbances)
        for each in disturbances:
            time.sleep(self._random.uniform(0.1, 1.5))  # noqa: TID251  # the moments are what the seed chooses
            self.result.disturbed[each] += 1
            self.result.load = max(self.result.load, os.getloadavg()[0] / (os.cpu_count() or 1))
            if each == "consumer":
                _kill(consumer)
                time.sleep(self._random.uniform(0.0, 1.0))  # noqa: TID251  # as above
                consumer = self._start(processes.consume, self._url, self._keys)
            elif each in {"database", "both"}:
                self._cluster.stop(immediate=True)
                victim = self._random.randrange(_WATCHERS)
                if each == "both":
                    _kill(watchers[victim])
                time.sleep(self._random.uniform(1.0, 4.0))  # noqa: TID251  # as above
                self._cluster.start()
                if each == "both":
                    watchers[victim] = self._start_watcher()
            else:
                self._disturb(each, watchers)
        caller.join()
        self._until(self._is_done, self._end, "not everything has ended")
        self.result.seconds = time.monotonic() - began
        self._check()

    # Callers.

    def _call(self) -> None:
        """Store tasks all the time, as a program does that calls again after an error."""
        chance = random.Random(self._random.random())
        calls: list[tuple[str, str, bool]] = [(name, key, True) for key, name in self._submitted.items()]
        calls += [(name, task, False) for name, tasks in self._watched.items() for task in tasks]
        chance.shuffle(calls)
        pieces = [sorted(calls[at : at + _AT_ONCE]) for at in range(0, len(calls), _AT_ONCE)]
        again = chance.sample(pieces, len(pieces) // 20)
        for at, piece in enumerate([*pieces, *again]):
            if at < len(pieces):
                self._create_tasks(piece, chance)
            while not self._stopping.is_set():
                try:
                    self._store_tasks(piece)
                except StoreUnavailable:
                    self._stopping.wait(0.2)
                else:
                    break
            self._stopping.wait(_ARRIVING / len(pieces))

    def _create_tasks(self, piece: list[tuple[str, str, bool]], chance: random.Random) -> None:
        """Let the tasks that are only watched begin at the vendor."""
        for connection, name, is_submission in piece:
            if not is_submission:
                self._vendor.send((connection, {name: chance.uniform(1.0, _LONGEST)}))
                self._vendor.recv()

    def _store_tasks(self, piece: list[tuple[str, str, bool]]) -> None:
        with self._store.begin() as tx:
            for connection, name, is_submission in piece:
                if is_submission:
                    tx.submit(connection, "convert", f"https://files.test/{name}", key=name, to="pdf")
                else:
                    tx.watch(f"{connection}:{name}")

    # Processes.

    def _start_watcher(self) -> ForkServerProcess:
        self._names += 1
        config = self._folder / f"watcher-{self._names}.toml"
        config.write_text(
            "".join(
                f'[connections.{name}]\nprovider = "cloudconvert"\napi_key = "{"k" * 20}"\n'
                f'base_url = "http://127.0.0.1:{self._port}/watcher-{self._names}/{name}/v2"\n'
                f"requests_per_second = {_LIMIT}\n"
                for name in _ACCOUNTS
            ),
            encoding="utf-8",
        )
        return self._start(processes.watch, self._url, config)

    def _start(self, work: Callable[..., None], *arguments: Any) -> ForkServerProcess:
        process = _SPAWN.Process(target=work, args=arguments, daemon=True)
        process.start()
        self._stack.callback(_kill, process)
        return process

    def _disturb(self, what: str, watchers: list[ForkServerProcess]) -> None:
        """Kill, stop or pause a watcher, mostly one that owns something."""
        before = self._until(self._owners, 30.0, "the database cannot be read")
        owning = [each for each in watchers if any(_is_of(row, each) for row in before.values())]
        victim = self._random.choice(
            owning if owning and (what == "stop" or self._random.random() < _OWNING) else watchers
        )
        assert victim.pid is not None
        at = time.time()
        if what == "pause":
            os.kill(victim.pid, signal.SIGSTOP)
            time.sleep(self._random.uniform(0.2, 3.0))  # noqa: TID251  # too short to lose its locks
            os.kill(victim.pid, signal.SIGCONT)
            return
        how = signal.SIGKILL if what == "kill" else signal.SIGSTOP
        os.kill(victim.pid, how)
        for name, row in before.items():
            if _is_of(row, victim):
                self._measure(how.name, name, row.epoch, at)
        if how is signal.SIGSTOP:
            os.kill(victim.pid, signal.SIGCONT)
        else:
            _kill(victim)
            watchers[watchers.index(victim)] = self._start_watcher()

    def _measure(self, how: str, connection: str, epoch: int, at: float) -> None:
        limit = _LIMITS[how] + allowance(os.getloadavg()[0] / (os.cpu_count() or 1))

        self._late = []

        def has_next() -> Any:
            row = self._owners().get(connection)
            if row is not None and row.epoch > epoch:
                return row
            if time.time() - at > limit + len(self._late) * _EVERY:
                self._late.append(self._sessions())
            return None

        row = self._until(has_next, 60.0, f"no process took over {connection} after {how}")
        seconds = row.owner_since - at
        self.result.takeovers[how].append(seconds)
        if seconds > limit:
            raise Violation(f"{connection} had no owner for {seconds:.1f} s after {how}; the limit is {limit:.1f} s")

    # The end.

    def _owners(self) -> dict[str, Any]:
        with self._store.database.reading() as opened:
            rows = opened.execute(select(ACCOUNT.c.connection, ACCOUNT.c.epoch, ACCOUNT.c.owner, ACCOUNT.c.owner_since))
            return {row.connection: row for row in rows}

    def _count(self, table: Any, *conditions: Any) -> int:
        with self._store.database.reading() as opened:
            return opened.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()

    def _is_done(self) -> bool:
        return (
            not self._count(INTENT, INTENT.c.phase.in_([Phase.PLANNED, Phase.SENDING]))
            and not self._count(WATCH, WATCH.c.state == State.OPEN)
            and len(set(self._delivered())) >= self._count(EVENT)
        )

    def _delivered(self) -> list[str]:
        return self._keys.read_text().splitlines() if self._keys.exists() else []

    def _check(self) -> None:
        with self._store.database.reading() as opened:
            events = opened.execute(select(EVENT.c.key, EVENT.c.kind, EVENT.c.ref, EVENT.c.body)).all()
            taken = opened.execute(select(INTENT.c.key, INTENT.c.ref)).all()
        refs = {f"{name}:{task}" for name, tasks in self._watched.items() for task in tasks}
        others = [each for each in events if each.kind not in {EventKind.ENDED, EventKind.SUBMITTED}]
        if others:
            raise Violation(f"{len(others)} tasks were not ended, such as {others[0].ref}: {others[0].body['error']}")
        _expect("submissions in the store", Counter(each.key for each in taken), Counter(list(self._submitted)))
        _expect(
            "ends",
            Counter(each.ref for each in events if each.kind == EventKind.ENDED),
            Counter([*refs, *(each.ref for each in taken)]),
        )
        statuses = Counter(each.body["task"]["status"] for each in events if each.kind == EventKind.ENDED)
        _expect("statuses", statuses, Counter({"completed": len(refs) + len(taken)}))
        self._vendor.send(None)
        seen: vendor.Report = self._vendor.recv()
        _expect(
            "submissions at the vendor",
            seen.submissions,
            Counter(f"https://files.test/{key}" for key in self._submitted),
        )
        delivered = Counter(self._delivered())
        _expect("delivered events", Counter(set(delivered)), Counter(each.key for each in events))
        self.result.again = delivered.total() - len(delivered)
        self.result.polls, self.result.repeated = seen.polls + seen.lists, seen.repeated

    def _sessions(self) -> str:
        """Return what the sessions of the database do, which locks they hold, and who holds them up."""
        with self._store.database.reading() as opened:
            rows = [" ".join(map(str, row)) for row in opened.execute(text(_SESSIONS))]
        return "\n".join([f"sessions at {time.time():.1f}", *rows])

    def log(self) -> str:
        """Return what a takeover that is late waits for, and what the watchers have logged last."""
        lines = [
            f"{file.stem}: {line}"
            for file in sorted(self._folder.glob("*.log"))
            for line in [each for each in file.read_text().splitlines() if "submit" not in each][-_LOGGED:]
        ]
        return "\n".join([*self._late, *lines])

    def _until(self, condition: Callable[[], Any], seconds: float, problem: str) -> Any:
        end = time.monotonic() + seconds
        while True:
            with suppress(StoreUnavailable):
                if value := condition():
                    return value
            if time.monotonic() > end:
                raise Violation(problem)
            time.sleep(0.1)  # noqa: TID251  # other processes work, in real time


def _is_of(row: Any, process: ForkServerProcess) -> bool:
    return (row.owner or "").startswith(f"process {process.pid} on ")


def _kill(process: ForkServerProcess) -> None:
    process.kill()
    process.join()


def _expect(what: str, found: Counter[Any], expected: Counter[Any]) -> None:
    if found != expected:
        lacking, surplus = expected - found, found - expected
        raise Violation(
            f"{what}: {lacking.total()} lack ({', '.join(map(str, list(lacking)[:5]))}), "
            f"{surplus.total()} are too many ({', '.join(map(str, list(surplus)[:5]))})"
        )


def _spread(seconds: list[float]) -> str:
    return f"{median(seconds):.1f} (at most {max(seconds):.1f}) s" if seconds else "—"


@contextmanager
def _played(seed: int, tasks: int, running: Cluster) -> Generator[Played]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        running.start()
        yield Played(seed, tasks, running, Path(folder), stack)


def main() -> int:
    """Play the seeds; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m store.kills")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds are played")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--tasks", type=int, default=2000, help="tasks of each seed")
    given = parser.parse_args()
    reason = missing()
    if reason:
        _print(f"no kills are played: {reason}")
        return 0
    _SPAWN.set_forkserver_preload(["store.kills.processes", "store.kills.vendor", "taskbridge_cloudconvert"])
    results: list[Result] = []
    with cluster() as running:
        for seed in range(given.first, given.first + given.seeds):
            with _played(seed, given.tasks, running) as played:
                try:
                    played.play()
                except Violation as error:
                    _print(f"seed {seed}: {error}\n{played.log()}")
                    _print(f"play it again: make test-kills SEEDS=1 FIRST={seed} TASKS={given.tasks}")
                    return 1
            results.append(played.result)
            _print(f"seed {seed}: {played.result}")
    together = _together(results)
    _print(f"{len(results)} seeds, nothing lost, nothing doubled: {together}")
    if together.repeated > _REPEATED * together.polls:
        _print(
            f"missed: {together.repeated / together.polls:.1%} of the polls were repeated, more than {_REPEATED:.0%}"
        )
    return 0


def _together(results: list[Result]) -> Result:
    """Return the median of the seconds, the highest load, and everything else of all seeds."""
    together = Result(median(each.seconds for each in results), load=max(each.load for each in results))
    for each in results:
        for how, seconds in each.takeovers.items():
            together.takeovers[how] += seconds
        together.disturbed += each.disturbed
        together.polls += each.polls
        together.repeated += each.repeated
        together.again += each.again
    return together


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # a program prints


if __name__ == "__main__":
    sys.exit(main())
