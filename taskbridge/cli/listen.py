"""``listen``: receive webhooks, verify them, apply them, and print them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import click

from taskbridge.cli.formatting import status_text
from taskbridge.cli.options import connection_argument, open_client, with_config, with_json
from taskbridge.cli.records import error_or_none, task_record
from taskbridge.errors import ConfigError, TaskbridgeError, WebhookRejected, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge._engine.webhooks import Ingested
    from taskbridge.cli.listen_server import Delivery
    from taskbridge.cli.output import Output
    from taskbridge.client import Client
    from taskbridge.models import WebhookEvent

_OK: Final = 200
_UNAVAILABLE: Final = 503  # the vendor delivers it again
_SECRETS_HINT: Final = (
    "put the signing secret into the connection's webhook_secrets, as a list and best from the environment: "
    'webhook_secrets = ["${WEBHOOK_SECRET}"]'
)


@click.command(name="listen")
@connection_argument
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0 picks a free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@with_json
@with_config
@click.pass_obj
def command(output: Output, connection: str | None, port: int, host: str) -> int:
    """Receive, verify and print a vendor's webhooks until Ctrl-C.

    Each delivery is one line with the HTTP status of the response. Unverified deliveries are rejected, and the task is
    polled to confirm what a signature does not cover. The vendor needs your tunnel or proxy to reach this machine.
    """
    from taskbridge._config.registry import load_provider  # noqa: PLC0415  # heavy
    from taskbridge.cli.listen_server import WebhookServer  # noqa: PLC0415  # needs h11

    with output.signals.reporting(output.stopped):
        client = open_client(None, connection)  # each delivery has a line of its own, so no warnings
        _check_secrets(client)
        provider = load_provider(client.provider)
        lines: SimpleQueue[tuple[str, dict[str, Any]]] = SimpleQueue()
        receiver = _Receiver(client, lines)
        server = WebhookServer(
            host, port, max_body=provider.max_delivery, receive=receiver.receive, rejected=receiver.rejected
        )
        problem = ""
        try:
            with server, output.signals.raising():
                url = f"http://{f'[{host}]' if ':' in host else host}:{server.port}/"
                if output.as_json:
                    output.note_record({"listening": url})
                else:
                    source = f"{provider.title} (connection {client.name})"
                    output.note(f"taskbridge: listening at {url} for webhooks of {source}, until Ctrl-C")
                while True:
                    line, record = lines.get()
                    if output.as_json:
                        output.record(record)
                    else:
                        output.line(line)
        except BrokenPipeError:
            raise
        except OSError as error:
            problem = (
                f"cannot listen on port {port} of {printable(host, 100)} ({error.strerror}); choose another with --port"
            )
        raise ConfigError(problem)


def _check_secrets(client: Client) -> None:
    """Check now that deliveries can be verified.

    Raises:
        ConfigError: They cannot.
        UnsupportedFeature: The vendor sends no webhooks.
    """
    problem: ConfigError | None = None
    try:
        client.parse_webhook({}, b"{}")
    except WebhookRejected:
        return
    except ConfigError as error:
        problem = error
    if problem is not None:
        raise problem.again(message=f"{problem.message}; {_SECRETS_HINT}")


class _Receiver:
    """Verifies and applies deliveries, and queues a line for each."""

    def __init__(self, client: Client, lines: SimpleQueue[tuple[str, dict[str, Any]]]) -> None:
        self._client = client
        self._lines = lines

    async def receive(self, delivery: Delivery) -> int:
        """Verify and apply a delivery; return the HTTP status of the response."""
        try:
            event = self._client.parse_webhook(delivery.headers, delivery.body, url=delivery.url)
        except WebhookRejected as error:
            self.rejected(error.answer, error.message)
            return error.answer
        except TaskbridgeError as error:
            self.rejected(500, error.message)
            return 500
        name = f"{printable(event.type, 60)}  {printable(event.ref or '-', 600)}"
        try:
            ingested = await asyncio.to_thread(self._client.ingest, event)
        except TaskbridgeError as error:
            text = f"{name}  not confirmed: {printable(error.message, 300)}"
            self._queue(_UNAVAILABLE, text, _record(_UNAVAILABLE, event, None, error))
            return _UNAVAILABLE
        task = ingested.task or event.task
        confirmed = ", confirmed by a poll" if event.needs_confirmation and ingested.task is not None else ""
        status = "" if ingested.status == "applied" else f" ({ingested.status})"
        text = f"{name}  {'-' if task is None else status_text(task)}{confirmed}{status}"
        self._queue(_OK, text, _record(_OK, event, ingested, None))
        return _OK

    def rejected(self, status: int, why: str) -> None:
        """Queue the line of a rejected delivery."""
        self._queue(status, f"rejected: {printable(why, 300)}", {"status": status, "rejected": printable(why, 300)})

    def _queue(self, status: int, text: str, record: Mapping[str, Any]) -> None:
        now = datetime.now().astimezone()
        self._lines.put((f"{now:%H:%M:%S}  {status}  {text}", {"time": now.isoformat(), **record}))


def _record(
    status: int, event: WebhookEvent, ingested: Ingested | None, error: TaskbridgeError | None
) -> dict[str, Any]:
    task = event.task if ingested is None or ingested.task is None else ingested.task
    return {
        "status": status,
        "type": printable(event.type, 200),
        "event_id": event.event_id,
        "occurred_at": None if event.occurred_at is None else event.occurred_at.isoformat(),
        "ref": event.ref,
        "ingest_status": None if ingested is None else ingested.status,
        "confirmed": event.needs_confirmation and ingested is not None and ingested.task is not None,
        "task": task_record(task),
        "error": error_or_none(error),
    }
