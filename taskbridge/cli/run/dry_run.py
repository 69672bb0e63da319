"""``run --dry-run``: what a run would submit, and what it would refuse. Nothing is sent and nothing is written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from taskbridge._engine.error_text import error_text
from taskbridge._engine.inputs import is_url
from taskbridge.cli.exit_codes import DONE, PARTIAL
from taskbridge.cli.records import error_record
from taskbridge.cli.run.plan import preview_run
from taskbridge.errors import TaskbridgeError, printable
from taskbridge.store.runs.files import FilePhase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.cli.output import Output
    from taskbridge.cli.run.plan import RunRequest
    from taskbridge.store.runs.files import RunFile

# Phase of a file -> what a run would do with it.
_STATES: Final[Mapping[FilePhase, str]] = {
    FilePhase.PLANNED: "submit",
    FilePhase.SUBMITTING: "recover",
    FilePhase.ACCEPTED: "wait",
    FilePhase.DONE: "done",
    FilePhase.FAILED: "failed",
    FilePhase.FORGOTTEN: "forgotten",
}


def show_dry_run(output: Output, request: RunRequest) -> int:
    """Write what a run would do with each file; return the exit code: not 0 if it would refuse some."""
    client, terms, files = preview_run(output, request)
    counts: Counter[str] = Counter()
    width = min(60, max((len(printable(each.folder)) for each in files), default=0))
    with client, output.signals.raising():
        for file in files:
            error: Exception | None = None
            if file.phase is FilePhase.PLANNED:
                try:
                    if not is_url(file.source):
                        Path(file.source).open("rb").close()  # `can` judges a missing file by its name
                    error = client.can(terms.operation, file.source, options=terms.options, **terms.neutral).error
                except OSError as problem:
                    error = problem
                output.signals.check()
            state = _STATES[file.phase] if error is None else "refuse"
            counts[state] += 1
            if output.as_json:
                output.record(_record(file, state, error))
            else:
                reason = "" if error is None else printable(error_text(error), 500)
                output.line(f"{printable(file.folder, 200).ljust(width)}  {state:<7}  {reason}".rstrip())
    if output.as_json:
        output.record({"files": len(files), "counts": dict(sorted(counts.items())), "dry_run": True})
    else:
        parts = ", ".join(f"{counts[state]} {state}" for state in (*_STATES.values(), "refuse") if counts[state])
        output.note(f"taskbridge: dry run of {len(files)}: {parts}; nothing was sent")
    return PARTIAL if counts["refuse"] else DONE


def _record(file: RunFile, state: str, error: Exception | None) -> dict[str, Any]:
    return {
        "file": file.source.partition("?")[0] if is_url(file.source) else file.source,
        "folder": file.folder,
        "state": state,
        "ref": file.ref,
        "error": None
        if error is None
        else error_record(error)
        if isinstance(error, TaskbridgeError)
        else {"type": type(error).__name__, "message": printable(str(error))},
    }
