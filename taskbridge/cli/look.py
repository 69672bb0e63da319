"""``get`` and ``result``: one look, and what a task made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.cli.codes import DONE, code_of, outcome_code
from taskbridge.cli.records import outcome_record, result_record, resume_command
from taskbridge.cli.refs import open_refs, unheard
from taskbridge.cli.texts import result_block, task_block
from taskbridge.cli.wait import tell_resume
from taskbridge.errors import AuthenticationError, TaskbridgeError, WaitTimeout, printable
from taskbridge.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskbridge.cli.screen import Screen
    from taskbridge.client import Bridge
    from taskbridge.models import TaskRef, TaskResult

__all__ = ["get_all", "show_result"]


def get_all(screen: Screen, texts: Sequence[str], config: str | None) -> int:
    """Look each task up once; the exit code."""
    worst = DONE
    with screen.signals.told(screen.stopped):
        bridge, refs = open_refs(screen, config, texts)
        if len(refs) == 1:
            unheard()
        with bridge, screen.signals.raising():
            for outcome in _looks(bridge, refs):
                screen.signals.check()  # else its error may be the signal's
                _show(screen, outcome, more=len(refs) > 1)
                worst = max(worst, outcome_code(outcome))
    return worst


def _looks(bridge: Bridge, refs: Sequence[TaskRef]) -> Iterator[Outcome]:
    refused: dict[str, TaskbridgeError] = {}  # a refused key is not tried again for each task
    for ref in refs:
        try:
            if ref.connection in refused:
                yield Outcome(ref, None, refused[ref.connection].again(ref=ref))
            else:
                yield Outcome(ref, bridge.get(ref))
        except AuthenticationError as error:
            refused[ref.connection] = error
            yield Outcome(ref, None, error.about(ref=ref))
        except TaskbridgeError as error:
            yield Outcome(ref, None, error.about(ref=ref))


def _show(screen: Screen, outcome: Outcome, *, more: bool) -> None:
    if screen.as_json:
        screen.record(outcome_record(outcome))
    elif outcome.task is not None:
        screen.line(task_block(outcome.task) + ("\n" if more else ""))
    elif outcome.error is not None:
        screen.problem(outcome.error)


def show_result(screen: Screen, text: str, timeout: float | None, config: str | None) -> int:
    """Show what a task made; the exit code."""
    shown = text

    def tell(cause: str) -> None:
        tell_resume(screen, cause, {shown: None}, resume_command("result", [shown], config))

    with screen.signals.told(tell):
        bridge, (ref,) = open_refs(screen, config, [text])
        shown = ref
        made = _made(screen, bridge, ref, timeout)
    with screen.signals.raising():
        if isinstance(made, TaskbridgeError):
            _refused(screen, made, resume_command("result", [ref], config))
            return code_of(made)
        if screen.as_json:
            screen.record(result_record(ref, made, None))
        else:
            screen.line(result_block(ref, made))
    bridge.close()
    return DONE


def _made(screen: Screen, bridge: Bridge, ref: TaskRef, timeout: float | None) -> TaskResult | TaskbridgeError:
    try:
        with screen.signals.raising():
            return bridge.result(ref, timeout)
    except TaskbridgeError as error:
        return error.about(ref=ref)


def _refused(screen: Screen, error: TaskbridgeError, resume: str) -> None:
    ref = error.ref or ""
    if screen.as_json:
        screen.record(result_record(ref, None, error))
    else:
        screen.note(f"taskbridge: {printable(str(error))}")
    if isinstance(error, WaitTimeout):
        tell_resume(screen, "timeout", {ref: error.task}, resume)
