"""``doctor``: diagnose the installation, the configuration and the credentials; ready for a bug report.

Each connection is checked by the cheapest call that needs its credential: the newest page of the vendor's task list,
else a token request. The response also shows the vendor's clock, and status words missing from our tables. No secret,
and no path below the user's home, is printed.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from taskbridge import __version__
from taskbridge._redaction import MASK
from taskbridge.cli.config import connection_settings, load_shown, with_variables
from taskbridge.cli.exit_codes import DONE, USAGE, code_of
from taskbridge.cli.formatting import plural, wrap_line
from taskbridge.cli.options import (
    config_path,
    connections_argument,
    hide_warnings,
    open_bridge,
    with_config,
    with_json,
)
from taskbridge.cli.output import is_live
from taskbridge.errors import ConfigError, TaskbridgeError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge._config.files import Config, ConnectionConfig
    from taskbridge.cli.output import Output

_LARGEST_SKEW: Final = 5.0  # seconds between the clocks that are not reported: the Date header has whole seconds


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        about: ``taskbridge``, ``installed``, ``provider``, ``configuration``, ``group`` or ``connection``.
        name: Which one.
        verdict: ``ok``, ``note`` or ``problem``.
        message: What was found.
        exit_code: The exit code of a problem.
    """

    about: str
    name: str
    verdict: str
    message: str
    exit_code: int = DONE


@click.command(name="doctor")
@connections_argument
@click.option("--offline", is_flag=True, help="Send nothing.")
@with_json
@with_config
@click.pass_obj
def command(output: Output, connections: tuple[str, ...], *, offline: bool) -> int:
    """Diagnose the installation, configuration and credentials.

    The output can be pasted into a bug report: versions, plugins, the configuration, and for each connection whether
    the vendor accepts its credential, checked by the cheapest call available. Nothing is submitted or changed, and no
    secret is printed.
    """
    hide_warnings()  # the findings say the same
    worst = DONE
    for finding in _findings(output, connections, config_path(), offline=offline):
        worst = max(worst, finding.exit_code)
        if output.as_json:
            output.record(asdict(finding))
        else:
            mark = {"ok": "ok  ", "note": "note", "problem": "FAIL"}[finding.verdict]
            message = _without_home(printable(finding.message))
            line = f"{mark}  {finding.about} {printable(finding.name, 200)}: {message}"
            output.line(wrap_line(line, indent=6) if is_live() else line)
    return worst


def _without_home(text: str) -> str:
    """Replace the user's home, which has the user's name in it."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _findings(output: Output, names: Sequence[str], path: str | None, *, offline: bool) -> Iterator[Finding]:
    from taskbridge._config.files import GroupConfig  # noqa: PLC0415  # heavy
    from taskbridge._config.registry import NO_METADATA, providers  # noqa: PLC0415  # as above
    from taskbridge._transport.choice import curl_problem, transport_name  # noqa: PLC0415  # as above

    yield Finding("taskbridge", __version__, "ok", f"Python {platform.python_version()} on {platform.platform()}")
    yield Finding("installed", "packages", "ok", ", ".join(_installed()))
    problem = curl_problem()
    sender = transport_name("auto")
    yield Finding("installed", "transport", "ok", f"{sender}, because {problem}" if problem else sender)
    known = providers()
    if not known:
        yield Finding("provider", "none", "problem", NO_METADATA, USAGE)
    for info in known:
        origin = " ".join(filter(None, [info.distribution, info.version]))
        if info.problem:
            yield Finding("provider", info.name, "problem", info.problem, USAGE)
        else:
            yield Finding("provider", info.name, "ok", f"from {origin or 'an unnamed distribution'}")
    try:
        config = load_shown(path, names)
        chosen = [config.find(name) for name in names or config.names]
    except ConfigError as error:
        yield Finding("configuration", path or "none", "problem", error.message, USAGE)
        return
    count = len(config.connections)
    default = config.default or ("none" if len(config.names) != 1 else config.names[0])
    place = _without_home(config.place)
    yield Finding("configuration", place, "ok", f"{plural(count, 'connection')}, default {default}")
    if config.path is not None and _exposes_secrets(config.path, config):
        message = f"contains credentials, and others can read it: chmod 600 {place}, or use ${{VARIABLE}}"
        yield Finding("configuration", place, "note", message)
    for each in chosen:
        if isinstance(each, GroupConfig):
            members = ", then ".join(each.first)
            yield Finding("group", each.name, "ok", f"a submission goes to the first that accepts it: {members}")
    connections = (each.first if isinstance(each, GroupConfig) else (each.name,) for each in chosen)
    for name in dict.fromkeys(chain.from_iterable(connections)):
        yield from _check(output, config, config.connections[name], offline=offline)


def _exposes_secrets(path: Path, config: Config) -> bool:
    """Whether the file contains credentials and users other than its owner can read it."""
    if os.name != "posix" or not path.stat().st_mode & 0o044:
        return False
    here = str(config.path)
    return any(
        value == MASK and origin == here
        for connection in config.connections.values()
        for _, value, origin in connection_settings(connection)
    )


def _installed() -> Iterator[str]:
    from sqlite3 import sqlite_version  # noqa: PLC0415  # heavy

    from taskbridge._config.registry import distribution_name  # noqa: PLC0415  # heavy

    own = distribution_name()
    try:
        needed = {match[0] for text in requires(own) or () if (match := re.match(r"[\w.-]+", text))} - {own}
    except PackageNotFoundError:
        needed = set[str]()
    for package in sorted(needed):
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} -"
    yield f"SQLite {sqlite_version}"  # a store, such as that of `run`


def _origin(config: Config, connection: ConnectionConfig) -> str:
    """Where the credential comes from if that is not the configuration's text, for the end of a message."""
    from taskbridge._config.connections import credential_origin  # noqa: PLC0415  # heavy
    from taskbridge._config.registry import load_provider  # noqa: PLC0415  # as above

    origin = credential_origin(with_variables(connection), load_provider(connection.provider))
    return f"; {origin}" if origin and not origin.endswith(f" from {config.place}") else ""


def _check(output: Output, config: Config, connection: ConnectionConfig, *, offline: bool) -> Iterator[Finding]:
    name = connection.name

    def finding(verdict: str, message: str, exit_code: int = DONE) -> Finding:
        return Finding("connection", name, verdict, message, exit_code)

    from taskbridge._engine.unknown_words import mapping_advice  # noqa: PLC0415  # heavy

    try:
        bridge = open_bridge(config, [name])
    except TaskbridgeError as error:
        yield finding("problem", error.message, code_of(error))
        return
    origin = _origin(config, connection)
    if offline:
        yield finding("ok", f"{connection.provider}, settings are valid{origin}; not checked at the vendor")
        return
    with bridge, output.signals.raising():
        try:
            check = bridge[name].check()
        except TaskbridgeError as error:
            output.signals.check()
            status = (
                f" (HTTP {error.http_status})" if error.http_status and f"{error.http_status}" not in str(error) else ""
            )
            yield finding("problem", f"{type(error).__name__}: {error.message}{status}", code_of(error))
            return
    how = check.how or "not checked: the vendor has no call that works without a task"
    yield finding("ok" if check.how else "note", f"{connection.provider}, {how}{origin}")
    if check.skew is not None and abs(check.skew) <= _LARGEST_SKEW:
        yield finding("ok", "this computer's clock agrees with the vendor's")
    elif check.skew is not None:
        side = "ahead of" if check.skew > 0 else "behind"
        yield finding("note", f"this computer's clock is {abs(check.skew):.0f} s {side} the vendor's")
    for word in check.unknown_words:
        advice = mapping_advice(name, word)
        yield finding("note", f"the vendor uses the status word {word!r}, which taskbridge does not know; {advice}")
