"""What the commands do that change something at a vendor, or bring something home."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, cast

from taskbridge.cli.codes import DONE, code_of
from taskbridge.cli.records import error_record, outcome_record
from taskbridge.cli.refs import listen, open_client, open_refs
from taskbridge.cli.texts import complaints, row, task_block, words_of, words_of_file
from taskbridge.errors import InvalidInput, InvalidRequest, SubmitUncertain, TaskbridgeError, TaskNotFound, printable
from taskbridge.models import Outcome, TaskRef

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from taskbridge.cli.screen import Screen
    from taskbridge.client import Bridge, Client
    from taskbridge.models import Task

__all__ = ["do_to_all", "download_all", "list_tasks", "recover_one", "submit_one"]


def submit_one(
    screen: Screen,
    operation: str,
    documents: Sequence[str],
    order: Mapping[str, Any],
    *,
    connection: str | None,
    config: str | None,
) -> int:
    """Hand documents to a vendor as one order, and show its task; the exit code.

    Raises:
        TaskbridgeError: It was not taken, or nobody knows.
    """
    recovery_token: dict[str, Any] = {}

    def tell(word: str) -> None:
        screen.stopped(word)
        if recovery_token:
            _tell_doubt(screen, recovery_token, documents, config)

    with screen.signals.told(tell):
        client = _opened(screen, connection, config)
        given: Any = list(documents) if len(documents) > 1 else next(iter(documents), None)
        task: Task | None = None
        fault = ""
        try:
            with screen.signals.raising():
                task = client.submit(operation, given, before_submit=recovery_token.update, **order)
        except SubmitUncertain as error:
            screen.signals.check()
            screen.problem(error)
            _tell_doubt(screen, error.recovery_token, documents, config)
            return code_of(error)
        except InvalidRequest as error:
            screen.signals.check()
            words = complaints(error)
            raise error.again(message=f"{error.message} {words}".strip()) from None
        except OSError as error:
            if isinstance(error, TaskbridgeError):
                raise
            fault = words_of_file(error)
        if task is None:
            raise InvalidInput(fault)
        _show_task(screen, task)
    client.close()
    return DONE


def _tell_doubt(
    screen: Screen, recovery_token: Mapping[str, Any], documents: Sequence[str], config: str | None
) -> None:
    """Tell the command that looks for an order of unknown fate."""
    chosen = ["--config", config] if config is not None else []
    look = shlex.join(["taskbridge", "recover", *chosen, json.dumps(dict(recovery_token)), *documents])
    if screen.as_json:
        screen.note_record({"recover": look})
    else:
        screen.note(f"look for it with: {look}")


def recover_one(screen: Screen, recovery_token: str, documents: Sequence[str], config: str | None) -> int:
    """Look for an order of unknown fate, and show its task; the exit code.

    Raises:
        TaskbridgeError: It cannot be looked for.
    """
    with screen.signals.told(screen.stopped):
        lost = SubmitUncertain("nobody knows whether the vendor took it", recovery_token=_read_clue(recovery_token))
        client = _opened(screen, str(lost.recovery_token["connection"]), config)
        given: Any = list(documents) if len(documents) > 1 else next(iter(documents), None)
        with screen.signals.raising():
            task = client.recover(lost, given)
        if task is None:
            raise TaskNotFound("the vendor does not have the order, or not yet: look again in a minute")
        _show_task(screen, task)
    client.close()
    return DONE


def _read_clue(text: str) -> Mapping[str, Any]:
    try:
        recovery_token: object = json.loads(text)
    except ValueError:
        recovery_token = None
    if not isinstance(recovery_token, dict) or "connection" not in recovery_token:
        raise InvalidInput("the clue is what submit told of an order of unknown fate: a JSON object in quotes")
    return cast("Mapping[str, Any]", recovery_token)


def _show_task(screen: Screen, task: Task) -> None:
    if screen.as_json:
        screen.record(outcome_record(Outcome(task.ref, task)))
    else:
        screen.line(task_block(task))


def _opened(screen: Screen, connection: str | None, config: str | None) -> Client:
    listen(screen)
    return open_client(config, connection)


def list_tasks(
    screen: Screen,
    connection: str | None,
    config: str | None,
    *,
    status: str | None,
    limit: int | None,
    filters: Mapping[str, Any],
) -> int:
    """Show a vendor's tasks; the exit code."""
    with screen.signals.told(screen.stopped):
        client = _opened(screen, connection, config)
        with client, screen.signals.raising():
            for task in client.list(status, limit=limit, **filters):
                if screen.as_json:
                    screen.record(outcome_record(Outcome(task.ref, task)))
                else:
                    when = f"{task.created_at:%Y-%m-%d %H:%M}" if task.created_at else "-"
                    screen.line(f"{printable(task.ref, 600)}  {when:<16}  {task.status:<10}  {words_of(task)}")
    return DONE


def do_to_all(
    screen: Screen,
    texts: Sequence[str],
    config: str | None,
    act: Callable[[Bridge, TaskRef], Task | None],
) -> int:
    """Do one thing to each task, also where it fails for another; the exit code.

    Args:
        screen: Where to.
        texts: Refs.
        config: The configuration.
        act: What to do; gives the task as it is then, None where there is none any more.
    """
    worst = DONE
    with screen.signals.told(screen.stopped):
        bridge, refs = open_refs(screen, config, texts)
        with bridge, screen.signals.raising():
            for ref in refs:
                outcome = _done(bridge, ref, act)
                screen.signals.check()  # else its error may be the signal's
                worst = max(worst, DONE if outcome.error is None else code_of(outcome.error))
                _show(screen, ref, outcome)
    return worst


def _done(bridge: Bridge, ref: TaskRef, act: Callable[[Bridge, TaskRef], Task | None]) -> Outcome:
    try:
        return Outcome(ref, act(bridge, ref))
    except TaskbridgeError as error:
        return Outcome(ref, None, error.about(ref=ref))


def _show(screen: Screen, ref: TaskRef, outcome: Outcome) -> None:
    if screen.as_json:
        error = outcome.error
        task = outcome_record(outcome)["task"] if outcome.task is not None else None
        record = {"ref": ref, "task": task, "error": None if error is None else error_record(error)}
        screen.record({**record, "exit_code": DONE if error is None else code_of(error)})
    elif outcome.error is not None:
        screen.problem(outcome.error)
    elif outcome.task is not None:
        screen.line(row(outcome.task, len(ref)))
    else:
        screen.line(f"{ref}  deleted")


def download_all(screen: Screen, texts: Sequence[str], to: str, config: str | None, *, force: bool) -> int:
    """Bring home what tasks made; the exit code."""
    worst = DONE
    with screen.signals.told(screen.stopped):
        bridge, refs = open_refs(screen, config, texts)
        with bridge, screen.signals.raising():
            for ref in refs:
                code = _bring(screen, bridge, ref, to, force=force)
                screen.signals.check()
                worst = max(worst, code)
    return worst


def _bring(screen: Screen, bridge: Bridge, ref: TaskRef, to: str, *, force: bool) -> int:
    files: tuple[Path, ...] = ()
    fault: TaskbridgeError | None = None
    try:
        files = bridge.download(ref, to, overwrite=force)
    except FileExistsError as error:
        fault = InvalidInput(f"{printable(str(error.filename), 300)} is there already; --force replaces it", ref=ref)
    except TaskbridgeError as error:
        fault = error.about(ref=ref)
    except OSError as error:
        fault = InvalidInput(words_of_file(error), ref=ref)
    code = DONE if fault is None else code_of(fault)
    if screen.as_json:
        told = None if fault is None else error_record(fault)
        screen.record({"ref": ref, "files": [str(path) for path in files], "error": told, "exit_code": code})
    elif fault is not None:
        screen.problem(fault)
    else:
        for path in files:
            screen.line(printable(str(path), 4096))
    return code
