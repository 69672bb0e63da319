"""Where `taskbridge serve --deliver` sends events: standard output, an HTTPS server, or Celery."""

from __future__ import annotations

import os
import stat
import sys
import threading
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from hmac import digest
from json import dumps
from pathlib import Path
from typing import Any, Final, Protocol, TextIO, cast
from urllib.parse import parse_qs, quote, urlsplit
from uuid import NAMESPACE_URL, uuid5

from taskbridge._config.connections import url_problem
from taskbridge._config.network import network_of
from taskbridge._config.registry import require_extra
from taskbridge._config.settings import CommonSettings
from taskbridge._runtime.base import user_agent
from taskbridge._transport.choice import make_transport
from taskbridge.errors import ConfigError, TaskbridgeError, printable
from taskbridge.provider.clock import Clock, SystemClock
from taskbridge.provider.http import Request, Response
from taskbridge.provider.policy import parse_retry_after
from taskbridge.provider.signatures import SVIX_PREFIX
from taskbridge.store.records import Event

SECRET_VARIABLE: Final = "TASKBRIDGE_DELIVER_SECRET"  # noqa: S105  # the name of a variable
"""Environment variable with the secret that signs what is sent to an HTTPS server."""

_TIMEOUT: Final = 15.0  # seconds for one request
_LARGEST_ANSWER: Final = 1 << 20  # bytes; its content is not used
_CONNECTIONS: Final = 32  # that are kept open
_FORMS: Final = "stdout, https://host/path, or celery://module:app/task.name"


class Target(Protocol):
    """Receives events, as the handler of a `taskbridge.Relay`."""

    def __call__(self, event: Event) -> object:
        """Send an event; if this raises, it is sent again later."""
        ...

    def close(self) -> None:
        """Close the open connections."""
        ...


class DeliveryFailed(TaskbridgeError):
    """A server did not accept an event."""

    retryable_by_default = True


class LineTarget:
    """Writes each event as a line of JSON.

    If the last line of a file has no end, because a process was killed while it wrote it, the first event starts a line
    of its own.

    Args:
        file: Where to; None for standard output.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._is_checked = False

    def __repr__(self) -> str:
        return "<target stdout>"

    def __call__(self, event: Event) -> None:
        """Write an event."""
        with self._lock:
            file = self._file or sys.stdout
            if not self._is_checked:
                self._is_checked = True
                if _has_cut_line(file):
                    file.write("\n")
            file.write(f"{dumps(event.to_dict())}\n")  # at once: `print` may write the end of the line apart
            file.flush()

    def close(self) -> None:
        """Do nothing."""


def _has_cut_line(file: TextIO) -> bool:
    """Whether a regular file, which may be open for writing only, has a last line without an end."""
    try:
        descriptor = file.fileno()
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or not facts.st_size:
            return False
        with Path(f"/dev/fd/{descriptor}").open("rb") as reader:
            reader.seek(-1, os.SEEK_END)
            return reader.read(1) != b"\n"
    except (OSError, ValueError):  # a stream without a descriptor, or a system that cannot open it again
        return False


class HttpTarget:
    """Sends each event by POST, as JSON, to a server; any 2xx status accepts it, and redirects are not followed.

    The headers ``Idempotency-Key`` and ``webhook-id`` are the event's key, percent-encoded. With a secret, the request
    is signed by the scheme of Standard Webhooks, https://www.standardwebhooks.com.

    Args:
        url: Where to; a path or query may be secret, and is not shown.
        secret: ``whsec_`` and base64; None sends requests without a signature.
        clock: The time.

    Raises:
        ConfigError: The URL or the secret cannot be used.
    """

    def __init__(self, url: str, secret: str | None = None, *, clock: Clock | None = None) -> None:
        problem = url_problem(url.partition("?")[0], allow_http=False) or (
            None if url.isascii() and url.isprintable() and " " not in url else "must be an https:// URL"
        )
        if problem and problem.startswith("is plain http"):
            problem = "is plain http, which would send events in clear; use https"
        if problem:
            raise ConfigError(f"the URL to deliver to {problem}")
        self._url = url
        self._host = urlsplit(url).hostname or ""
        self._key = None if secret is None else _signing_key(secret)
        self._clock = clock or SystemClock()
        settings = CommonSettings()
        self._transport = make_transport(network_of(settings), user_agent(settings), _CONNECTIONS, settings.transport)

    def __repr__(self) -> str:
        return f"<target {self._host}>"

    def __call__(self, event: Event) -> None:
        """Send an event.

        Raises:
            DeliveryFailed: The server does not accept it, or cannot be reached.
        """
        body, key = dumps(event.to_dict()).encode(), quote(event.key, safe="/:")
        headers = {"Content-Type": "application/json", "Idempotency-Key": key, "webhook-id": key}
        if self._key is not None:
            stamp = str(int(self._clock.now().timestamp()))
            signed = f"{key}.{stamp}.".encode() + body
            signature = b64encode(digest(self._key, signed, sha256)).decode()
            headers |= {"webhook-timestamp": stamp, "webhook-signature": f"v1,{signature}"}
        try:
            response = self._transport.send(
                Request("POST", self._url, headers, body, authorized=False, response_type="bytes"),
                deadline=self._clock.monotonic() + _TIMEOUT,
                max_body=_LARGEST_ANSWER,
            )
        except TaskbridgeError as error:
            problem = error.message
        else:
            self._check(response)
            return
        raise DeliveryFailed(f"{self._host}: {problem}")

    def _check(self, response: Response) -> None:
        if not 200 <= response.status < 300:
            redirect = "; redirects are not followed" if 300 <= response.status < 400 else ""
            raise DeliveryFailed(
                f"{self._host} answered {response.status}{redirect}",
                http_status=response.status,
                retry_after=parse_retry_after(response.headers, response.received_at),
            )

    def close(self) -> None:
        """Close the kept connections."""
        self._transport.close()


class CeleryTarget:
    """Sends each event to a Celery task, as its only argument, a dictionary of `Event.to_dict`.

    The id of the Celery task is derived from the event's key, so it is the same each time the event is sent.

    Args:
        app: The Celery application, which knows its broker.
        task_name: Name of the Celery task; workers need to know it, this process does not.
        options: Further arguments of ``send_task``, such as ``queue``.
    """

    def __init__(self, app: Any, task_name: str, options: Mapping[str, Any] | None = None) -> None:
        self._app = app
        self._task_name = task_name
        self._options = dict(options or {})

    def __repr__(self) -> str:
        return f"<target {self._task_name} of Celery>"

    def __call__(self, event: Event) -> None:
        """Send an event; raises what Celery raises, such as ``kombu.exceptions.OperationalError``."""
        self._app.send_task(self._task_name, args=[event.to_dict()], task_id=task_id_of(event), **self._options)

    def close(self) -> None:
        """Do nothing: the connections are the application's."""


def task_id_of(event: Event) -> str:
    """Return the id of the Celery task for an event: a UUID that depends on its key only."""
    return str(uuid5(NAMESPACE_URL, f"taskbridge:{event.key}"))


def open_target(url: str, *, environ: Mapping[str, str] | None = None) -> Target:
    """Return what sends events to an address.

    Args:
        url: ``stdout``; an ``https://`` URL; or ``celery://module:app/task.name`` with an importable Celery application
            and, after ``?queue=``, the name of a queue. Plain http is for this machine only.
        environ: The environment; None for that of the process.

    Raises:
        ConfigError: It is none of these, or cannot be used.
    """
    if url == "stdout":
        return LineTarget()
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower() if separator else ""
    if scheme in ("http", "https"):
        return HttpTarget(url, (os.environ if environ is None else environ).get(SECRET_VARIABLE) or None)
    if scheme == "celery":
        return _celery_target(url)
    given = f"{printable(scheme, 40)}://" if scheme else "an address without a scheme"  # the rest may be secret
    raise ConfigError(f"{given} is nothing to deliver to; it is one of: {_FORMS}")


def _celery_target(url: str) -> CeleryTarget:
    address, _, query = url.partition("://")[2].partition("?")
    app_name, _, task_name = address.partition("/")
    options = parse_qs(query)
    if not app_name or not task_name or "/" in task_name or "@" in address or options.keys() - {"queue"}:
        raise ConfigError(
            "a Celery task to deliver to is celery://module:app/task.name, and ?queue=name if need be; the application "
            "names its broker"
        )
    try:
        from celery import Celery  # noqa: PLC0415  # an extra
        from celery.app.utils import find_app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "celery":
            raise
        raise require_extra("celery", "celery", "delivering to Celery") from None
    try:
        app = cast("object", find_app(app_name))  # whatever has that name
    except Exception as error:  # noqa: BLE001  # whatever the module raises
        problem = f"{type(error).__name__}: {printable(str(error), 200)}"
    else:
        if isinstance(app, Celery):
            return CeleryTarget(app, task_name, {name: values[-1] for name, values in options.items()})
        problem = f"it is a {type(app).__name__}, and not a Celery application"
    raise ConfigError(f"the Celery application {printable(app_name, 100)} cannot be used: {problem}")


def _signing_key(secret: str) -> bytes:
    key = b""
    with suppress(ValueError):
        key = b64decode(secret.removeprefix(SVIX_PREFIX), validate=True)
    if not secret.startswith(SVIX_PREFIX) or len(key) < 24:
        raise ConfigError(
            f"{SECRET_VARIABLE} must be {SVIX_PREFIX} and the base64 of at least 24 random bytes, as this prints: "
            "python -c \"import base64, os; print('whsec_' + base64.b64encode(os.urandom(24)).decode())\""
        )
    return key
