"""Whether the head of a delivery proves its sender, so that ``listen`` reads no body in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge._engine.webhooks import Received
from taskbridge.cli.listen_server import RejectedError
from taskbridge.errors import WebhookRejected

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from taskbridge._engine.connection import Connection
    from taskbridge.cli.listen_server import Delivery


def is_proved_by_head(connection: Connection, delivery: Delivery) -> bool:
    """Return whether the head of a delivery proves its sender: a secret in the URL does, a signature needs the body.

    Raises:
        RejectedError: No body could prove it.
    """
    headers: dict[str, list[str]] = {}
    for name, value in delivery.headers:
        headers.setdefault(name.lower(), []).append(value)
    try:
        connection.provider.parse_webhook(_Head(connection, headers, b"", delivery.url, connection.clock.now()))
    except _Proved:
        return True
    except WebhookRejected as error:
        refusal = RejectedError(error.answer, error.message)
    except Exception:  # noqa: BLE001  # it needs the body, or has a fault of its own, which the whole delivery will show
        return False
    else:
        return False
    raise refusal


class _Proved(Exception):  # it ends the reading; nothing went wrong
    pass


class _NeedsBody(Exception):  # as above
    pass


class _Head(Received):
    """A delivery whose body has not arrived: it ends where the provider asks for the proof."""

    def by_svix(self) -> NoReturn:
        raise _NeedsBody

    def by_hex_hmac(self, header: str) -> bytes:
        if not self.header(header):
            return super().by_hex_hmac(header)  # rejects it
        raise _NeedsBody

    def by_url(self) -> NoReturn:
        super().by_url()
        raise _Proved

    def by(self, check: Callable[[bytes, str], bool]) -> NoReturn:
        del check
        raise _NeedsBody
