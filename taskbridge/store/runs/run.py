"""`Store.run`: a run from beginning to end, in the caller's thread."""

from __future__ import annotations

from collections.abc import Callable

from taskbridge.models import total_usage
from taskbridge.store.runs.files import FileUpdate, RunSummary
from taskbridge.store.runs.plan import RunPlan, begin_run
from taskbridge.store.runs.stored import StoredRun
from taskbridge.store.runs.worker import FileRunner, RunLimits, RunPool, ended_before


def run_files(run: StoredRun, plan: RunPlan, limits: RunLimits, notify: Callable[[FileUpdate], object]) -> RunSummary:
    """Take all files of a run as far as possible.

    Raises:
        TaskbridgeError: The run cannot begin, or the store cannot be written any more.
        OSError: The folder for the results cannot be created, or none of the files exists.
    """
    known = run.terms()
    client, terms = plan.connect_new() if known is None else plan.reconnect(known)
    with client, run:
        plan.folder.mkdir(parents=True, exist_ok=True)
        begin_run(run, plan, client, terms)
        latest = {file.number: ended_before(file) for file in run.files()}
        pool = RunPool(FileRunner(client, run, terms, limits), limits.max_in_flight)
        try:
            pool.start(update.file for update in latest.values() if update.step == "skipped")
            while (update := pool.updates.get()) is not None:
                latest[update.file.number] = update
                notify(update)
        finally:
            pool.stop()
            for update in pool.drain():
                latest[update.file.number] = update
    if pool.store_error is not None:
        raise pool.store_error
    return RunSummary(
        files=tuple(latest[number] for number in sorted(latest)),
        usage=total_usage(update.file.usage for update in latest.values()),
        refusal=pool.refusal,
        is_cost_reached=pool.is_cost_reached,
    )
