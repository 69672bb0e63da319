"""``doctor``: what is installed, what is configured, and whether the vendors take it; ready for a bug report.

Each connection is tried by the cheapest call that its credential is needed for: the newest page of the vendor's list,
else the credential itself. What comes back also tells the vendor's clock, and words that our tables do not know. No
secret, and no path below the user's home, is shown.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from sqlite3 import sqlite_version
from typing import TYPE_CHECKING, Final

from taskbridge import __version__
from taskbridge._config.files import find_config, load_config
from taskbridge._config.registry import providers
from taskbridge.cli.codes import DONE, USAGE, code_of
from taskbridge.cli.refs import open_bridge, unheard
from taskbridge.cli.screen import is_live
from taskbridge.cli.shown_config import MASK, settings_of
from taskbridge.cli.texts import folded, several
from taskbridge.errors import ConfigError, TaskbridgeError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge._config.files import Config, ConnectionConfig
    from taskbridge.cli.screen import Screen

__all__ = ["Finding", "examine"]

_PARTS: Final = (
    "requests",
    "urllib3",
    "pydantic",
    "jiter",
    "stevedore",
    "python-dateutil",
    "platformdirs",
    "aiohttp",
    "click",
    "h11",
    "rich",
    "starlette",
    "uvicorn",
    "opentelemetry-api",
)
_SKEW: Final = 5.0  # seconds by which the clocks may differ without a word: the header has whole ones


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: ``taskbridge``, ``installed``, ``provider``, ``configuration`` or ``connection``.
        name: Which one.
        verdict: ``ok``, ``note`` or ``problem``.
        words: What was found.
        exit_code: Of a problem.
    """

    about: str
    name: str
    verdict: str
    words: str
    exit_code: int = DONE


def examine(screen: Screen, names: Sequence[str], path: str | None, *, offline: bool) -> int:
    """Look at everything; the gravest exit code.

    Args:
        screen: Where to.
        names: Connections; none for all.
        path: The configuration; None looks in the usual places.
        offline: Send nothing.
    """
    unheard()  # what would be logged is told here
    worst = DONE
    for finding in _findings(screen, names, path, offline=offline):
        worst = max(worst, finding.exit_code)
        if screen.as_json:
            screen.record(asdict(finding))
        else:
            mark = {"ok": "ok  ", "note": "note", "problem": "FAIL"}[finding.verdict]
            line = f"{mark}  {finding.about} {printable(finding.name, 200)}: {_homeless(printable(finding.words))}"
            screen.line(folded(line, indent=6) if is_live() else line)
    return worst


def _homeless(text: str) -> str:
    """Paths below the user's home, without the user's name."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _findings(screen: Screen, names: Sequence[str], path: str | None, *, offline: bool) -> Iterator[Finding]:
    yield Finding("taskbridge", __version__, "ok", f"Python {platform.python_version()} on {platform.platform()}")
    yield Finding("installed", "packages", "ok", ", ".join(_installed()))
    for info in providers():
        origin = " ".join(filter(None, [info.distribution, info.version]))
        if info.problem:
            yield Finding("provider", info.name, "problem", info.problem, USAGE)
        else:
            yield Finding("provider", info.name, "ok", f"from {origin or 'an unnamed distribution'}")
    try:
        found = find_config(path)
        config = load_config(found)
        chosen = [config.connection(name) for name in names] or list(config.connections.values())
    except ConfigError as error:
        yield Finding("configuration", path or "none", "problem", error.message, USAGE)
        return
    count = len(config.connections)
    default = config.default or ("none" if count != 1 else next(iter(config.connections)))
    yield Finding(
        "configuration",
        _homeless(str(found)),
        "ok",
        f"{several(count, 'connection')}, default {default}",
    )
    if _shows_secrets(found, config):
        words = f"it holds credentials, and others can read it: chmod 600 {_homeless(str(found))}, or use ${{VARIABLE}}"
        yield Finding("configuration", _homeless(str(found)), "note", words)
    for connection in chosen:
        yield from _connection(screen, config, connection, offline=offline)


def _shows_secrets(path: Path, config: Config) -> bool:
    """Whether credentials stand in a file that others than its owner can read."""
    if os.name != "posix" or not path.stat().st_mode & 0o044:
        return False
    here = str(config.path)
    return any(
        value == MASK and origin == here
        for connection in config.connections.values()
        for _, value, origin in settings_of(connection)
    )


def _installed() -> Iterator[str]:
    for part in _PARTS:
        try:
            yield f"{part} {version(part)}"
        except PackageNotFoundError:
            yield f"{part} -"
    yield f"SQLite {sqlite_version}"  # keeps the ledger of `run`


def _connection(screen: Screen, config: Config, connection: ConnectionConfig, *, offline: bool) -> Iterator[Finding]:
    name = connection.name
    try:
        bridge = open_bridge(config, [name])
    except TaskbridgeError as error:
        yield Finding("connection", name, "problem", error.message, code_of(error))
        return
    if offline:
        yield Finding("connection", name, "ok", f"{connection.provider}, settings are sound; not tried")
        return
    with bridge, screen.signals.raising():
        try:
            tried = bridge[name].check()
        except TaskbridgeError as error:
            screen.signals.check()
            status = (
                f" (HTTP {error.http_status})" if error.http_status and f"{error.http_status}" not in str(error) else ""
            )
            yield Finding(
                "connection", name, "problem", f"{type(error).__name__}: {error.message}{status}", code_of(error)
            )
            return
    how = tried.how or "not tried: the vendor has no call that needs no task"
    yield Finding("connection", name, "ok" if tried.how else "note", f"{connection.provider}, {how}")
    if tried.skew is not None:
        yield _clock(name, tried.skew)
    for word in tried.unknown_words:
        yield Finding(
            "connection", name, "note", f"the vendor uses the status word {word!r}, which taskbridge does not know"
        )


def _clock(name: str, skew: float) -> Finding:
    if abs(skew) <= _SKEW:
        return Finding("connection", name, "ok", "this computer's clock agrees with the vendor's")
    side = "ahead of" if skew > 0 else "behind"
    return Finding("connection", name, "note", f"this computer's clock is {abs(skew):.0f} s {side} the vendor's")
