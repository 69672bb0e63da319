"""A rehearsal of leaving a vendor: the same documents to two connections, and what each made of them, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import SequenceMatcher, unified_diff
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from taskbridge._config.defaults import default_clock
from taskbridge._config.files import load_config
from taskbridge._engine.inputs import is_url
from taskbridge.cli.codes import DONE, FAILED, code_of
from taskbridge.cli.inputs import label_of, sources_of
from taskbridge.cli.records import error_record
from taskbridge.cli.refs import listen, open_bridge
from taskbridge.cli.texts import several, words_of_file
from taskbridge.errors import ConfigError, InvalidInput, TaskbridgeError, TaskFailed, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from taskbridge.cli.screen import Screen
    from taskbridge.client import Bridge
    from taskbridge.models import Outcome, TaskResult
    from taskbridge.provider.clock import Clock

__all__ = ["compare"]

_DIFF_LINES: Final = 20  # of a difference that people are shown
_LONGEST: Final = 200_000  # characters of a text that are compared
_CELL: Final = 33  # columns of one side


@dataclass(slots=True)
class _Side:
    """What one connection made of one document.

    Attributes:
        connection: Its name.
        begun: When it was submitted.
        seconds: From then to the end that was noticed; None where there was none.
        path: The vendor's words, each once in a row.
        result: What it made.
        error: Why there is no result.
    """

    connection: str
    begun: datetime
    seconds: float | None = None
    path: list[str] = field(default_factory=list[str])
    result: TaskResult | None = None
    error: TaskbridgeError | None = None

    @property
    def record(self) -> dict[str, Any]:
        return {
            "connection": self.connection,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "path": self.path,
            "result": None if self.result is None else _shape(self.result),
            "error": None if self.error is None else error_record(self.error),
        }


_Pair: TypeAlias = tuple[_Side, _Side]


def compare(
    screen: Screen,
    connections: tuple[str, str],
    documents: Sequence[str],
    operation: str,
    *,
    timeout: float | None,
    config: str | None,
) -> int:
    """Submit documents to two connections, wait, and show the difference; the exit code.

    Raises:
        ConfigError: A connection is not there, or is the other one.
        InvalidInput: There is no such document.
    """
    with screen.signals.told(screen.stopped):
        sources = sources_of(documents, None)
        missing = next((each for each in sources if not is_url(each) and not Path(each).is_file()), None)
        if missing is not None:
            raise InvalidInput(f"there is no file {printable(missing, 300)}; nothing was sent")
        bridge = _opened(screen, connections, config)
        with screen.signals.raising():
            pairs = _Rehearsal(bridge, default_clock(), operation).play(connections, sources, timeout)
        for source, (old, new) in zip(sources, pairs, strict=True):
            _show(screen, label_of(source), old, new)
        _sum_up(screen, connections, pairs)
    bridge.close()
    sides = [side for pair in pairs for side in pair]
    return max((DONE if side.error is None else code_of(side.error) for side in sides), default=FAILED)


def _opened(screen: Screen, connections: tuple[str, str], path: str | None) -> Bridge:
    listen(screen)
    if connections[0] == connections[1]:
        raise ConfigError(f"{printable(connections[0], 60)} is compared with another connection, not with itself")
    return open_bridge(load_config(path), connections)


# What happens.


class _Rehearsal:
    """Documents under way at both.

    Args:
        bridge: The two connections.
        clock: Measures how long it takes.
        operation: What is asked of both.
    """

    def __init__(self, bridge: Bridge, clock: Clock, operation: str) -> None:
        self._bridge = bridge
        self._clock = clock
        self._operation = operation
        self._under_way: dict[str, _Side] = {}

    def play(self, connections: tuple[str, str], sources: Iterable[str], timeout: float | None) -> list[_Pair]:
        """Submit all, and wait for all."""
        old, new = connections
        pairs = [(self._begin(old, source), self._begin(new, source)) for source in sources]
        for outcome in self._bridge.watch(list(self._under_way), timeout=timeout):
            self._note(self._under_way[outcome.ref], outcome)
        return pairs

    def _begin(self, connection: str, source: str) -> _Side:
        side = _Side(connection, self._clock.now())
        try:
            task = self._bridge[connection].submit(self._operation, source)
        except TaskbridgeError as error:
            side.error = error
        except OSError as error:
            side.error = InvalidInput(words_of_file(error))
        else:
            side.path.append(task.native_status or task.status)
            self._under_way[task.ref] = side
        return side

    def _note(self, side: _Side, outcome: Outcome) -> None:
        task = outcome.task
        if outcome.error is not None or task is None:
            side.error = outcome.error
            return
        word = task.native_status or task.status
        if side.path[-1] != word:
            side.path.append(word)
        if task.is_terminal:
            side.seconds = (task.observed_at - side.begun).total_seconds()
            try:
                side.result = self._bridge.result(task)
            except TaskbridgeError as error:
                side.error = error


# What is told of it.


def _shape(result: TaskResult) -> dict[str, Any]:
    """What a result is made of, without what stands in it."""
    data: Any = result.data
    return {
        "text": None if result.text is None else len(result.text),
        "files": [{"name": f.name, "media_type": f.media_type, "size": f.size} for f in result.files],
        "data": sorted(cast("dict[str, Any]", data)) if isinstance(data, dict) else _kind(data),
    }


def _kind(data: object) -> str | None:
    return None if data is None else type(data).__name__


def _texts(old: _Side, new: _Side) -> dict[str, Any] | None:
    """How alike two texts are, and where they are not; None where there are not two."""
    before, after = (side.result.text if side.result is not None else None for side in (old, new))
    if before is None or after is None:
        return None
    # By words: what a reader would call the same may be laid out in other lines.
    alike = SequenceMatcher(None, before[:_LONGEST].split(), after[:_LONGEST].split(), autojunk=False).ratio()
    names = {"fromfile": old.connection, "tofile": new.connection}
    diff = unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1, **names)
    return {"similarity": round(alike, 4), "diff": list(diff)}


def _verdict(old: _Side, new: _Side) -> str:
    """``same``, ``different``, ``only`` the one or the other, or ``neither``."""
    ends = (old.result is not None and old.error is None, new.result is not None and new.error is None)
    if ends == (True, True):
        texts = _texts(old, new)
        kinds = [{name: bool(value) for name, value in side.record["result"].items()} for side in (old, new)]
        return "same" if kinds[0] == kinds[1] and (texts is None or not texts["diff"]) else "different"
    if ends == (False, False):
        return "neither"
    return f"only {old.connection if ends[0] else new.connection}"


def _show(screen: Screen, document: str, old: _Side, new: _Side) -> None:
    texts, verdict = _texts(old, new), _verdict(old, new)
    if screen.as_json:
        sides = {"a": old.record, "b": new.record}
        screen.record({"document": document, **sides, "text": texts, "verdict": verdict})
        return
    screen.line(f"{document}: {verdict}")
    rows = [("", old.connection, new.connection), *_rows(old, new)]
    for name, left, right in rows:
        screen.line(f"  {name:8} {_cut(left):{_CELL}} {_cut(right)}".rstrip())
    for side in (old, new):
        if side.error is not None:
            screen.line(f"  {side.connection}: {printable(side.error.message, 300)}")
    if texts is not None:
        screen.line(f"  text     {texts['similarity']:.0%} of the words are the same")
        shown = [printable(line, 76) for line in texts["diff"][:_DIFF_LINES]]
        more = len(texts["diff"]) - len(shown)
        for line in [*shown, *([f"… and {more} lines more; --json has them all"] if more else [])]:
            screen.line(f"    {line}")
    screen.line()


def _rows(old: _Side, new: _Side) -> Iterable[tuple[str, str, str]]:
    yield "end", _end(old), _end(new)
    yield "seconds", _seconds(old), _seconds(new)
    yield "path", " > ".join(old.path) or "-", " > ".join(new.path) or "-"
    yield "result", _made(old), _made(new)


def _end(side: _Side) -> str:
    if side.error is None:
        return "completed"
    error = side.error
    return "failed" if isinstance(error, TaskFailed) else type(error).__name__


def _seconds(side: _Side) -> str:
    return "-" if side.seconds is None else f"{side.seconds:.1f}"


def _made(side: _Side) -> str:
    if side.result is None:
        return "-"
    shape: Mapping[str, Any] = _shape(side.result)
    parts = [] if shape["text"] is None else [f"{shape['text']} characters"]
    parts += [several(len(shape["files"]), "file")] if shape["files"] else []
    parts += ["data"] if shape["data"] is not None else []
    return ", ".join(parts) or "nothing"


def _cut(text: str) -> str:
    words = printable(text, 1000)
    return words if len(words) <= _CELL else f"{words[: _CELL - 1]}…"


def _sum_up(screen: Screen, connections: tuple[str, str], pairs: Sequence[_Pair]) -> None:
    verdicts = [_verdict(old, new) for old, new in pairs]
    counts = {each: verdicts.count(each) for each in dict.fromkeys(verdicts)}
    both = [(old.seconds, new.seconds) for old, new in pairs if None not in (old.seconds, new.seconds)]
    middle = [round(median(times), 3) for times in zip(*both, strict=True)] if both else [None, None]
    if screen.as_json:
        medians = dict(zip(connections, middle, strict=True))
        screen.record({"documents": len(pairs), "verdicts": counts, "median_seconds": medians})
        return
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    screen.line(f"{several(len(pairs), 'document')}: {told}")
    if both:
        screen.line(f"median seconds: {connections[0]} {middle[0]}, {connections[1]} {middle[1]}")
