"""The options and arguments that several commands take, and the connections, tasks and documents that they name.

No option takes a key. Importing this module needs click only; the library is imported when a connection is opened, a
document is named, or a shell completes a word.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import sys
from codecs import BOM_UTF8
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from taskbridge.errors import ConfigError, InvalidInput, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from click.shell_completion import CompletionItem

    from taskbridge._config.files import Config
    from taskbridge.cli.output import Output
    from taskbridge.client import Bridge, Client
    from taskbridge.models import TaskRef

_CONFIG: Final = "taskbridge.config"  # key in the context's `meta`
_LONGEST: Final = 366 * 86_400.0  # seconds
_MOST_DIGITS: Final = 18  # of a number of bytes
_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_MOST_AGE_DIGITS: Final = 6
_STDIN: Final = "-"
WIDTH: Final = 80  # columns of the help

# Values.


def parse_seconds(_ctx: click.Context, _param: click.Parameter, value: str) -> float | None:
    """Parse a number of seconds, clipped to a year; ``none`` is None."""
    if value == "none":
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not number > 0:  # also refuses not-a-number
        raise click.BadParameter(f"{value!r} is not a number of seconds above 0 (or 'none', to wait without a limit).")
    return min(number, _LONGEST)


def parse_age(_ctx: click.Context, _param: click.Parameter, value: str) -> timedelta:
    """Parse a duration above 0 with its unit, such as ``30d``, ``12h``, ``45m`` or ``90s``."""
    number, unit = value[:-1], _UNITS.get(value[-1:])
    if unit is None or not (number.isascii() and number.isdigit() and len(number) <= _MOST_AGE_DIGITS and int(number)):
        raise click.BadParameter(f"{value!r} is not a duration such as 30d, 12h, 45m or 90s.")
    return timedelta(**{unit: int(number)})


def parse_bytes(_ctx: click.Context, _param: click.Parameter, value: str) -> int | None:
    """Parse a number of bytes; ``none`` is None."""
    if value == "none":
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS):
        raise click.BadParameter(f"{value!r} is not a number of bytes (or 'none', for no limit).")
    return int(value)


def parse_pairs(_ctx: click.Context, _param: click.Parameter, words: Sequence[str]) -> dict[str, Any]:
    """Parse words such as ``output_format=pdf``; a value is JSON where possible.

    Raises:
        ConfigError: A word has no ``=``, or its value is nested too deep.
    """
    pairs: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"an option is written as name=value, not {printable(word, 60)!r}")
        try:
            pairs[name] = json.loads(value, parse_constant=_refuse_constant)
        except ValueError:
            pairs[name] = value
        except RecursionError:
            raise ConfigError(f"the value of the option {printable(name, 60)!r} is nested too deep") from None
    return pairs


def parse_neutral(ctx: click.Context, param: click.Parameter, words: Sequence[str]) -> dict[str, Any]:
    """Parse neutral options such as ``to=pdf``.

    Raises:
        ConfigError: A word has no ``=``.
        InvalidInput: There is no such option.
    """
    pairs = parse_pairs(ctx, param, words)
    if pairs:
        from taskbridge.provider.options import check_option_name  # noqa: PLC0415  # see the module's docstring

        for name in pairs:
            check_option_name(name)
    return pairs


def _refuse_constant(word: str) -> Any:
    raise ValueError(word)  # NaN and Infinity are not JSON


def _keep_config(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta[_CONFIG] = value


def config_path() -> str | None:
    """Return the path given with ``--config``, before or after the command."""
    path: str | None = click.get_current_context().meta.get(_CONFIG)
    return path


# Completion of words in a shell.


def _complete_refs(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _items([f"{name}:" for name in _connection_names()], incomplete, "nospace")


def complete_connections(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a connection."""
    return _items(_connection_names(), incomplete)


def complete_providers(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of an installed provider."""
    from taskbridge._config.registry import provider_names  # noqa: PLC0415  # see the module's docstring

    return _items(provider_names(), incomplete)


def _items(words: Iterable[str], incomplete: str, kind: str = "plain") -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # noqa: PLC0415  # only for shells

    return [CompletionItem(word, type=kind) for word in words if word.startswith(incomplete)]


def _connection_names() -> list[str]:
    from taskbridge._config.files import load_config  # noqa: PLC0415  # see the module's docstring

    try:
        return list(load_config().names)
    except ConfigError:
        return []  # a shell cannot show what is wrong


# Options and arguments.

with_config = click.option(
    "--config",
    metavar="PATH",
    expose_value=False,
    callback=_keep_config,
    help="The configuration; default: TASKBRIDGE_CONFIG, ./taskbridge.toml, then the user's configuration folder.",
)
# `app.run` reads it from the words, so that errors in the command line are JSON too.
with_json = click.option("--json", is_flag=True, expose_value=False, help="One JSON object per line, errors too.")
with_timeout = click.option(
    "--timeout",
    callback=parse_seconds,
    default="900",
    show_default=True,
    metavar="SECONDS",
    help="How long to wait; 'none' for no limit.",
)
with_max_bytes = click.option(
    "--max-bytes",
    callback=parse_bytes,
    default=str(4 << 30),  # as `client.download`
    show_default=True,
    metavar="BYTES",
    help="Largest file to download; 'none' for no limit.",
)
with_connection = click.option(
    "--connection",
    metavar="NAME",
    shell_complete=complete_connections,
    help="A connection of the configuration; default: the configuration's default.",
)
with_options = click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    callback=parse_pairs,
    metavar="NAME=VALUE",
    help="An option of the vendor, passed through; the value is JSON where possible. May be repeated.",
)
with_neutral = click.option(
    "-s",
    "--set",
    "neutral",
    multiple=True,
    callback=parse_neutral,
    metavar="NAME=VALUE",
    help="A neutral option, the same for every vendor: to, text_format, language, pages or dpi. May be repeated.",
)
ref_argument = click.argument("ref", metavar="REF", shell_complete=_complete_refs)
refs_argument = click.argument("refs", nargs=-1, required=True, metavar="REF...", shell_complete=_complete_refs)
connection_argument = click.argument(
    "connection", required=False, metavar="[CONNECTION]", shell_complete=complete_connections
)
connections_argument = click.argument(
    "connections", nargs=-1, metavar="[CONNECTION...]", shell_complete=complete_connections
)

# The connections and tasks that they name.


class _WarningHandler(logging.Handler):
    """Writes the library's warnings to stderr, one line each."""

    def __init__(self, output: Output, *, refusals: bool) -> None:
        super().__init__(logging.WARNING)
        self._output = output
        self._refusals = refusals

    def emit(self, record: logging.LogRecord) -> None:
        if self._refusals or getattr(record, "event", None) != "account-refused":
            self._output.warning(record.getMessage())


def show_warnings(output: Output, *, refusals: bool = False) -> None:
    """Show the library's warnings.

    Args:
        output: Where to show them.
        refusals: Whether to show that a vendor refuses an account, too; most commands end with that error.
    """
    logger = logging.getLogger("taskbridge")
    logger.handlers = [_WarningHandler(output, refusals=refusals)]
    logger.propagate = False


def hide_warnings() -> None:
    """Hide the library's warnings, for commands that report the same themselves."""
    logging.getLogger("taskbridge").handlers = [logging.NullHandler()]


def open_refs(output: Output, texts: Iterable[str]) -> tuple[Bridge, list[TaskRef]]:
    """Open the connections that refs name, and no others, so that another broken connection does not matter.

    Args:
        output: Gets the library's warnings.
        texts: ``connection:id``, or a bare id of the default connection; a dash reads more from standard input, one per
            line, or from what a command wrote with ``--json``.

    Returns:
        The bridge, and each ref once, in the order given.

    Raises:
        ConfigError: The configuration cannot be used, or has no such connection.
        InvalidInput: Standard input has no refs.
        InvalidTaskId: A text cannot be a ref.
        ProviderNotFound: A provider is not installed.
        ProviderLoadError: A provider cannot be used.
    """
    from taskbridge._config.files import load_config  # noqa: PLC0415  # see the module's docstring

    show_warnings(output)
    config = load_config(config_path())
    refs = list(dict.fromkeys(_ref(config, text) for text in _with_stdin(output, texts)))
    if not refs:
        raise InvalidInput("standard input names no task; it must have one ref per line")
    return open_bridge(config, dict.fromkeys(ref.connection for ref in refs)), refs


def read_refs(output: Output, texts: Iterable[str]) -> list[TaskRef]:
    """Return the refs that texts name, each once, in the order given; nothing is opened.

    A ref may name a connection that only other processes have in their configuration. A bare id needs a default here.

    Raises:
        ConfigError: A bare id is given, and there is no default connection.
        InvalidInput: Standard input has no refs.
        InvalidTaskId: A text cannot be a ref.
    """
    from taskbridge._config.files import CONNECTION_NAME, load_config  # noqa: PLC0415  # see the module's docstring
    from taskbridge.models import TaskRef  # noqa: PLC0415  # as above

    refs: list[TaskRef] = []
    for text in _with_stdin(output, texts):
        head, colon, _ = text.partition(":")
        is_full = colon and CONNECTION_NAME.fullmatch(head)
        refs.append(TaskRef(text) if is_full else _ref(load_config(config_path()), text))
    if not refs:
        raise InvalidInput("standard input names no task; it must have one ref per line")
    return list(dict.fromkeys(refs))


def warn_of_missing_connections(output: Output, refs: Iterable[TaskRef]) -> None:
    """Warn of refs whose connection the configuration does not have, if there is a configuration."""
    from taskbridge._config.files import load_config  # noqa: PLC0415  # see the module's docstring

    try:
        config = load_config(config_path())
    except ConfigError:
        return  # that of the process that polls may be elsewhere
    for name in dict.fromkeys(ref.connection for ref in refs):
        if name not in config.connections:
            output.warning(f"no connection {name!r} in {config.place}: it is not polled until it is configured")


def open_bridge(config: Config, names: Iterable[str]) -> Bridge:
    """Open these connections of a configuration.

    Raises:
        ConfigError: There is no such connection, or it cannot be used.
        ProviderNotFound: A provider is not installed.
        ProviderLoadError: A provider cannot be used.
    """
    from dataclasses import replace  # noqa: PLC0415  # see the module's docstring

    import taskbridge._transport.requests  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport]  # else the first request pays for it
    from taskbridge._config.defaults import default_clock  # noqa: PLC0415  # see the module's docstring
    from taskbridge._engine.connection import open_connections  # noqa: PLC0415  # as above
    from taskbridge.client import Bridge  # noqa: PLC0415  # as above

    clock = default_clock()
    chosen = {name: config.connection(name) for name in names}
    return Bridge(open_connections(replace(config, connections=chosen), clock), clock=clock)


def open_client(output: Output | None, name: str | None) -> Client:
    """Open one connection.

    Args:
        output: Gets the library's warnings; None hides them.
        name: The connection; None for the default.

    Raises:
        TaskbridgeError: It cannot be used, or none is named although there are several.
    """
    import taskbridge._transport.requests  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport]  # else the first request pays for it
    from taskbridge._config.files import load_config  # noqa: PLC0415  # see the module's docstring
    from taskbridge.client import connect  # noqa: PLC0415  # as above

    if output is None:
        hide_warnings()
    else:
        show_warnings(output)
    if name is None:
        name = _default(load_config(config_path()), "name a connection")
    return connect(connection=name, config=config_path())


def _with_stdin(output: Output, texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        if text != _STDIN:
            yield text
            continue
        with output.signals.raising():
            lines = [line.strip().removeprefix("\ufeff") for line in sys.stdin or ()]
        yield from (_ref_in(line) for line in lines if line and not line.startswith("#"))


def _ref_in(line: str) -> str:
    """Return the ref on a line: the line itself, or the ref of a record that a command wrote with ``--json``."""
    try:
        record: object = json.loads(line) if line.startswith("{") else None
    except (ValueError, RecursionError):
        return line
    ref = cast("dict[str, Any]", record).get("ref") if isinstance(record, dict) else None
    return ref if isinstance(ref, str) else line


def _ref(config: Config, text: str) -> TaskRef:
    from taskbridge._config.files import CONNECTION_NAME  # noqa: PLC0415  # see the module's docstring
    from taskbridge.models import TaskRef  # noqa: PLC0415  # as above

    head, colon, _ = text.partition(":")
    if colon and head in config.connections:
        return TaskRef(text)
    if colon and CONNECTION_NAME.fullmatch(head):
        config.connection(head)  # raises: there is none of that name
    hint = f"{printable(text, 80)!r} names no connection: write it as connection:id, with a connection"
    return TaskRef.of(_default(config, hint), text)


def _default(config: Config, hint: str) -> str:
    names = ", ".join(sorted(config.names))
    if config.default is None and len(config.names) > 1:
        raise ConfigError(f"{hint} of {names}, or add a default to {config.place}")
    if not names:
        raise ConfigError(f"{config.place} has no connections; add [connections.invoices]")
    return config.find().name


# The documents that they name.


def document_name(source: str) -> str:
    """Return a short name that is safe to show: a file name, or the last part of a URL, whose query may be a key."""
    from taskbridge._engine.inputs import is_url  # noqa: PLC0415  # see the module's docstring
    from taskbridge._engine.redirects import name_of  # noqa: PLC0415  # as above

    return printable(name_of(source) if is_url(source) else os.path.basename(source), 200)  # noqa: PTH119  # a text, no path


def find_documents(words: Iterable[str]) -> list[str]:
    """Return absolute paths and URLs, each once, in the order given.

    Args:
        words: Paths, folders, patterns and URLs.

    Raises:
        InvalidInput: A folder is empty, or nothing matches a pattern.
    """
    return list(dict.fromkeys(source for word in words for source in _expand(word)))


def read_list(list_path: str) -> list[str]:
    """Return the lines of a file that names documents; ``-`` is standard input.

    Raises:
        OSError: It cannot be read.
    """
    data = sys.stdin.buffer.read() if list_path == "-" else Path(list_path).read_bytes()
    return [os.fsdecode(line) for line in data.removeprefix(BOM_UTF8).splitlines() if line.strip()]


def _expand(word: str) -> Iterable[str]:
    from taskbridge._engine.inputs import is_url  # noqa: PLC0415  # see the module's docstring

    if is_url(word):
        return [word]
    path = Path(word)
    if path.is_dir():
        paths = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
        if not paths:
            raise InvalidInput(f"the folder {printable(word, 300)} has no files in it; its subfolders are not searched")
    elif glob.has_magic(word) and not path.exists():
        paths = sorted(Path(each) for each in glob.glob(word, recursive=True) if Path(each).is_file())  # noqa: PTH207  # the pattern may be absolute
        if not paths:
            raise InvalidInput(f"no file matches {printable(word, 300)}")
    else:
        paths = [path]
    return [os.path.abspath(each) for each in paths]  # noqa: PTH100  # resolve() would follow links
