"""``download``: download the results of finished tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskbridge._engine.error_text import os_error_text
from taskbridge.cli.exit_codes import DONE, code_of
from taskbridge.cli.options import open_refs, refs_argument, with_config, with_json, with_max_bytes
from taskbridge.cli.records import result_record
from taskbridge.errors import InvalidInput, TaskbridgeError, printable

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.cli.output import Output
    from taskbridge.client import Bridge
    from taskbridge.models import TaskRef


@click.command(name="download")
@refs_argument
@click.option("--to", default=".", show_default=True, metavar="DIR", help="The folder to write to.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@with_max_bytes
@with_json
@with_config
@click.pass_obj
def command(output: Output, refs: tuple[str, ...], to: str, *, max_bytes: int | None, force: bool) -> int:
    """Download all results of finished tasks and print the paths. Does not wait for running tasks."""
    worst = DONE
    with output.signals.reporting(output.stopped):
        bridge, opened = open_refs(output, refs)
        with bridge, output.signals.raising():
            for ref in opened:
                code = _download(output, bridge, ref, to, max_bytes, force=force)
                output.signals.check()
                worst = max(worst, code)
    return worst


def _download(output: Output, bridge: Bridge, ref: TaskRef, to: str, max_bytes: int | None, *, force: bool) -> int:
    files: tuple[Path, ...] = ()
    error: TaskbridgeError | None = None
    try:
        files = bridge.download(ref, to, max_bytes=max_bytes, overwrite=force)
    except FileExistsError as failure:
        error = InvalidInput(f"{printable(str(failure.filename), 300)} already exists; --force overwrites it", ref=ref)
    except TaskbridgeError as failure:
        error = failure.about(ref=ref)
    except OSError as failure:
        error = InvalidInput(os_error_text(failure), ref=ref)
    if output.as_json:
        output.record(result_record(ref, error, files=[str(path) for path in files]))
    elif error is not None:
        output.error(error)
    else:
        for path in files:
            output.line(printable(str(path), 4096))
    return code_of(error)
