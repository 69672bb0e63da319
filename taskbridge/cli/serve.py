"""``serve``: work on a store, and show a page, metrics and its health over HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from taskbridge.cli.exit_codes import DONE
from taskbridge.cli.options import config_path, show_warnings, with_config, with_json
from taskbridge.cli.store_options import open_store, with_store
from taskbridge.errors import ConfigError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.aio import Bridge
    from taskbridge.cli.output import Output

TOKEN_VARIABLE: Final = "TASKBRIDGE_SERVE_TOKEN"  # noqa: S105  # a name
_MOST_TOKEN: Final = 4096  # bytes


@click.command(name="serve")
@with_store
@click.option(
    "--http",
    "address",
    default="127.0.0.1:8700",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to serve the page; port 0 picks a free one.",
)
@click.option(
    "--trust-proxy",
    "proxies",
    multiple=True,
    metavar="ADDRESS",
    help="Address or network of a reverse proxy that names the user in X-Forwarded-User.",
)
@click.option(
    "--host-name",
    "names",
    multiple=True,
    metavar="NAME",
    help="Name under which browsers reach the server; no other is answered. Required with a proxy on this machine.",
)
@click.option(
    "--connection", "connections", multiple=True, metavar="NAME", help="Work on this connection only; default: all."
)
@click.option("--token-file", metavar="PATH", help=f"A file with the token to log in with; default: {TOKEN_VARIABLE}.")
@click.option(
    "--deliver",
    "targets",
    multiple=True,
    metavar="URL",
    help="Send events there: stdout, https://…, or celery://module:app/task.",
)
@click.option("--webhooks", is_flag=True, help="Receive webhooks at /hooks/CONNECTION, for all with webhook_secrets.")
@click.option("--no-work", is_flag=True, help="Only show the page: poll, submit and deliver nothing.")
@with_json
@with_config
@click.pass_obj
def command(
    output: Output,
    store: str,
    *,
    address: str,
    connections: Sequence[str],
    proxies: Sequence[str],
    names: Sequence[str],
    token_file: str | None,
    targets: Sequence[str],
    webhooks: bool,
    no_work: bool,
) -> int:
    """Poll the tasks of a store, send its submissions, and show how it goes.

    Runs until Ctrl-C or SIGTERM, and then finishes what is being sent; SIGHUP reads the configuration again. Several
    servers may share a store: each connection belongs to one of them, and another takes over when that ends.
    """
    from taskbridge.serve import Access, Server, listen, open_recipients  # noqa: PLC0415  # an extra, and heavy

    with output.signals.reporting(output.stopped):
        host, port = _host_and_port(address)
        if no_work and targets:
            raise ConfigError(
                "--deliver needs a server that works: it sends the events of the connections that it owns"
            )
        show_warnings(output, refusals=True)
        access = Access(host, _token(token_file), proxies, names)
        path = config_path()

        def open_bridge() -> Bridge:
            from taskbridge.aio import Bridge  # noqa: PLC0415  # heavy

            return Bridge.from_config(path)

        def report(text: str) -> None:
            if output.as_json:
                output.note_record({"report": text})
            else:
                output.note(f"taskbridge: {text}")

        async def serve() -> None:
            jobs = [each.delivery(opened, lambda: server.owned) for each in recipients]
            opens = None if no_work and not webhooks else open_bridge
            server: Server = Server(
                opened,
                bound,
                access,
                opens,
                report,
                jobs=jobs,
                works=not no_work,
                receives=webhooks,
                connections=connections,
            )
            loop = asyncio.get_running_loop()
            if hasattr(signal, "SIGHUP"):
                loop.add_signal_handler(signal.SIGHUP, server.reload)
            with output.signals.calling(lambda: loop.call_soon_threadsafe(server.stop)):
                await server.run()

        with open_recipients(targets) as recipients, open_store(store) as opened, listen(host, port) as bound:
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{bound.getsockname()[1]}/"
            is_stdout_taken = any(each.is_stdout for each in recipients)
            if output.as_json:
                write_record = output.note_record if is_stdout_taken else output.record
                write_record({"serving": url, "store": opened.database.name})
            else:
                write = output.note if is_stdout_taken else output.line
                write(f"taskbridge: serving {opened.database.name} at {url} until Ctrl-C")
            asyncio.run(serve())
    return DONE


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65_536):
        raise ConfigError(f"--http takes HOST:PORT such as 127.0.0.1:8700, not {printable(address, 100)!r}")
    return host, int(port)


def _token(path: str | None) -> str | None:
    """Return the token of the file, or of the environment.

    Raises:
        ConfigError: The file cannot be read, or is empty.
    """
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    token, problem = "", ""
    try:
        with Path(path).open("rb") as file:
            token = file.read(_MOST_TOKEN).decode().strip()
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        problem = "it is not text"
    if problem or not token:
        raise ConfigError(f"--token-file {printable(path, 300)} cannot be used: {problem or 'it is empty'}")
    return token
