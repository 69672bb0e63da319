"""``listen``: receive webhooks, verify them, apply them, and print them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import datetime
from threading import Condition
from typing import TYPE_CHECKING, Any, Final

import click

from taskbridge.cli.formatting import status_text
from taskbridge.cli.options import connection_argument, open_client, with_config, with_json
from taskbridge.cli.records import error_or_none, task_record
from taskbridge.errors import ConfigError, TaskbridgeError, WebhookRejected, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taskbridge._engine.webhooks import Ingested
    from taskbridge.cli.listen_server import Delivery
    from taskbridge.cli.output import Output
    from taskbridge.client import Client
    from taskbridge.models import WebhookEvent

_OK: Final = 200
_UNAVAILABLE: Final = 503  # the vendor delivers it again
_REJECTED_LINES: Final = 20  # for rejected requests within the window; anyone can cause them
_WINDOW: Final = 60.0  # seconds
_QUEUED_LINES: Final = 1000  # not yet written
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
        log = DeliveryLog()
        receiver = _Receiver(client, log)
        server = WebhookServer(
            host,
            port,
            max_body=provider.max_delivery,
            receive=receiver.receive,
            check=receiver.check,
            rejected=log.rejected,
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
                try:
                    for line, record in log.lines():
                        _write(output, line, record)
                finally:
                    for line, record in log.omitted():
                        _write(output, line, record)
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


def _write(output: Output, line: str, record: Mapping[str, Any]) -> None:
    if output.as_json:
        output.record(record)
    else:
        output.line(line)


class DeliveryLog:
    """The lines about deliveries, written by the server's thread and read by the command's.

    Rejected requests have a limited number of lines, and so has the queue, because anyone can cause the former and a
    blocked output fills the latter. What is left out is counted and reported.

    Args:
        window: Seconds for which rejected requests share their limit.
    """

    def __init__(self, window: float = _WINDOW) -> None:
        self._window = window
        self._queue: deque[tuple[str, dict[str, Any]]] = deque()
        self._changed = Condition()
        self._window_ends = 0.0
        self._rejected = 0  # within the window
        self._unwritten = 0

    def add(self, status: int, text: str, record: Mapping[str, Any]) -> None:
        """Queue a line."""
        with self._changed:
            if len(self._queue) < _QUEUED_LINES:
                self._queue.append(_line(status, text, record))
            else:
                self._unwritten += 1
            self._changed.notify()

    def rejected(self, status: int, why: str) -> None:
        """Queue the line of a rejected request, or count it."""
        with self._changed:
            if not self._rejected:
                self._window_ends = time.monotonic() + self._window
            self._rejected += 1
            if self._rejected > _REJECTED_LINES:
                self._changed.notify()
                return
        why = printable(why, 300)
        self.add(status, f"rejected: {why}", {"status": status, "rejected": why})

    def lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield lines as they come, without end."""
        while True:
            with self._changed:
                if not self._queue:
                    left = self._window_ends - time.monotonic()
                    self._changed.wait(max(left, 0.0) if self._rejected else None)
                ready = [*self._queue]
                self._queue.clear()
                unwritten, self._unwritten = self._unwritten, 0
                ended = bool(self._rejected) and time.monotonic() >= self._window_ends
            yield from ready
            if unwritten:
                text = f"{unwritten} lines were left out: the output was blocked"
                yield _line(None, text, {"status": None, "lines_left_out": unwritten})
            if ended:
                yield from self.omitted()

    def omitted(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield how many rejected requests had no line, and count from zero again."""
        with self._changed:
            omitted = max(self._rejected - _REJECTED_LINES, 0)
            self._rejected = 0
        if omitted:
            yield _line(None, f"{omitted} more requests were rejected", {"status": None, "more_rejected": omitted})


def _line(status: int | None, text: str, record: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    now = datetime.now().astimezone()
    return f"{now:%H:%M:%S}  {status or '   '}  {text}", {"time": now.isoformat(), **record}


class _Receiver:
    """Verifies and applies deliveries, and logs each."""

    def __init__(self, client: Client, log: DeliveryLog) -> None:
        self._client = client
        self._log = log

    def check(self, delivery: Delivery) -> bool:
        """Return whether the head of a delivery proves its sender; see `is_proved_by_head`."""
        from taskbridge.cli.listen_check import is_proved_by_head  # noqa: PLC0415  # heavy

        connection = self._client._connection  # noqa: SLF001  # its secrets, which are not public
        return is_proved_by_head(connection, delivery)

    async def receive(self, delivery: Delivery) -> int:
        """Verify and apply a delivery; return the HTTP status of the response."""
        try:
            event = self._client.parse_webhook(delivery.headers, delivery.body, url=delivery.url)
        except WebhookRejected as error:
            self._log.rejected(error.answer, error.message)
            return error.answer
        except TaskbridgeError as error:
            self._log.rejected(500, error.message)
            return 500
        name = f"{printable(event.type, 60)}  {printable(event.ref or '-', 600)}"
        try:
            ingested = await asyncio.to_thread(self._client.ingest, event)
        except TaskbridgeError as error:
            text = f"{name}  not confirmed: {printable(error.message, 300)}"
            self._log.add(_UNAVAILABLE, text, _record(_UNAVAILABLE, event, None, error))
            return _UNAVAILABLE
        task = ingested.task or event.task
        confirmed = ", confirmed by a poll" if event.needs_confirmation and ingested.task is not None else ""
        note = "" if ingested.status == "applied" else f" ({ingested.status})"
        text = f"{name}  {'-' if task is None else status_text(task)}{confirmed}{note}"
        status = _UNAVAILABLE if ingested.answer == _UNAVAILABLE else _OK
        self._log.add(status, text, _record(status, event, ingested, None))
        return status


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
