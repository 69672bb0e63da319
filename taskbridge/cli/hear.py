"""``listen``: webhooks as they come, proved, taken in, and shown."""

from __future__ import annotations

import asyncio
from datetime import datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from taskbridge._config.registry import load_provider
from taskbridge.cli.door import Door
from taskbridge.cli.records import event_record
from taskbridge.cli.refs import open_client, unheard
from taskbridge.cli.texts import status_of
from taskbridge.errors import ConfigError, TaskbridgeError, WebhookRejected, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge._engine.webhooks import Ingested
    from taskbridge.cli.door import Came
    from taskbridge.cli.screen import Screen
    from taskbridge.client import Client

__all__ = ["hear_webhooks"]

_TAKEN: Final = 200
_LATER: Final = 503  # the vendor delivers it again
# Proof by svix, by an HMAC, or by the address: what to put where.
_ADVICE: Final = (
    "put it under webhook_secrets of the connection, as a list and best from the environment: "
    'webhook_secrets = ["${WEBHOOK_SECRET}"]'
)


def hear_webhooks(screen: Screen, connection: str | None, config: str | None, *, host: str, port: int) -> int:
    """Serve until stopped; the exit code.

    Raises:
        TaskbridgeError: It cannot be done so.
    """
    unheard()  # each delivery is told of in a line of its own
    with screen.signals.told(screen.stopped):
        client = open_client(config, connection)
        _try_secrets(client)
        shown: SimpleQueue[tuple[str, dict[str, Any]]] = SimpleQueue()
        hearing = _Hearing(client, shown)
        largest = load_provider(client.provider).max_delivery
        door = Door(host, port, largest=largest, hear=hearing.hear, refuse=hearing.refuse)
        fault = ""
        try:
            with door, screen.signals.raising():
                _tell(screen, client, f"http://{f'[{host}]' if ':' in host else host}:{door.port}/")
                while True:
                    line, record = shown.get()
                    if screen.as_json:
                        screen.record(record)
                    else:
                        screen.line(line)
        except BrokenPipeError:
            raise
        except OSError as error:
            fault = (
                f"port {port} of {printable(host, 100)} cannot be had ({error.strerror}); choose another with --port"
            )
        raise ConfigError(fault)


def _try_secrets(client: Client) -> None:
    """Find out now whether anything could be proved.

    Raises:
        ConfigError: Nothing could.
        UnsupportedFeature: The vendor sends no webhooks.
    """
    fault: ConfigError | None = None
    try:
        client.parse_webhook({}, b"{}")
    except WebhookRejected:
        return
    except ConfigError as error:
        fault = error
    if fault is not None:
        raise fault.again(message=f"{fault.message}; {_ADVICE}")


def _tell(screen: Screen, client: Client, url: str) -> None:
    title = load_provider(client.provider).title
    if screen.as_json:
        screen.note_record({"listening": url})
        return
    screen.note(f"taskbridge: listening at {url} for webhooks of {title} (connection {client.name}), until Ctrl-C")


class _Hearing:
    """Takes deliveries in, and hands on what to show of them."""

    def __init__(self, client: Client, shown: SimpleQueue[tuple[str, dict[str, Any]]]) -> None:
        self._client = client
        self._shown = shown

    async def hear(self, came: Came) -> int:
        """Prove and take in a delivery; the HTTP status to answer with."""
        try:
            event = self._client.parse_webhook(came.headers, came.body, url=came.url)
        except WebhookRejected as error:
            self.refuse(error.answer, error.message)
            return error.answer
        except TaskbridgeError as error:
            self.refuse(500, error.message)
            return 500
        try:
            told = await asyncio.to_thread(self._client.ingest, event)
        except TaskbridgeError as error:
            words = f"{printable(event.type, 60)}  {printable(event.ref or '-', 600)}  not confirmed: {printable(error.message, 300)}"
            self._show(_LATER, words, event_record(_LATER, event, None, error))
            return _LATER
        self._show(_TAKEN, _words(told), event_record(_TAKEN, event, told, None))
        return _TAKEN

    def refuse(self, status: int, why: str) -> None:
        """Tell of what was not taken in."""
        self._show(status, f"refused: {printable(why, 300)}", {"status": status, "refused": printable(why, 300)})

    def _show(self, status: int, words: str, record: Mapping[str, Any]) -> None:
        now = datetime.now().astimezone()
        self._shown.put((f"{now:%H:%M:%S}  {status}  {words}", {"time": now.isoformat(), **record}))


def _words(told: Ingested) -> str:
    event, task = told.event, told.task or told.event.task
    state = "-" if task is None else status_of(task)
    uncertainty = ", confirmed by a look-up" if event.needs_confirmation and told.task is not None else ""
    note = "" if told.note == "applied" else f" ({told.note})"
    return f"{printable(event.type, 60)}  {printable(event.ref or '-', 600)}  {state}{uncertainty}{note}"
