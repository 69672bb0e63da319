"""Small plots of learned durations, as SVG within the page. Their styles are in the style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log
from typing import Final

from markupsafe import Markup

WIDTH: Final = 320
"""Units of the plot."""
HEIGHT: Final = 24
_EDGE: Final = 6  # units that stay free on either side
_TICKS: Final = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36_000.0)  # seconds
_LABELS: Final = ("0.1 s", "1 s", "10 s", "1 min", "10 min", "1 h", "10 h")


class Scale:
    """A logarithmic scale that all rows share.

    Args:
        values: All seconds to show.
    """

    def __init__(self, values: Iterable[float]) -> None:
        shown = [value for value in values if value > 0.0] or [1.0]
        self._least = max(tick for tick in (1e-3, *_TICKS) if tick <= min(shown) or tick == 1e-3)
        above = [tick for tick in _TICKS if tick >= max(shown)]
        self._most = above[0] if above else max(shown)
        if self._most <= self._least:
            self._most = self._least * 10.0

    def at(self, value: float) -> float:
        """Return where a number of seconds is, in units."""
        part = log(max(value, self._least) / self._least) / log(self._most / self._least)
        return round(_EDGE + (WIDTH - 2 * _EDGE) * min(part, 1.0), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return where to write which label."""
        return [
            (self.at(tick), label)
            for tick, label in zip(_TICKS, _LABELS, strict=True)
            if self._least <= tick <= self._most
        ]

    def axis(self) -> Markup:
        """Return the labels."""
        words = Markup("").join(
            Markup('<text x="{}" y="14" text-anchor="{}">{}</text>').format(x, _anchor(x), label)
            for x, label in self.ticks()
        )
        return Markup('<svg class="plot axis" viewBox="0 0 {} 20" aria-hidden="true">{}</svg>').format(WIDTH, words)

    def row(self, quantiles: Sequence[float], title: str) -> Markup:
        """Return a bar from the first to the last quantile, with the middle half and the median marked."""
        least, lower, middle, upper, most = map(self.at, quantiles)
        grid = Markup("").join(
            Markup('<line class="grid" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(x, HEIGHT) for x, _ in self.ticks()
        )
        return Markup(
            '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}'
            '<line class="range" x1="{}" x2="{}" y1="12" y2="12"/>'
            '<rect class="half" x="{}" y="6" width="{}" height="12" rx="2"/>'
            '<line class="median" x1="{}" x2="{}" y1="3" y2="21"/></svg>'
        ).format(WIDTH, HEIGHT, title, grid, least, most, lower, max(1.0, round(upper - lower, 1)), middle, middle)


def _anchor(x: float) -> str:
    return "start" if x < 20 else "end" if x > WIDTH - 20 else "middle"
