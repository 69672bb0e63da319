"""The receivers for ASGI and WSGI servers, called as a server calls them."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from typing import Any, Final
from urllib.parse import quote

import pytest
from flask import Flask

import taskbridge as tb
from taskbridge import aio
from taskbridge.contrib import asgi, wsgi
from taskbridge.contrib.fastapi import webhook_router
from taskbridge.contrib.flask import webhook_blueprint
from taskbridge.store import StoreUnavailable
from taskbridge.testing import Emulator

SECRETS: Final = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "b7Qd0c9yT2wX4mLr"]
SETTINGS: Final[dict[str, Any]] = {"api_key": "sd-test-key", "webhook_secrets": SECRETS}
LIMIT: Final = 1 << 20

Sign = Callable[..., dict[str, str]]
Event = Callable[..., bytes]
Call = Callable[..., int]


class Unread(BytesIO):
    """A body that must not be read."""

    def read(self, _: int | None = -1) -> bytes:
        raise AssertionError("the body was read")


def call_wsgi(app: wsgi.WebhookApp, body: Any, headers: dict[str, str], **environ: Any) -> int:
    """Send a request; return the status of the answer, which has no body."""
    stream = body if isinstance(body, BytesIO) else BytesIO(body)
    fields = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    given = {"REQUEST_METHOD": "POST", "SCRIPT_NAME": "/app", "PATH_INFO": "/hooks", "wsgi.input": stream, **fields}
    if "CONTENT_LENGTH" not in environ:
        environ["CONTENT_LENGTH"] = str(len(stream.getvalue()))
    statuses: list[str] = []

    fields_sent: list[tuple[str, str]] = []

    def start(status: str, sent: list[tuple[str, str]], _: Any = None) -> Any:
        statuses.append(status)
        fields_sent.extend(sent)

    assert b"".join(app({**given, **environ}, start)) == b""
    assert ("Retry-After", "10") in fields_sent or not statuses[0].startswith("503")
    return int(statuses[0].split()[0])


async def call_asgi(
    app: Any, messages: list[dict[str, Any]], headers: dict[str, str], method: str = "POST", path: str = "/hooks"
) -> int:
    """Send a request; return the status of the answer, which has no body."""
    sent: list[Any] = []
    incoming = iter(messages)

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message)

    fields = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": fields}
    await app(scope, receive, send)
    assert [message.get("body") for message in sent] == [None, b""]
    assert (b"retry-after", b"10") in sent[0]["headers"] or sent[0]["status"] != 503
    return int(sent[0]["status"])


def test_each_end_is_handed_on_once_and_again_after_an_error(svix_headers: Sign, event: Event) -> None:
    body = event(status="completed")
    headers = svix_headers(body, at=datetime.now(UTC))
    results: list[Any] = [RuntimeError("the database is down"), None, None]
    seen: list[tb.Task] = []

    def on_end(task: tb.Task) -> None:
        seen.append(task)
        if error := results.pop(0):
            raise error

    with tb.connect("scan-documents", **SETTINGS) as client:
        app = wsgi.WebhookApp(client, on_end)
        with pytest.raises(RuntimeError, match="database"):
            call_wsgi(app, body, headers)
        assert [call_wsgi(app, body, headers) for _ in range(3)] == [204, 204, 204]
        started = event("task.created", task="task_other", status="pending")
        assert call_wsgi(app, started, svix_headers(started, at=datetime.now(UTC))) == 204
    assert [task.status for task in seen] == [tb.TaskStatus.COMPLETED] * 2

    async def main() -> list[int]:
        results[:] = [RuntimeError("the database is down"), None]

        async def on_end_later(task: tb.Task) -> None:
            await asyncio.sleep(0)
            on_end(task)

        parts: list[dict[str, Any]] = [
            {"type": "http.request", "body": body[:9], "more_body": True},
            {"type": "http.request", "body": body[9:]},
        ]
        async with aio.connect("scan-documents", **SETTINGS) as client:
            app = asgi.WebhookApp(client, on_end_later)
            with pytest.raises(RuntimeError, match="database"):
                await call_asgi(app, parts, headers)
            return [await call_asgi(app, parts, headers) for _ in range(2)]

    assert asyncio.run(main()) == [204, 204]
    assert len(seen) == 4


def test_a_delivery_that_is_repeated_meanwhile_is_to_be_delivered_again(svix_headers: Sign, event: Event) -> None:
    body = event(status="completed")
    headers = svix_headers(body, at=datetime.now(UTC))
    meanwhile: list[int] = []

    def repeat(_: tb.Task) -> None:
        meanwhile.append(call_wsgi(app, body, headers))
        raise LookupError("the database is down")

    with tb.connect("scan-documents", **SETTINGS) as client:
        app = wsgi.WebhookApp(client, repeat)
        for _ in range(2):  # 2xx meanwhile would have been the vendor's last delivery
            with pytest.raises(LookupError):
                call_wsgi(app, body, headers)

    async def repeat_later(_: tb.Task) -> None:
        meanwhile.append(await call_asgi(later[0], parts, headers))
        raise LookupError("the database is down")

    parts: list[dict[str, Any]] = [{"type": "http.request", "body": body}]
    later: list[asgi.WebhookApp] = []

    async def main() -> None:
        async with aio.connect("scan-documents", **SETTINGS) as client:
            later.append(asgi.WebhookApp(client, repeat_later))
            for _ in range(2):
                with pytest.raises(LookupError):
                    await call_asgi(later[0], parts, headers)

    asyncio.run(main())
    assert meanwhile == [503] * 4


def test_a_wsgi_request_is_refused_before_its_body_is_read() -> None:
    with tb.connect("scan-documents", **SETTINGS) as client:
        app = wsgi.WebhookApp(client, print)
        assert call_wsgi(app, Unread(), {}, REQUEST_METHOD="GET") == 405
        for length, status in ((str(LIMIT + 1), 413), ("9" * 5000, 413), ("-1", 400), ("1e3", 400), ("", 411)):
            assert call_wsgi(app, Unread(), {}, CONTENT_LENGTH=length) == status
        endless = BytesIO(bytes(LIMIT + 9))
        chunked: dict[str, Any] = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
        assert call_wsgi(app, endless, {}, **chunked) == 413
        assert endless.tell() == LIMIT + 1
        assert call_wsgi(app, b"{}", {}) == 401
        assert call_wsgi(app, b"{}", {"Content-Encoding": "gzip"}) == 415
        assert call_wsgi(app, b"{}", {}, PATH_INFO=f"/{SECRETS[1]}") == 204  # a callback that names no task


def test_an_asgi_request_is_refused_before_its_body_is_read() -> None:
    async def main() -> None:
        async with aio.connect("scan-documents", **SETTINGS) as client:
            app = asgi.WebhookApp(client, print)
            assert await call_asgi(app, [], {}, "GET") == 405
            for length, status in ((str(LIMIT + 1), 413), ("-1", 400)):
                assert await call_asgi(app, [], {"Content-Length": length}) == status
            block = {"type": "http.request", "body": bytes(LIMIT // 2 + 1), "more_body": True}
            assert await call_asgi(app, [block, block], {}) == 413
            assert await call_asgi(app, [{"type": "http.disconnect"}], {}) == 413
            assert await call_asgi(app, [{"type": "http.request", "body": b"{}"}], {}) == 401
            with pytest.raises(NotImplementedError, match="lifespan"):
                await app({"type": "lifespan"}, call_asgi, call_asgi)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # never called

    asyncio.run(main())


def test_a_secret_with_slashes_proves_the_sender_although_the_server_has_decoded_them() -> None:
    secret = "b7Qd/0c9y+T2wX/4mLr="
    settings: dict[str, Any] = {**SETTINGS, "webhook_secrets": [secret]}
    with tb.connect("scan-documents", **settings) as client:
        app = Flask("receiver")
        app.register_blueprint(webhook_blueprint(client, "/hooks/<path:secret>", print))
        for path, status in ((f"/hooks/{quote(secret, safe='')}", 204), ("/hooks/b7Qd%2F0c9y", 401)):
            assert app.test_client().post(path, data=b"{}").status_code == status
    body: list[dict[str, Any]] = [{"type": "http.request", "body": b"{}"}]

    async def main() -> list[int]:
        async with aio.connect("scan-documents", **settings) as client:
            api = webhook_router(client, "/hooks/{secret:path}", print)
            return [await call_asgi(api, body, {}, path=path) for path in (f"/hooks/{secret}", "/hooks/b7Qd/0c9y")]

    assert asyncio.run(main()) == [204, 401]


def test_an_event_that_cannot_be_confirmed_is_to_be_delivered_again() -> None:
    settings: dict[str, Any] = {
        "access_token": "a-token-of-mine",
        "base_url": "http://127.0.0.1:9/",
        "retry": {"attempts": 1},
    }
    with tb.connect("smartdocumentor", webhook_secrets=SECRETS[1:], **settings) as client:
        app = wsgi.WebhookApp(client, print)
        assert call_wsgi(app, b'{"taskId": 44}', {}, PATH_INFO=f"/{SECRETS[1]}") == 503
        assert call_wsgi(app, b'{"taskId": 44}', {}, QUERY_STRING=f"key={SECRETS[1]}") == 503
        assert call_wsgi(app, b"{}", {}, PATH_INFO="/guessed") == 401


def job_event(job: str) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers by which CloudConvert says that a job has finished."""
    content: dict[str, Any] = {"id": job.removeprefix("job/"), "status": "finished", "tasks": []}
    body = json.dumps({"event": "job.finished", "job": content}).encode()
    return body, {"CloudConvert-Signature": hmac.new(SECRETS[1].encode(), body, sha256).hexdigest()}


@pytest.mark.parametrize("lag", ["the job", "its end"])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_event_that_is_quicker_than_the_api_is_to_be_delivered_again(
    is_async: bool, lag: str, stopped: Emulator
) -> None:
    body, headers = job_event(stopped.samples("cloudconvert")["job" if lag == "the job" else "job-running"])
    settings: dict[str, Any] = {"webhook_secrets": SECRETS[1:], **stopped.settings("cloudconvert")}
    ended: list[tb.Task] = []
    if lag == "the job":
        stopped.fail_next(404, times=2)

    def catch_up() -> None:
        assert not ended
        stopped.clock.advance(60)

    async def main() -> list[int]:
        async with aio.connect("cloudconvert", **settings) as client:
            app = asgi.WebhookApp(client, ended.append)
            statuses = [await call_asgi(app, [{"type": "http.request", "body": body}], headers)]
            catch_up()
            return [*statuses, *[await call_asgi(app, [{"type": "http.request", "body": body}], headers) for _ in "12"]]

    if is_async:
        statuses = asyncio.run(main())
    else:
        with tb.connect("cloudconvert", **settings) as client:
            app = wsgi.WebhookApp(client, ended.append)
            statuses = [call_wsgi(app, body, headers)]
            catch_up()
            statuses += [call_wsgi(app, body, headers) for _ in range(2)]
    assert statuses == [503, 204, 204]
    assert [task.status for task in ended] == [tb.TaskStatus.COMPLETED]


def test_a_reviewed_document_that_the_vendor_does_not_know_does_not_go_back_to_review(stopped: Emulator) -> None:
    settings: dict[str, Any] = {"webhook_secrets": SECRETS[1:], **stopped.settings("smartdocumentor")}
    with tb.connect("smartdocumentor", **settings) as client:
        app = wsgi.WebhookApp(client, print)
        assert call_wsgi(app, b'{"taskId": 1234567}', {}, PATH_INFO=f"/{SECRETS[1]}") == 204


class Fragile(tb.MemoryEventBus):
    """One whose database is gone when an event is to be settled."""

    def settle(self, key: str) -> None:
        raise StoreUnavailable(f"the database is gone, so {key} is not settled")


def test_an_event_that_cannot_be_settled_is_an_error_of_the_receiver(svix_headers: Sign, event: Event) -> None:
    body = event(status="completed")
    headers = svix_headers(body, at=datetime.now(UTC))
    ended: list[tb.Task] = []
    with tb.connect("scan-documents", event_bus=lambda _: Fragile(), **SETTINGS) as client:
        app = wsgi.WebhookApp(client, ended.append)
        with pytest.raises(StoreUnavailable):
            call_wsgi(app, body, headers)
        assert call_wsgi(app, body, headers) == 503
    assert len(ended) == 1


def test_what_could_never_accept_a_delivery_is_an_error_at_the_start() -> None:
    with tb.connect("scan-documents", api_key="sd-test-key") as client:
        with pytest.raises(tb.ConfigError, match="has no webhook_secrets"):
            webhook_blueprint(client, "/hooks", print)
        with pytest.raises(tb.ConfigError, match=r"needs a client of taskbridge\.aio"):
            webhook_router(client, "/hooks", print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # refused
    with (
        tb.connect("expertai-extract", access_token="a-token-of-mine") as client,
        pytest.raises(tb.UnsupportedFeature, match="sends no webhooks"),
    ):
        webhook_blueprint(client, "/hooks", print)

    async def main() -> None:
        async with aio.connect("scan-documents", **SETTINGS) as client:
            with pytest.raises(tb.ConfigError, match="needs a synchronous client"):
                webhook_blueprint(client, "/hooks", print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # refused

    asyncio.run(main())
