"""The diagrams of the site: SVG, drawn when the site is built, from the tables that the library itself uses.

A page contains ``<!-- diagram: NAME ARGUMENTS -->`` where a diagram belongs. The SVG becomes part of the page and uses
the colors of the reader's palette (docs/style/extra.css). Each diagram has a title and a description in words.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

from taskbridge import Client
from taskbridge._config.registry import builtin_providers, load_provider
from taskbridge.models import TaskStatus
from taskbridge.provider import Provider, StateTable

ROOT: Final = Path(__file__).resolve().parent.parent

# Units of the drawings: a page that is 390 pixels wide shows WIDTH units.
WIDTH: Final = 430
LINE: Final = 19
LETTER: Final = 7  # maximum width of a letter
BOX: Final = 102  # width of a state


@dataclass(frozen=True)
class Drawing:
    """A finished drawing: its title, its description in words, its height and its parts."""

    title: str
    words: str
    height: float
    parts: Sequence[str]

    def svg(self, name: str) -> str:
        """Return one line of SVG; `name` makes its ids unique in the page."""
        return (
            f'<figure class="tb-diagram"><svg viewBox="0 0 {WIDTH} {self.height:g}" role="img" '
            f'aria-labelledby="{name}-title {name}-words" xmlns="http://www.w3.org/2000/svg">'
            f'<title id="{name}-title">{escape(self.title)}</title>'
            f'<desc id="{name}-words">{escape(self.words)}</desc>{"".join(self.parts)}</svg></figure>'
        )


def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    """Return text, vertically centered at `y`."""
    return (
        f'<text class="tb-{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}" '
        f'dominant-baseline="central">{escape(words)}</text>'
    )


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Return a box with round corners."""
    return f'<rect class="tb-{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7"/>'


def stream(start: tuple[float, float], past: float, end: tuple[float, float], kind: str) -> str:
    """Return a line that stays level until it is past all words, and arrives level."""
    (x, y), (to_x, to_y) = start, end
    half, down = (to_x - past) / 2, to_y - y
    curve = f"c{half:g} 0 {half:g} {down:g} {2 * half:g} {down:g}"
    return f'<path class="tb-stream tb-{kind}" d="M{x:g} {y:g}H{past:g}{curve}"/>'


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """Return a straight arrow, horizontal or vertical."""
    if x == to_x:
        back = -5 if to_y > y else 5
        head = f"M{to_x - 4:g} {to_y + back:g}l4 {-back:g}l4 {back:g}"
    else:
        back = -5 if to_x > x else 5
        head = f"M{to_x + back:g} {to_y - 4:g}l{-back:g} 4l{back:g} 4"
    return f'<path class="tb-arrow" d="M{x:g} {y:g}L{to_x:g} {to_y:g}{head}"/>'


# The vendors' words, flowing into four states.


def state_table(of: type[Provider[Any]]) -> StateTable:
    """Return the status table of a provider."""
    table: StateTable = vars(sys.modules[of.__module__])["STATES"]
    return table


def in_words(vendors: Iterable[type[Provider[Any]]]) -> str:
    """Return the description of the states diagram."""
    sentences: list[str] = []
    for each in vendors:
        table = state_table(each)
        parts = [
            f"{', '.join(words)} {'becomes' if len(words) == 1 else 'become'} {status}"
            for status in TaskStatus
            if (words := [word for word, (mapped, _) in table.items() if mapped is status])
        ]
        sentences.append(f"{each.title}: {'; '.join(parts)}.")
    return " ".join(sentences)


def states(*names: str) -> Drawing:
    """Draw the status words of some vendors, or of all, flowing into the four states."""
    vendors = [load_provider(name) for name in names or sorted(builtin_providers())]
    right = WIDTH - BOX
    past = 16 + LETTER * max(len(word) for each in vendors for word in state_table(each))
    parts: list[str] = []
    rows: list[tuple[float, str, TaskStatus]] = []
    y = 4.0
    for each in vendors:
        if not names:
            parts.append(text(2, y + LINE / 2, each.title, "head"))
            y += LINE + 3
        order = list(TaskStatus)
        for word, (status, _) in sorted(state_table(each).items(), key=lambda row: order.index(row[1][0])):
            rows.append((y + LINE / 2, word, status))
            y += LINE
        y += 12
    height = max(y - 8, 4 * 44)
    above = (height - (y - 8)) / 2
    gap = height / 4
    streams: list[str] = []
    for at, status in enumerate(TaskStatus):
        middle = gap * (at + 0.5)
        own = [row for row in rows if row[2] is status]
        tall = max(34.0, min(gap - 12, 3.0 * len(own) + 16))
        parts.append(box(right, middle - tall / 2, BOX - 2, tall, f"state tb-{status}"))
        parts.append(text(right + BOX / 2 - 1, middle, status, "label", "middle"))
        step = (tall - 16) / len(own) if own else 0
        for index, (row, word, _) in enumerate(own):
            end = middle + step * (index - (len(own) - 1) / 2)
            streams.append(stream((16 + LETTER * len(word), above + row), past, (right - 1, end), status))
            parts.append(f'<circle class="tb-dot tb-{status}" cx="4" cy="{above + row:g}" r="3"/>')
            parts.append(text(12, above + row, word, "word"))
    whose = " and ".join(each.title for each in vendors) if names else "All vendors"
    return Drawing(f"{whose}: native words flow into four states", in_words(vendors), height, [*streams, *parts])


# The import direction.

LAYERS: Final[Mapping[str, str]] = {
    "errors": "data",
    "provider": "provider API",
    "transport": "transport API",
    "_config": "configuration",
    "_engine": "one request",
    "_polling": "many tasks",
    "_transport": "sockets",
    "_runtime": "waiting",
    "client": "clients",
    "_public": "public names",
    "store": "durable state",
    "contrib": "frameworks",
    "serve": "the server",
    "cli": "tools",
}
"""One module of each layer -> what the layer does."""


def layer_table() -> tuple[tuple[str, ...], ...]:
    """Return the layers, from the test that enforces them."""
    source = (ROOT / "tests" / "core" / "test_architecture.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "LAYERS" and node.value is not None:
            table: tuple[tuple[str, ...], ...] = ast.literal_eval(node.value)
            return table
    raise LookupError("tests/core/test_architecture.py has no LAYERS")


def wrapped(words: Iterable[str], room: int) -> Iterator[str]:
    """Yield words in lines of at most `room` characters."""
    line = ""
    for word in words:
        longer = f"{line} · {word}" if line else word
        if len(longer) > room:
            yield line
            longer = word
        line = longer
    yield line


def layers() -> Drawing:
    """Draw the layers; the one that imports nothing is at the bottom, and providers are next to their API."""
    parts: list[str] = []
    sentences: list[str] = []
    y = 2.0
    table = layer_table()
    for modules in reversed(table):
        (name,) = (name for module, name in LAYERS.items() if module in modules)
        lines = list(wrapped((each for each in modules if not each.startswith("__")), 38))
        tall = 14 + 17 * len(lines)
        parts.append(box(1, y, WIDTH - 2, tall, "layer"))
        parts.append(text(12, y + tall / 2, name, "head"))
        parts += [text(142, y + 15.5 + 17 * at, line, "word") for at, line in enumerate(lines)]
        y += tall
        sentences.append(f"{name}: {', '.join(modules)}.")
        if modules is not table[0]:
            parts.append(arrow(WIDTH / 2, y + 1, WIDTH / 2, y + 12))
            y += 13
    parts.append(arrow(WIDTH / 2, y + 14, WIDTH / 2, y + 2))
    parts.append(box(1, y + 15, WIDTH - 2, 31, "guest"))
    parts.append(text(12, y + 30.5, "providers", "head"))
    parts.append(text(142, y + 30.5, "import data and the provider API only", "small"))
    words = f"Each layer imports only from itself and the layers below it. From top to bottom: {' '.join(sentences)}"
    return Drawing("Layers of taskbridge", words, y + 48, parts)


# The life of a task, from submission to result.


@dataclass(frozen=True)
class Step:
    """One step: the call, its result, and how else it may end."""

    call: str
    then: str
    otherwise: str = ""

    @property
    def words(self) -> str:
        """The step as a sentence."""
        return f"{self.call}: {self.then}{f'; otherwise {self.otherwise}' if self.otherwise else ''}."


LIFE: Final = (
    Step("submit", "a Task, pending", "SubmitUncertain → recover"),
    Step("get", "one request, a new snapshot", "an error"),
    Step("wait", "polls, long polls, lists", "WaitTimeout → wait again"),
    Step("ingest", "a webhook ends the wait", "WebhookRejected"),
    Step("result", "files, text, data", "TaskFailed"),
    Step("download", "files in your folder", "OSError"),
)


def life() -> Drawing:
    """Draw the life of a task; each step is a call of the client."""
    parts: list[str] = []
    y = 2.0
    for step in LIFE:
        if not hasattr(Client, step.call):
            raise LookupError(f"Client has no {step.call}")
        parts.append(box(1, y, 82, 34, "call"))
        parts.append(text(42, y + 17, step.call, "word", "middle"))
        parts.append(text(92, y + 17, step.then, "small"))
        parts.append(text(WIDTH - 4, y + 17, step.otherwise, "else", "end"))
        y += 34
        if step is not LIFE[-1]:
            parts.append(arrow(42, y + 2, 42, y + 16))
            y += 18
    words = f"From a submission to a result. {' '.join(step.words for step in LIFE)}"
    return Drawing("The life of a task", words, y + 3, parts)


DIAGRAMS: Final[Mapping[str, Callable[..., Drawing]]] = {"layers": layers, "life": life, "states": states}


def drawn(call: str) -> str:
    """Return the SVG of ``NAME ARGUMENTS``.

    Raises:
        KeyError: There is no such diagram.
    """
    name, *arguments = call.split()
    return DIAGRAMS[name](*arguments).svg("-".join(("tb", name, *arguments)))


# Plots, which exist as files.

PLOT_COLORS: Final[Mapping[str, str]] = {
    "fill: #7d8590": "fill: var(--tb-soft)",
    "stroke: #7d8590": "stroke: var(--tb-line)",
}
"""The gray of text and axes in a file, which must work on any background -> a color of the reader's palette."""


def plotted(path: Path, title: str) -> str:
    """Return a plot of docs/performance as part of a page, on one line."""
    source = path.read_text(encoding="utf-8")
    svg = source[source.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|(?<=<svg) (?=xmlns:xlink)", " ", svg, flags=re.DOTALL)
    svg = re.sub(r'(?<= )(?:width|height)="[\d.]+pt" ', "", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{path.stem}-", svg)
    for gray, color in PLOT_COLORS.items():
        svg = svg.replace(gray, color)
    name = f"tb-plot-{path.stem}"
    head = f'<svg role="img" aria-labelledby="{name}" '
    svg = svg.replace("<svg ", head, 1).replace(">", f'><title id="{name}">{escape(title)}</title>', 1)
    return f'<figure class="tb-plot">{" ".join(svg.split())}</figure>'
