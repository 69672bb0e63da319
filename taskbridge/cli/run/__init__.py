"""``run``: submit, wait for and download many files, with each step stored, from which a later run resumes."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from queue import Empty
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import click

from taskbridge.cli.exit_codes import BROKEN, COST_REACHED, DONE, PARTIAL, UNREACHABLE, code_of
from taskbridge.cli.options import (
    parse_seconds,
    with_config,
    with_connection,
    with_json,
    with_max_bytes,
    with_neutral,
    with_options,
    with_timeout,
)
from taskbridge.cli.output import is_live
from taskbridge.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskbridge.cli.output import Output
    from taskbridge.cli.run.plan import RunRequest
    from taskbridge.cli.run.progress import ResumeCommand, RunProgress
    from taskbridge.store.runs.files import FileUpdate
    from taskbridge.store.runs.stored import StoredRun
    from taskbridge.store.runs.worker import RunPool

_NOTE_INTERVAL: Final = 60.0  # seconds between two lines that say how far a run is
_UNLIMITED: Final = 86_400.0  # seconds that stand for `--settle none`


@click.command(name="run")
@click.argument("words", nargs=-1, metavar="OPERATION FILE...")
@click.option("--to", required=True, metavar="DIR", help="The folder for the results; each file gets a subfolder.")
@with_connection
@with_neutral
@with_options
@click.option("--files-from", metavar="LIST", help="A file that names more files, one per line; - for standard input.")
@click.option(
    "--max-in-flight",
    type=click.IntRange(1, 500),
    default=8,
    show_default=True,
    metavar="N",
    help="Most files at the vendor at once.",
)
@click.option("--store", metavar="URL", help="The store: a file, or a URL; default: taskbridge-run.sqlite in DIR.")
@click.option("--resume", is_flag=True, help="Resume the run if the store has it; OPERATION and FILE may be omitted.")
@click.option(
    "--resubmit-uncertain",
    is_flag=True,
    help="Resubmit files that the vendor may have accepted, if it has no way to look them up.",
)
@click.option(
    "--settle",
    callback=parse_seconds,
    default="60",
    show_default=True,
    metavar="SECONDS",
    help="How long an uncertain submission may take to appear at the vendor.",
)
@click.option(
    "--max-cost",
    type=click.FloatRange(0, min_open=True),
    metavar="AMOUNT",
    help="Submit no more files once the known cost of all reaches this, in the vendor's unit (credits, pages).",
)
@click.option("--dry-run", is_flag=True, help="Print what would be submitted and what is refused; send nothing.")
@with_timeout
@with_max_bytes
@with_json
@with_config
@click.pass_obj
def command(
    output: Output,
    /,
    *,
    words: tuple[str, ...],
    to: str,
    files_from: str | None,
    max_in_flight: int,
    timeout: float | None,
    settle: float | None,
    max_bytes: int | None,
    resubmit_uncertain: bool,
    max_cost: float | None,
    dry_run: bool,
    **given: Any,
) -> int:
    """Submit, wait for and download many files, recording each step.

    A FILE is a path, a folder (the files in it), a pattern, or a URL. One bad file never stops the others. However the
    run ends, the same command with --resume continues from its store, and no file is submitted twice: an uncertain
    submission is looked up first.
    """
    from taskbridge.cli.run.plan import RunRequest  # noqa: PLC0415  # heavy
    from taskbridge.store.runs.worker import RunLimits  # noqa: PLC0415  # as above

    if not given["resume"] and (not words or not (words[1:] or files_from)):
        raise click.UsageError("An operation and at least one file are needed.")
    limits = RunLimits(
        max_in_flight, timeout, _UNLIMITED if settle is None else settle, resubmit_uncertain, max_bytes, max_cost
    )
    request = RunRequest(words=words, list_path=files_from, to=to, limits=limits, **given)
    if dry_run:
        from taskbridge.cli.run.dry_run import show_dry_run  # noqa: PLC0415  # heavy

        return show_dry_run(output, request)
    return _run(output, request)


def _run(output: Output, request: RunRequest) -> int:
    """Process all files as far as possible; return the exit code."""
    from taskbridge.cli.run.plan import open_run  # noqa: PLC0415  # heavy
    from taskbridge.cli.run.progress import RunProgress, show_stop  # noqa: PLC0415  # as above
    from taskbridge.store.runs.worker import FileRunner, RunPool  # noqa: PLC0415  # as above

    run: StoredRun | None = None
    progress: RunProgress | None = None

    def report(word: str) -> None:
        if run is None:
            output.stopped(word)
        else:
            in_table = progress is not None and is_live()
            known = progress or RunProgress(run.files())
            show_stop(output, word, known, request.resume_command(), in_table=in_table)

    with ExitStack() as stack, output.signals.reporting(report):
        closing, run, client, terms = open_run(output, request)
        stack.enter_context(closing)
        if not run.is_owner and not output.as_json:
            output.note(f"taskbridge: {run.owner_of(client.name)} submits the files and polls their tasks")
        pool = RunPool(FileRunner(client, run, terms, request.limits), request.limits.max_in_flight)
        progress = RunProgress(run.files())
        with client.observe(progress.observe), _view(output, progress) as show:
            try:
                with output.signals.raising():
                    for known in progress.known_updates():
                        progress.update(known)
                        show(known)
                    pool.start(progress.unfinished())
                    for update in _updates(output, pool, progress):
                        progress.update(update)
                        show(update)
            finally:
                pool.stop()
                for last in pool.drain():
                    progress.update(last)
                if pool.store_error is None:
                    progress.stop(run.files())
    return _show_end(output, request, pool, progress)


def _updates(output: Output, pool: RunPool, progress: RunProgress) -> Iterator[FileUpdate]:
    """Yield the updates of a run; where no table shows it, write now and then how far it is."""
    quiet = output.as_json or is_live()
    noted = monotonic()
    while True:
        try:
            update = pool.updates.get(timeout=None if quiet else max(0.0, noted + _NOTE_INTERVAL - monotonic()))
        except Empty:
            noted = monotonic()
            waiting = progress.waiting_for()
            output.note(f"taskbridge: {progress.summary()}{f'; waiting for: {waiting}' if waiting else ''}")
            continue
        if update is None:
            return
        yield update


def _view(output: Output, progress: RunProgress) -> AbstractContextManager[Callable[[FileUpdate], None]]:
    """Return the view of a run: entering it returns a function that shows an update."""
    if output.as_json or not is_live():
        from taskbridge.cli.run.progress import show_line  # noqa: PLC0415  # heavy

        width = min(60, max((len(printable(each.folder)) for each in progress.files.values()), default=0))
        return nullcontext(partial(show_line, output, width))
    try:
        from taskbridge.cli.run.live_table import RunTable  # noqa: PLC0415  # needs rich, on terminals only
    except ModuleNotFoundError as error:
        from taskbridge._config.registry import require_extra  # noqa: PLC0415  # only for this message

        raise require_extra(error.name or "rich", "cli", "the table of a run") from None
    return RunTable(progress)


def _show_end(output: Output, request: RunRequest, pool: RunPool, progress: RunProgress) -> int:
    """Write how the run ended; return the exit code."""
    if pool.refusal is not None:
        output.error(pool.refusal, "nothing more was submitted: ")
    if pool.store_error is not None:
        output.note(f"taskbridge: {pool.store_error}; nothing more was submitted")
    resume = request.resume_command() if progress.is_resumable else None
    if output.as_json:
        counts = {step: count for step, count in sorted(progress.steps.items()) if count}
        output.record(
            {
                "files": len(progress.files),
                "counts": counts,
                "usage": progress.usage,
                "max_cost_reached": pool.is_cost_reached,
                "resume": None if resume is None else resume.line,
                "resume_note": None if resume is None else resume.note,
            }
        )
    else:
        _note_end(output, pool, progress, resume)
    if pool.store_error is not None:
        return BROKEN
    if pool.refusal is not None:
        return code_of(pool.refusal)
    if progress.unreachable:
        return UNREACHABLE
    if pool.is_cost_reached:
        return COST_REACHED
    return DONE if progress.is_complete else PARTIAL


def _note_end(output: Output, pool: RunPool, progress: RunProgress, resume: ResumeCommand | None) -> None:
    """Write how the run ended, and what can be done about the files that are not done."""
    from taskbridge.cli.run.progress import note_resume  # noqa: PLC0415  # heavy

    if not is_live():  # the table has it already
        output.note(f"taskbridge: {progress.summary()}")
    if progress.unreachable:
        output.note(f"taskbridge: timed out because {', '.join(sorted(progress.unreachable))} could not be reached")
    if progress.steps["uncertain"]:
        output.note("resubmit uncertain files with --resubmit-uncertain, after checking at the vendor")
    if pool.is_cost_reached:
        output.note("the known cost reached --max-cost, so the rest was not submitted; raise it to go on")
    if resume is not None:
        note_resume(output, resume)
