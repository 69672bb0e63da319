"""``compare``: submit the same documents to two connections, and show both results side by side."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from difflib import SequenceMatcher, unified_diff
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import click

from taskbridge._engine.error_text import os_error_text
from taskbridge.cli.exit_codes import FAILED, code_of
from taskbridge.cli.formatting import EMPTY, plural
from taskbridge.cli.options import (
    complete_connections,
    config_path,
    document_name,
    find_documents,
    open_bridge,
    show_warnings,
    with_config,
    with_json,
    with_neutral,
    with_timeout,
)
from taskbridge.cli.records import error_or_none
from taskbridge.errors import ConfigError, InvalidInput, TaskbridgeError, TaskFailed, printable
from taskbridge.models import total_usage, usage_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from taskbridge.cli.output import Output
    from taskbridge.client import Bridge
    from taskbridge.models import Outcome, Task, TaskResult, Usage
    from taskbridge.provider.clock import Clock

_DIFF_LINES: Final = 20  # shown in text mode
_MOST_COMPARED: Final = 200_000  # characters of a text
_CELL: Final = 33  # columns of one side
_WORD: Final = re.compile(r"\w+")  # letters, digits and underscores, so that punctuation and markup do not count
_FIELD_WORDS: Final = {"same": "the same", "different": "different", "only_a": "only in A", "only_b": "only in B"}


@dataclass(slots=True)
class _Side:
    """One connection's work on one document.

    Attributes:
        connection: Its name.
        submitted_at: When the document was submitted.
        seconds: From then until the end was noticed; None if it did not end.
        path: The vendor's status words, without repetitions.
        usage: What the task cost, as far as the vendor says.
        result: The result.
        error: Why there is no result.
        task: The task as it was submitted.
    """

    connection: str
    submitted_at: datetime
    seconds: float | None = None
    path: list[str] = field(default_factory=list[str])
    usage: Usage | None = None
    result: TaskResult | None = None
    error: TaskbridgeError | None = None
    task: Task | None = None

    def record(self) -> dict[str, Any]:
        return {
            "connection": self.connection,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "path": self.path,
            "usage": None if self.usage is None else self.usage.to_dict(),
            "result": None if self.result is None else _shape(self.result),
            "error": error_or_none(self.error),
            "warning": EMPTY if self.is_empty else None,
        }

    @property
    def is_empty(self) -> bool:
        """Whether the task completed without any result."""
        return self.result is not None and self.result.is_empty


_Pair: TypeAlias = tuple[_Side, _Side]


@click.command(name="compare")
@click.argument("old", metavar="A", shell_complete=complete_connections)
@click.argument("new", metavar="B", shell_complete=complete_connections)
@click.argument("documents", nargs=-1, required=True, metavar="DOCUMENT...")
@click.option("--operation", default="extract-text", show_default=True, metavar="NAME", help="The operation for both.")
@with_neutral
@with_timeout
@with_json
@with_config
@click.pass_obj
def command(
    output: Output,
    /,
    old: str,
    new: str,
    *,
    documents: tuple[str, ...],
    operation: str,
    neutral: Mapping[str, Any],
    timeout: float | None,
) -> int:
    """Compare the results of two vendors for the same documents.

    Submits each document to both connections and prints how long each took, its status words, its cost, its result or
    error, how many words both texts have in common and where they differ, and which extracted fields are the same. Both
    vendors do the work and charge for it. The exit code is 0 if both completed every document, even if the results
    differ.
    """
    from taskbridge._config.defaults import default_clock  # noqa: PLC0415  # heavy
    from taskbridge._config.files import load_config  # noqa: PLC0415  # as above
    from taskbridge._engine.inputs import is_url  # noqa: PLC0415  # as above

    with output.signals.reporting(output.stopped):
        sources = find_documents(documents)
        missing = next((each for each in sources if not is_url(each) and not Path(each).is_file()), None)
        if missing is not None:
            raise InvalidInput(f"there is no file {printable(missing, 300)}; nothing was sent")
        if old == new:
            raise ConfigError(f"{printable(old, 60)} is compared with another connection, not with itself")
        show_warnings(output)
        bridge = open_bridge(load_config(config_path()), (old, new))
        with output.signals.raising():
            pairs = _Comparison(bridge, default_clock(), operation, neutral).run((old, new), sources, timeout)
        verdicts = Counter(
            _show(output, document_name(source), *pair) for source, pair in zip(sources, pairs, strict=True)
        )
        _show_summary(output, (old, new), pairs, verdicts)
    bridge.close()
    return max((code_of(side.error) for pair in pairs for side in pair), default=FAILED)


class _Comparison:
    """Submits documents to both connections and waits for them."""

    def __init__(self, bridge: Bridge, clock: Clock, operation: str, neutral: Mapping[str, Any]) -> None:
        self._bridge = bridge
        self._clock = clock
        self._operation = operation
        self._neutral = neutral
        self._running: dict[str, _Side] = {}

    def run(self, connections: tuple[str, str], sources: Iterable[str], timeout: float | None) -> list[_Pair]:
        """Submit everything, then wait for everything."""
        old, new = connections
        pairs = [(self._submit(old, source), self._submit(new, source)) for source in sources]
        watched = [side.task if side.task and not side.task.resumable else ref for ref, side in self._running.items()]
        for outcome in self._bridge.watch(watched, timeout=timeout):
            self._update(self._running[outcome.ref], outcome)
        return pairs

    def _submit(self, connection: str, source: str) -> _Side:
        side = _Side(connection, self._clock.now())
        try:
            task = self._bridge[connection].submit(self._operation, source, **self._neutral)
        except TaskbridgeError as error:
            side.error = error
        except OSError as error:
            side.error = InvalidInput(os_error_text(error))
        else:
            side.task = task
            side.path.append(task.native_status or task.status)
            self._running[task.ref] = side
        return side

    def _update(self, side: _Side, outcome: Outcome) -> None:
        task = outcome.task
        if outcome.error is not None or task is None:
            side.error = outcome.error
            return
        word = task.native_status or task.status
        if side.path[-1] != word:
            side.path.append(word)
        side.usage = task.usage
        if task.is_terminal:
            side.seconds = (task.observed_at - side.submitted_at).total_seconds()
            try:
                result = self._bridge.result(task)
                _shape(result)
                tuple(result.fields)  # read here, so that what cannot be read is this side's error
                side.result = result
            except TaskbridgeError as error:
                side.error = error


def _shape(result: TaskResult) -> dict[str, Any]:
    """Describe the parts of a result without their content."""
    data: object = result.data
    kind = None if data is None else type(data).__name__
    return {
        "text": None if result.text is None else len(result.text),
        "files": [{"name": f.name, "media_type": f.media_type, "size": f.size} for f in result.files],
        "data": sorted(cast("dict[str, Any]", data)) if isinstance(data, dict) else kind,
        "pages": len(result.pages),
        "fields": len(result.fields),
    }


def _compare_texts(old: _Side, new: _Side) -> dict[str, Any] | None:
    """Return how similar two texts are and where they differ; None unless both have a text."""
    before, after = (side.result.text if side.result is not None else None for side in (old, new))
    if before is None or after is None:
        return None
    # By words: the same text may be laid out in different lines.
    old_words, new_words = (text[:_MOST_COMPARED].split() for text in (before, after))
    ratio = SequenceMatcher(None, old_words, new_words, autojunk=False).ratio()
    names = {"fromfile": old.connection, "tofile": new.connection}
    diff = unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1, **names)
    return {"similarity": round(ratio, 4), "words": _compare_words(before, after), "diff": list(diff)}


def _compare_words(before: str, after: str) -> dict[str, Any]:
    """Return how many words two texts have in common, whatever their order, case and punctuation."""
    old, new = (Counter(_WORD.findall(text.casefold())) for text in (before, after))
    common, every = (old & new).total(), (old | new).total()
    return {"a": old.total(), "b": new.total(), "common": common, "share": round(common / every, 4) if every else 1.0}


def _compare_fields(old: _Side, new: _Side) -> dict[str, list[str]] | None:
    """Return the names of fields whose values are the same, differ, or exist on one side; None unless both have some.

    Values are compared as texts, without differences in white space.
    """
    before, after = (_values(side) for side in (old, new))
    if not before or not after:
        return None
    both = [name for name in before if name in after]
    return {
        "same": [name for name in both if before[name] == after[name]],
        "different": [name for name in both if before[name] != after[name]],
        "only_a": [name for name in before if name not in after],
        "only_b": [name for name in after if name not in before],
    }


def _values(side: _Side) -> dict[str, list[str | None]]:
    """The values of the named fields of a side, each name once."""
    values: dict[str, list[str | None]] = {}
    for each in side.result.fields if side.result is not None else ():
        if each.name is not None:
            value = each.text if each.value is None else each.value
            text = value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False, sort_keys=True)
            values.setdefault(each.name, []).append(None if text is None else " ".join(text.split()))
    return values


def _verdict(
    old: _Side, new: _Side, texts: Mapping[str, Any] | None, fields: Mapping[str, Sequence[str]] | None
) -> str:
    """Return ``same``, ``different``, ``only`` one of them, or ``neither``."""
    completed = [side for side in (old, new) if side.result is not None and side.error is None and not side.is_empty]
    if len(completed) == 1:
        return f"only {completed[0].connection}"
    if not completed:
        return "neither"
    parts = [{name: bool(value) for name, value in side.record()["result"].items()} for side in completed]
    same_texts = texts is None or not texts["diff"]
    same_fields = fields is None or not any(names for key, names in fields.items() if key != "same")
    return "same" if parts[0] == parts[1] and same_texts and same_fields else "different"


def _show(output: Output, document: str, old: _Side, new: _Side) -> str:
    """Write how two results compare; return the verdict."""
    texts = _compare_texts(old, new)
    fields = _compare_fields(old, new)
    verdict = _verdict(old, new, texts, fields)
    if output.as_json:
        sides = {"a": old.record(), "b": new.record()}
        output.record({"document": document, **sides, "text": texts, "fields": fields, "verdict": verdict})
        return verdict
    output.line(f"{document}: {verdict}")
    _show_sides(output, old, new)
    _show_differences(output, texts, fields)
    output.line()
    return verdict


def _show_sides(output: Output, old: _Side, new: _Side) -> None:
    columns = [_cells(side) for side in (old, new)]
    for name, left, right in zip(("", "end", "seconds", "path", "cost", "result"), *columns, strict=True):
        output.line(f"  {name:8} {_cut(left):{_CELL}} {_cut(right)}".rstrip())
    for side in (old, new):
        if side.error is not None:
            output.line(f"  {side.connection}: {printable(side.error.message, 300)}")
        if side.is_empty:
            output.line(f"  {side.connection}: warning: {EMPTY}")


def _show_differences(
    output: Output, texts: Mapping[str, Any] | None, fields: Mapping[str, Sequence[str]] | None
) -> None:
    if texts is not None:
        output.line(f"  text     {texts['similarity']:.0%} of the words are the same and in the same order")
        words = texts["words"]
        output.line(f"  words    {words['common']} of {words['a']} and {words['b']} in common ({words['share']:.0%})")
        more = len(texts["diff"]) - _DIFF_LINES
        for line in texts["diff"][:_DIFF_LINES]:
            output.line(f"    {printable(line, 76)}")
        if more > 0:
            output.line(f"    … and {more} more lines; --json prints all")
    if fields is not None:
        output.line(f"  fields   {', '.join(f'{len(names)} {_FIELD_WORDS[key]}' for key, names in fields.items())}")
        for key in ("different", "only_a", "only_b"):
            for name in fields[key][:_DIFF_LINES]:
                output.line(f"    {_FIELD_WORDS[key]}: {printable(name, 60)}")


def _cells(side: _Side) -> tuple[str, ...]:
    error, result = side.error, side.result
    end = "completed" if error is None else "failed" if isinstance(error, TaskFailed) else type(error).__name__
    parts = [] if result is None or result.text is None else [f"{len(result.text)} characters"]
    parts += [plural(len(result.files), "file")] if result is not None and result.files else []
    parts += [plural(len(result.pages), "page")] if result is not None and result.pages else []
    parts += [plural(len(result.fields), "field")] if result is not None and result.fields else []
    parts += ["data"] if result is not None and result.data is not None else []
    seconds = "-" if side.seconds is None else f"{side.seconds:.1f}"
    contents = "-" if result is None else ", ".join(parts) or "nothing"
    cost = "-" if side.usage is None else str(side.usage)
    return side.connection, end, seconds, " > ".join(side.path) or "-", cost, contents


def _cut(text: str) -> str:
    safe = printable(text, 1000)
    return safe if len(safe) <= _CELL else f"{safe[: _CELL - 1]}…"


def _show_summary(
    output: Output, connections: tuple[str, str], pairs: Sequence[_Pair], verdicts: Mapping[str, int]
) -> None:
    both = [(old.seconds, new.seconds) for old, new in pairs if None not in (old.seconds, new.seconds)]
    medians = [round(median(times), 3) for times in zip(*both, strict=True)] if both else [None, None]
    costs = [total_usage(side.usage for side in sides) for sides in zip(*pairs, strict=True)]
    if output.as_json:
        by_connection = dict(zip(connections, medians, strict=True))
        usage = dict(zip(connections, costs, strict=True))
        record = {"documents": len(pairs), "verdicts": verdicts, "median_seconds": by_connection, "usage": usage}
        output.record(record)
        return
    summary = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    output.line(f"{plural(len(pairs), 'document')}: {summary}")
    if both:
        output.line(f"median seconds: {connections[0]} {medians[0]}, {connections[1]} {medians[1]}")
    if any(costs):
        texts = [usage_text(cost) or "unknown" for cost in costs]
        output.line(f"cost: {connections[0]} {texts[0]}, {connections[1]} {texts[1]}")
