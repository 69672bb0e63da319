"""Fill the tables in docs/performance.md (between marks) and draw docs/performance/*.svg from results.json."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import ROOT
from benchmarks.peers import TITLES
from benchmarks.targets import Target, evaluate

PAGE: Final = ROOT / "docs" / "performance.md"
PLOTS: Final = ROOT / "docs" / "performance"
_MARKED: Final = re.compile(r"(<!-- results: ([a-z-]+) -->\n).*?(\n<!-- end of results -->)", re.DOTALL)


def write(results: Mapping[str, Any]) -> None:
    """Update the page and the plots."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(text, results), encoding="utf-8")
    PLOTS.mkdir(exist_ok=True)
    plots(results, PLOTS)


def filled(text: str, results: Mapping[str, Any]) -> str:
    """Return the page with new tables; a table whose section was not measured stays as it is."""

    def table(mark: re.Match[str]) -> str:
        try:
            lines = _TABLES[mark[2]](results)
        except KeyError:
            return mark[0]
        return f"{mark[1]}\n" + "\n".join(lines) + f"\n{mark[3]}"

    return _MARKED.sub(table, text)


# Tables.


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 0) -> list[str]:
    """Return a table whose first column and last `words` columns hold text."""
    rule = ["---"] + ["---:"] * (len(head) - 1 - words) + ["---"] * words
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def _range(figure: Mapping[str, float], digits: int = 2) -> str:
    return f"{figure['median']:,.{digits}f} ({figure['low']:,.{digits}f} to {figure['high']:,.{digits}f})"


def _machine(results: Mapping[str, Any]) -> list[str]:
    section = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in section["versions"].items())
    size = " **A quick run on a busy computer: these figures are not reliable.**" if results["quick"] else ""
    return [f"{section['python']} on {section['system']} with {section['cores']} cores; {versions}.{size}"]


def _targets(results: Mapping[str, Any]) -> list[str]:
    evaluated = evaluate(results)
    if all(result.value is None for result in evaluated.values()):
        raise KeyError("nothing was measured")
    rows = []
    for result in evaluated.values():
        target = result.target
        value = "" if result.value is None else _number(target, result.value)
        bound = f"{'≥' if target.at_least else '≤'} {_number(target, target.limit)}"
        anchor = target.section.lower().replace(" ", "-")
        rows.append((target.what, bound, value, result.verdict, f"[{target.section}](#{anchor})", result.reason))
    head = ("What", "Target", "Result", "", "Details", "Remark")
    return _grid(head, rows, words=3)


def _number(target: Target, value: float) -> str:
    return f"{value:,.{target.digits}f}"


def _translate(results: Mapping[str, Any]) -> list[str]:
    section = results["translate"]
    rows = [(name, _range(figure)) for name, figure in section["small"]["ratios"].items()]
    large = section["large"]
    rows += [
        (f"expert.ai result of {large['bytes'] / 1e6:.0f} MB: {name}", _range(figure))
        for name, figure in large["ratios"].items()
    ]
    rows.append(("the same: peak memory", f"{large['peak']:.2f}"))
    return _grid((f"{section['small']['bytes']} bytes of a CloudConvert task", "× json.loads"), rows)


def _poll(results: Mapping[str, Any]) -> list[str]:
    section = results["poll"]
    rows = []
    for side in section["http"]["rate_to_naive"]:
        cells = [f"`{side}`"]
        for scheme in ("http", "https"):
            cells += [
                _range(section[scheme]["rate_to_naive"][side], 1),
                _range(section[scheme]["cpu_to_naive"][side], 3),
            ]
        rows.append(cells)
    return _grid(("× `requests.get`", "HTTP: polls/s", "CPU per poll", "HTTPS: polls/s", "CPU per poll"), rows)


def _flight(results: Mapping[str, Any]) -> list[str]:
    section = results["flight"]
    names = {
        "no-session": "a thread per task, `requests.get`",
        "taskbridge": "taskbridge",
        "taskbridge-async": "taskbridge `aio`",
    }
    rows = []
    for side, name in names.items():
        memory = section["memory"][side]
        number = memory.get("tasks", section["memory"]["tasks"])
        cpu = _range(section["polls"]["to_threads"][side])
        rows.append((name, f"{number:,}", f"{memory['threads']:,}", f"{memory['bytes']:,.0f}", cpu))
    return _grid(("", "Tasks", "Threads", "Bytes per task", "CPU per poll, × threads"), rows)


def _growth(results: Mapping[str, Any]) -> list[str]:
    section = results["flight"]["growth"]
    rows = [
        (f"{int(number):,}", _range(figure), f"{section['memory'][number]:.2f}")
        for number, figure in section["cpu"].items()
    ]
    return _grid(("Tasks in flight", "CPU per poll, × first row", "Memory per task, × first row"), rows)


def _waiting(results: Mapping[str, Any]) -> list[str]:
    rows = []
    rows_of = results["peers"]["waiting"]["rows"]
    for side, one in rows_of.items():
        rows.append(
            (
                TITLES[side],
                f"{one['requests']:,}",
                f"{one['mean']:.2f}",
                f"{one['p95']:.2f}",
                f"{one['threads']:,}",
                f"{one['megabytes']:.1f}",
                f"{one['cpu']:.1f}",
                f"{one['cpu_per_poll'] / rows_of['azure']['cpu_per_poll']:.2f}",
            )
        )
    return _grid(
        ("", "Requests", "Mean delay, s", "95 %, s", "Threads", "MB", "CPU s", "CPU per poll, × azure-core"), rows
    )


def _polls(results: Mapping[str, Any]) -> list[str]:
    section = results["peers"]["poll"]["to_azure"]
    return _grid(("CPU per poll", "× azure-core"), [(TITLES[side], _range(figure)) for side, figure in section.items()])


def _others(results: Mapping[str, Any]) -> list[str]:
    section = results["schedules"]
    rows = [
        (name, f"{one['polls']:.2f}", f"{one['mean']:.2f}", f"{one['p95']:.2f}", f"{one['product']:.1f}")
        for name, one in {
            **section["others"],
            "taskbridge, cold": section["distributions"]["lognormal-1"]["cold"],
            "taskbridge, after 200 tasks": section["distributions"]["lognormal-1"]["learned"],
        }.items()
    ]
    best = section["distributions"]["lognormal-1"]["optimum"]
    polls, mean = best["polls"], best["mean"]
    rows.append(("the exact optimum at that delay", f"{polls:.2f}", f"{mean:.2f}", "", f"{polls * mean:.1f}"))
    return _grid(("", "Requests per task", "Mean delay, s", "95 %, s", "Product"), rows)


def _distributions(results: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            one["title"],
            f"{one['cold']['to_fixed']:.2f}",
            f"{one['cold']['to_exponential']:.2f}",
            f"{one['learned']['to_fixed']:.2f}",
            f"{one['learned']['to_exponential']:.2f}",
            f"{one['learned_to_optimum']:.3f}",
        )
        for one in results["schedules"]["distributions"].values()
    ]
    head = ("Durations", "Cold × fixed", "× exponential", "Learned × fixed", "× exponential", "× optimum")
    return _grid(head, rows)


def _scale(results: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            name,
            f"{one['polls']:.0f}",
            f"{one['mean']:.1f}",
            f"{one['median_fraction']:.1%}",
            f"{one['p95_fraction']:.1%}",
        )
        for name, one in results["schedules"]["unknown_scale"].items()
    ]
    return _grid(("", "Requests per task", "Mean delay, s", "Delay ÷ duration, median", "95 %"), rows)


def _limit(results: Mapping[str, Any]) -> list[str]:
    rows = [
        (limit, f"{one['taskbridge']:.2f}", f"{one['round_robin']:.2f}", f"{one['ratio']:.2f}")
        for limit, one in results["schedules"]["one_limit"].items()
    ]
    return _grid(("Polls per second", "taskbridge: mean delay, s", "In turn: mean delay, s", "Ratio"), rows)


def _lists(results: Mapping[str, Any]) -> list[str]:
    section = results["schedules"]["lists"]
    if section is None:
        return ["Not measured."]
    rows = [
        ("single polls with the same delay", f"{section['single_polls']:,}", "", f"{section['mean']:.2f}"),
        ("taskbridge", f"{section['requests']:,}", f"{section['lists']:,}", f"{section['mean']:.2f}"),
    ]
    return _grid((f"{section['tasks']:,} in flight", "Requests", "of these, lists", "Mean delay, s"), rows)


def _handed_in(results: Mapping[str, Any]) -> list[str]:
    section = results["schedules"]["handed_in"]
    rows = [
        (
            f"{latency} s",
            f"{row['requests']:,}",
            f"{row['lists']:,}",
            f"{row['per_task']:.2f}",
            f"{row['mean']:.2f}",
        )
        for latency, row in section.items()
    ]
    number = next(iter(section.values()))["tasks"]
    return _grid((f"{number:,} ids, aimed at", "Requests", "of these, lists", "Per task", "Mean delay, s"), rows)


def _start(results: Mapping[str, Any]) -> list[str]:
    section = results["startup"]
    rows = [(f"`{name}`" if " " not in name else name, _range(figure)) for name, figure in section["to_empty"].items()]
    return _grid(("Whole process", "× `python -c pass`"), rows)


def _many(results: Mapping[str, Any]) -> list[str]:
    names = {"million": "virtual time, SQLite", "processes": "real time, PostgreSQL"}
    runs = {name: results[section] for section, name in names.items() if section in results}
    if not runs:
        raise KeyError("neither was measured")
    rows = [
        (
            name,
            f"{run['tasks']:,}",
            f"{run.get('processes', 1)}",
            f"{run['connections']}",
            f"{run['lost']}",
            f"{run['doubled']}",
            f"{run['requests'] / run['tasks']:.2f}",
            f"{run['cpu_per_task'] * 1000:.1f}",
            f"{run['statements_per_task']:.3f}",
            f"{run['bytes_per_task']:,.0f}",
        )
        for name, run in runs.items()
    ]
    head = ("", "Tasks", "Processes", "Connections", "Lost", "Doubled")
    return _grid((*head, "Requests per task", "CPU per task, ms", "Statements per task", "Bytes per task"), rows)


_TABLES: Final = {
    "machine": _machine,
    "targets": _targets,
    "translate": _translate,
    "poll": _poll,
    "flight": _flight,
    "growth": _growth,
    "waiting": _waiting,
    "polls": _polls,
    "others": _others,
    "distributions": _distributions,
    "scale": _scale,
    "limit": _limit,
    "lists": _lists,
    "handed-in": _handed_in,
    "start": _start,
    "many": _many,
}


# Plots: no background, and colors that work on light and dark pages.

_INK: Final = "#7d8590"
_TASKBRIDGE: Final = "#2f9e6e"
_OTHERS: Final = "#c77d3a"
_THIRD: Final = "#5b8fd6"


def plots(results: Mapping[str, Any], folder: Path) -> None:
    """Draw the plots of the sections that were measured."""
    import matplotlib as mpl

    mpl.use("Agg")
    style = {
        "axes.edgecolor": _INK, "axes.labelcolor": _INK, "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK,
        "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none", "svg.hashsalt": "taskbridge",
        "font.size": 10, "legend.frameon": False, "font.family": "sans-serif",
    }  # fmt: skip
    with mpl.rc_context(style):
        for name, draw in {
            "waiting": _draw_waiting,
            "schedules": _draw_schedules,
            "polls": _draw_polls,
            "growth": _draw_growth,
            "limit": _draw_limit,
        }.items():
            try:
                figure = draw(results)
            except KeyError:
                continue
            path = folder / f"{name}.svg"
            figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None})
            # matplotlib writes trailing spaces
            path.write_text("\n".join(map(str.rstrip, path.read_text().splitlines())) + "\n", encoding="utf-8")


def _figure(width: float = 7.2, height: float = 3.6) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _plain(title: str) -> str:
    return title.replace("`", "")


def _color(side: str) -> str:
    return _TASKBRIDGE if side.startswith(("client", "aio", "taskbridge")) else _OTHERS


def _draw_waiting(results: Mapping[str, Any]) -> Any:
    """Draw requests, delay and CPU side by side."""
    from matplotlib.figure import Figure

    section = results["peers"]["waiting"]["rows"]
    number = results["peers"]["waiting"]["tasks"]
    figure = Figure(figsize=(8.4, 3.8))
    panels = {
        "requests per task": [one["requests"] / number for one in section.values()],
        "mean delay, s": [one["mean"] for one in section.values()],
        "CPU per task, ms": [one["cpu"] / number * 1000 for one in section.values()],
    }
    for n, (label, values) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), n)
        colors = [_color(side) for side in section]
        bars = axes.barh(range(len(section), 0, -1), values, color=colors, height=0.65)
        axes.bar_label(bars, fmt="%.2g", fontsize=7, padding=2, color=_INK)
        axes.set_xlabel(label, fontsize=9)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.margins(x=0.2)
        names = [_plain(TITLES[side]) for side in section] if n == 1 else []
        axes.set_yticks(range(len(section), 0, -1) if n == 1 else [], names, fontsize=8)
    return figure


def _draw_schedules(results: Mapping[str, Any]) -> Any:
    figure, axes = _figure(height=3.8)
    section = results["schedules"]["distributions"]
    places = range(len(section))
    series = {
        "cold, × fixed": (_THIRD, [one["cold"]["to_fixed"] for one in section.values()]),
        "learned, × fixed": (_TASKBRIDGE, [one["learned"]["to_fixed"] for one in section.values()]),
        "learned, × exponential": (_OTHERS, [one["learned"]["to_exponential"] for one in section.values()]),
    }
    for n, (name, (color, values)) in enumerate(series.items()):
        axes.bar([p + (n - 1) * 0.27 for p in places], values, width=0.25, color=color, label=name)
    axes.axhline(1.0, color=_INK, linewidth=0.8, linestyle=":")
    axes.set_xticks(list(places), [one["title"] for one in section.values()], fontsize=7, rotation=12)
    axes.set_ylabel("requests at equal mean delay")
    axes.legend(fontsize=8)
    return figure


def _draw_polls(results: Mapping[str, Any]) -> Any:
    section = results["peers"]["poll"]["to_azure"]
    return _bars(
        {_plain(TITLES[side]): (figure, _color(side)) for side, figure in section.items()}, "CPU per poll, × azure-core"
    )


def _bars(sides: Mapping[str, tuple[Mapping[str, float], str]], label: str) -> Any:
    figure, axes = _figure()
    for place, (name, (one, color)) in enumerate(reversed(sides.items())):
        spread = [[one["median"] - one["low"]], [one["high"] - one["median"]]]
        axes.barh(place, one["median"], color=color, xerr=spread, ecolor=_INK, height=0.65)
        axes.annotate(name, (0, place), xytext=(-6, 0), textcoords="offset points", ha="right", va="center", fontsize=8)
    axes.set_yticks([])
    axes.set_xlabel(label)
    return figure


def _draw_growth(results: Mapping[str, Any]) -> Any:
    figure, axes = _figure(height=3.0)
    section = results["flight"]["growth"]
    numbers = [int(number) for number in section["cpu"]]
    cpu = [one["median"] for one in section["cpu"].values()]
    low = [one["low"] for one in section["cpu"].values()]
    high = [one["high"] for one in section["cpu"].values()]
    axes.fill_between(numbers, low, high, color=_TASKBRIDGE, alpha=0.2, linewidth=0)
    axes.plot(numbers, cpu, color=_TASKBRIDGE, marker="o", label="CPU per poll")
    axes.plot(numbers, list(section["memory"].values()), color=_THIRD, marker="s", label="memory per task")
    axes.set(xscale="log", xlabel="tasks in flight", ylabel="× leftmost value", ylim=(0, None))
    axes.legend(fontsize=8)
    return figure


def _draw_limit(results: Mapping[str, Any]) -> Any:
    figure, axes = _figure(height=3.0)
    section = results["schedules"]["one_limit"]
    places = range(len(section))
    for n, (name, key, color) in enumerate(
        (("taskbridge", "taskbridge", _TASKBRIDGE), ("in turn", "round_robin", _OTHERS))
    ):
        values = [one[key] for one in section.values()]
        axes.bar([p + (n - 0.5) * 0.37 for p in places], values, width=0.35, color=color, label=name)
    axes.set_xticks(list(places), [f"{limit} polls/s" for limit in section])
    axes.set_ylabel("mean delay, s")
    axes.legend(fontsize=8)
    return figure
