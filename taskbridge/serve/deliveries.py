"""Where `taskbridge serve --deliver` sends events, each address as a consumer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from taskbridge.errors import ConfigError, printable
from taskbridge.store import Event, Store
from taskbridge.store.intents import check_key
from taskbridge.store.relay import AsyncRelay
from taskbridge.store.targets import LineTarget, Target, open_target

_CONCURRENCY: Final = 8  # events that are sent to an address at the same time, each of another task
_DIGITS: Final = 12  # of the digest in a consumer's name
_LONGEST: Final = 150  # characters of a consumer's name before its digest


@dataclass(frozen=True, slots=True)
class Recipient:
    """An address that gets the events.

    Attributes:
        consumer: Under this name the store keeps what it has got.
        target: Sends an event.
        threads: Threads of its own, so that a slow server does not hold up the work on the store.
    """

    consumer: str
    target: Target
    threads: ThreadPoolExecutor

    @property
    def is_stdout(self) -> bool:
        """Whether it is standard output."""
        return isinstance(self.target, LineTarget)

    def delivery(self, store: Store, connections: Callable[[], Iterable[str]]) -> Delivery:
        """Return the work of sending it the events of some connections.

        Args:
            store: The store.
            connections: Returns their names, each time.
        """
        return Delivery(self, store, connections)


class Delivery:
    """Sends a recipient events until it is stopped, or until standard output is closed.

    Args:
        recipient: The recipient.
        store: Where the events are from.
        connections: Returns the names of their connections, each time.
    """

    def __init__(self, recipient: Recipient, store: Store, connections: Callable[[], Iterable[str]]) -> None:
        self._recipient = recipient
        concurrency = 1 if recipient.is_stdout else _CONCURRENCY
        self._relay = AsyncRelay(
            store, recipient.consumer, self._send, connections=connections, concurrency=concurrency
        )
        self._closed: BrokenPipeError | None = None

    async def run(self) -> None:
        """Send events until `stop` is called.

        Raises:
            BrokenPipeError: Standard output is closed; no later attempt could succeed.
        """
        await self._relay.run()
        if self._closed is not None:
            raise self._closed

    def stop(self) -> None:
        """Let `run` end, once what is being sent was answered."""
        self._relay.stop()

    async def _send(self, event: Event) -> None:
        recipient = self._recipient
        try:
            await asyncio.get_running_loop().run_in_executor(recipient.threads, recipient.target, event)
        except BrokenPipeError as error:
            if recipient.is_stdout:
                self._closed = error
                self._relay.stop()
            raise


@contextmanager
def open_recipients(addresses: Sequence[str]) -> Generator[list[Recipient]]:
    """Open the addresses of ``--deliver``, each a URL or ``NAME=URL``, for the time of a block.

    Raises:
        ConfigError: One of them cannot be used, or two have the same name.
        InvalidInput: A name is no short printable text.
    """
    found: dict[str, Recipient] = {}
    with ExitStack() as stack:
        for address in addresses:
            name, url = _name_and_url(address)
            consumer = consumer_of(url) if name is None else check_key(name)
            if consumer in found:
                raise ConfigError(
                    f"two targets of --deliver have the name {printable(consumer, 200)}, so each event would go to one "
                    "of them only; leave one out, or name it: --deliver NAME=URL"
                )
            target = open_target(url)
            stack.callback(target.close)
            threads = ThreadPoolExecutor(_CONCURRENCY, "taskbridge-deliver")
            stack.callback(threads.shutdown, wait=False, cancel_futures=True)
            found[consumer] = Recipient(consumer, target, threads)
        yield list(found.values())


def consumer_of(url: str) -> str:
    """Return the name of the consumer at an address; the same for the same address, and without its secrets.

    ``stdout``; ``celery:module:app/task.name``; or the host of a server and a part of the SHA-256 of the URL, because
    its path or query may be secret.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return scheme
    digest = sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
    if scheme.lower() == "celery":
        name = f"celery:{rest.partition('?')[0]}"
        return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-{digest}"
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return f"{host[:_LONGEST]}-{digest}"


def _name_and_url(address: str) -> tuple[str | None, str]:
    name, equals, url = address.partition("=")
    return (name, url) if equals and "://" not in name else (None, address)
