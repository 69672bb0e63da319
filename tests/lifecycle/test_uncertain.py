"""Interrupted submissions: never sent twice, and the error says what is known (F97 to F106, P6, P26)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge._config.registry import load_provider
from taskbridge._transport.choice import make_async_transport
from taskbridge._transport.requests import RequestsTransport
from taskbridge.provider.http import Request, Response
from taskbridge.testing import Emulator
from taskbridge.testing.conformance.samples import connection_of
from taskbridge.transport import Network

Maker = Callable[..., Any]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
PDF = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n"
URL = "https://example.com/invoice.pdf"
INPUTS: dict[str, Any] = {
    "cloudconvert": PDF,
    "scan-documents": PNG,
    "smartdocumentor": URL,
    "expertai-extract": PDF,
}
RECOVERABLE = ("cloudconvert", "scan-documents", "smartdocumentor")


def response(status: int, body: object = b"", **headers: str) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {"content-length": str(len(data)), **headers}, data)


# Responses to a successful submission.
ACCEPTED: dict[str, Response] = {
    "cloudconvert": response(201, {"data": {"id": "j-1", "status": "waiting", "tag": "x", "tasks": []}}),
    "scan-documents": response(200, {"id": "task_1", "operation": "extract-text", "status": "pending", "result": {}}),
    "smartdocumentor": response(200, {"taskId": 44}),
    "expertai-extract": response(202, {"taskId": "t-1"}),
}


class Vendor:
    """Accepts uploads, and gives the next outcome to each submission; the last one repeats."""

    def __init__(self, name: str, *outcomes: Response | Exception) -> None:
        self.name, self.outcomes, self.submissions = name, outcomes, 0

    def __call__(self, request: Request) -> Response:
        if not request.starts_work:
            return response(200, {"id": "file_1"})
        outcome = self.outcomes[min(self.submissions, len(self.outcomes) - 1)]
        self.submissions += 1
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def interrupted(kind: type[tb.TransportError], *, written: bool) -> tb.TransportError:
    error = kind("interrupted")
    error.written = written
    return error


GATEWAYS = (502, 504, 520, 521, 522, 523, 524)

UNCERTAIN: dict[str, Response | Exception] = {
    "cut after sending": interrupted(tb.TruncatedResponse, written=True),
    "silence after sending": interrupted(tb.DeadlineExceeded, written=True),
    "a stale connection": interrupted(tb.TruncatedResponse, written=True),
    "no HTTP": tb.MalformedResponse("no HTTP", repeats=1),
    "too large": tb.ResponseTooLarge("too large"),
    "nothing": response(200, b""),
    "no content": response(204),
    "blanks": response(200, b" \n"),
    "a web page": response(200, b"<html><title>Back soon</title></html>"),
    "a cut body": response(200, b'{"id": "t'),
    "no id": response(200, {}),
    "a list": response(200, []),
    "another shape": response(201, {"message": "fine"}),
    "not modified": response(304),
    **{f"HTTP {status}": response(status, b"<html></html>") for status in GATEWAYS},
    **{f"HTTP {status}": response(status, b"", location="https://other.test/") for status in (301, 302, 303)},
}


@pytest.mark.parametrize("case", UNCERTAIN)
@pytest.mark.parametrize("vendor", INPUTS)
def test_an_uncertain_submission_is_sent_once_and_raises_submit_uncertain(
    vendor: str, case: str, scripted: Maker
) -> None:
    script = Vendor(vendor, UNCERTAIN[case])
    harness = scripted(vendor, script)
    with pytest.raises(tb.SubmitUncertain) as caught:
        harness.client.submit("extract-text", INPUTS[vendor])
    error = caught.value
    assert script.submissions == 1
    assert not error.retryable
    assert (error.provider, error.connection) == (vendor, vendor)
    assert error.recovery_token["provider"] == vendor
    assert error.recovery_token["time"].startswith("2026-01-01T12:00")
    assert error.recovery_token["reference"].startswith("taskbridge-")
    assert error.recovery_token.get("files") == (["file_1"] if vendor == "scan-documents" else None)
    assert "canary" not in f"{error!r} {error} {error.recovery_token}"
    assert pickle.loads(pickle.dumps(error)).recovery_token == error.recovery_token


def test_the_cause_of_an_unreadable_confirmation_is_kept(scripted: Maker) -> None:
    harness = scripted("smartdocumentor", Vendor("smartdocumentor", response(200, {})))
    with pytest.raises(tb.SubmitUncertain) as caught:
        harness.client.submit("extract-text", URL)
    assert isinstance(caught.value.__cause__, tb.MalformedResponse)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (307, tb.UnexpectedRedirect),
        (308, tb.UnexpectedRedirect),
        (400, tb.InvalidRequest),
        (401, tb.AuthenticationError),
        (402, tb.ApiError),
        (403, tb.PermissionDenied),
        (404, tb.TaskNotFound),
        (413, tb.InvalidRequest),
        (418, tb.ApiError),
        (422, tb.InvalidRequest),
        (500, tb.ServerError),
        (501, tb.ServerError),
        (503, tb.ServerError),
    ],
)
@pytest.mark.parametrize("vendor", INPUTS)
def test_a_refused_submission_is_not_repeated(
    vendor: str, status: int, kind: type[tb.TaskbridgeError], scripted: Maker
) -> None:
    script = Vendor(vendor, response(status, b"", location="https://other.test/"))
    harness = scripted(vendor, script)
    if status in load_provider(vendor).uncertain_statuses:
        kind = tb.SubmitUncertain
    with pytest.raises(tb.TaskbridgeError) as caught:
        harness.client.submit("extract-text", INPUTS[vendor])
    assert isinstance(caught.value, kind)
    # A 401 refuses before any work, so it is retried with a new credential.
    assert script.submissions == (2 if status == 401 else 1)
    if status >= 500:
        assert not caught.value.retryable
    assert caught.value.recovery_token["reference"]


@pytest.mark.parametrize("vendor", INPUTS)
def test_a_submission_that_never_arrived_is_retried(vendor: str, scripted: Maker) -> None:
    script = Vendor(vendor, interrupted(tb.ConnectFailed, written=False), response(429), ACCEPTED[vendor])
    harness = scripted(vendor, script)
    assert harness.client.submit("extract-text", INPUTS[vendor]).status == "pending"
    assert script.submissions == 3


@pytest.mark.parametrize("vendor", INPUTS)
def test_an_unreachable_host_is_connect_failed(vendor: str, scripted: Maker) -> None:
    script = Vendor(vendor, interrupted(tb.ConnectFailed, written=False))
    harness = scripted(vendor, script)
    with pytest.raises(tb.ConnectFailed):
        harness.client.submit("extract-text", INPUTS[vendor])
    assert script.submissions == 3


def test_a_failed_upload_is_its_own_error_and_names_the_uploaded_files(scripted: Maker) -> None:
    answers = [response(200, {"id": "file_1"}), interrupted(tb.TruncatedResponse, written=True)]
    harness = scripted("scan-documents", *answers)
    with pytest.raises(tb.TruncatedResponse) as caught:
        harness.client.submit("merge", [PDF, PDF])
    assert caught.value.recovery_token["files"] == ["file_1"]


def test_a_refused_upload_form_does_not_pause_the_connection(scripted: Maker, tmp_path: Path) -> None:
    path = tmp_path / "invoice.pdf"
    path.write_bytes(PDF)
    form = {"url": "http://127.0.0.1:9/up", "parameters": {"key": "a/${filename}", "expires": 7}}
    waiting = {"id": "t-1", "name": "import-1", "status": "waiting", "result": {"form": form}}
    job = response(201, {"data": {"id": "j-1", "status": "waiting", "tasks": [waiting]}})
    harness = scripted("cloudconvert", job, response(403, b"<Error><Code>AccessDenied</Code></Error>"))
    with pytest.raises(tb.PermissionDenied, match="the upload was refused") as caught:
        harness.client.submit("extract-text", path)
    assert caught.value.recovery_token["task"] == "job/j-1"
    assert harness.client._connection.credentials.refusal is None
    upload = harness.transport.requests[1]
    assert "Authorization" not in upload.headers
    assert upload.body.fields == (("key", "a/${filename}"), ("expires", "7"))


# Over sockets: the server counts the POSTs that arrive.


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silence(connection: socket.socket) -> None:
    """Send nothing until the peer disconnects."""
    connection.settimeout(5.0)
    with contextlib.suppress(OSError):
        connection.recv(1)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("end", ["fin", "rst", "silence", "half a head", "half a body"])
def test_a_submission_over_a_broken_socket_arrives_once(
    end: str, asynchronous: bool, raw_server: Maker, http_answer: Maker
) -> None:
    whole = http_answer(200, b'{"taskId": 44}')
    script: list[Any] = {
        "fin": [],
        "rst": [reset],
        "silence": [silence],
        "half a head": [whole[:30]],
        "half a body": [whole[:-3]],
    }[end]
    server = raw_server(script)
    settings = {"access_token": "canary-key", "base_url": server.url, "request_timeout": 0.4}
    with pytest.raises(tb.SubmitUncertain):
        send(settings, asynchronous=asynchronous)
    assert len(server.received) == 1


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_response_truncated_at_any_offset_causes_no_second_submission(
    asynchronous: bool, raw_server: Maker, http_answer: Maker
) -> None:
    whole = http_answer(200, b'{"taskId": 44}')
    cuts = range(0, len(whole), 7)
    server = raw_server(*([whole[:cut]] for cut in cuts))
    settings = {"access_token": "canary-key", "base_url": server.url}
    for _ in cuts:
        with pytest.raises(tb.SubmitUncertain):
            send(settings, asynchronous=asynchronous)
    assert len(server.received) == len(cuts)


def send(settings: dict[str, Any], *, asynchronous: bool) -> Any:
    if not asynchronous:
        with tb.connect("smartdocumentor", **settings) as client:
            return client.submit("extract-text", URL)

    async def main() -> Any:
        async with aio.connect("smartdocumentor", **settings) as client:
            return await client.submit("extract-text", URL)

    return asyncio.run(main())


# Recovering uncertain submissions.


class Lossy:
    """Loses the response to each submission that the vendor has accepted."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def send(self, request: Request, *, deadline: float, max_body: int) -> Response:
        received: Response = self._real.send(request, deadline=deadline, max_body=max_body)
        if request.starts_work:
            raise interrupted(tb.TruncatedResponse, written=True)
        return received

    def close(self) -> None:
        self._real.close()


class LossyAsync(Lossy):
    async def send(self, request: Request, *, deadline: float, max_body: int) -> Response:  # type: ignore[override]
        received: Response = await self._real.send(request, deadline=deadline, max_body=max_body)
        if request.starts_work:
            raise interrupted(tb.TruncatedResponse, written=True)
        return received

    async def close(self) -> None:  # type: ignore[override]
        await self._real.close()


@pytest.mark.parametrize("external_id", [None, "INV-7"])
@pytest.mark.parametrize("vendor", RECOVERABLE)
def test_an_uncertain_submission_is_recovered(vendor: str, external_id: str | None, own_vendors: Emulator) -> None:
    if external_id and not load_provider(vendor).capabilities.external_id:
        external_id = None
    connection = connection_of(vendor, own_vendors.settings(vendor))
    with tb.Client(connection, transport=Lossy(RequestsTransport(Network()))) as client:
        with pytest.raises(tb.SubmitUncertain) as caught:
            client.submit("extract-text", INPUTS[vendor], external_id=external_id)
        found = client.recover(caught.value)
    assert found is not None
    with tb.connect(vendor, **own_vendors.settings(vendor)) as other:
        assert other.get(found).native_id == found.native_id
        unknown = {"tag": "taskbridge-none", "files": ["file_none"], "external_id": "taskbridge-none"}
        assert (
            other.recover(tb.SubmitUncertain("lost", recovery_token={**caught.value.recovery_token, **unknown})) is None
        )


@pytest.mark.parametrize("vendor", RECOVERABLE)
def test_the_async_client_recovers_an_uncertain_submission(vendor: str, own_vendors: Emulator) -> None:
    async def main() -> Any:
        connection = connection_of(vendor, own_vendors.settings(vendor))
        transport: Any = LossyAsync(make_async_transport(Network(), "tests", 32, "auto"))
        async with aio.Client(connection, transport=transport) as client:
            try:
                await client.submit("extract-text", INPUTS[vendor])
            except tb.SubmitUncertain as error:
                found = await client.recover(error)
                await transport.close()
                return found

    assert asyncio.run(main()) is not None


def test_a_job_that_cloudconvert_answered_with_500_and_runs_is_recovered(own_vendors: Emulator) -> None:
    tasks = {f"t{number}": {"operation": "import/upload"} for number in range(100)}
    with tb.connect("cloudconvert", **own_vendors.settings("cloudconvert")) as client:
        own_vendors.clear_requests()
        with pytest.raises(tb.SubmitUncertain, match="may have taken it") as caught:
            client.submit("native:jobs", options={"tasks": tasks})
        assert own_vendors.count(vendor="cloudconvert", method="POST") == 1
        assert isinstance(caught.value.__cause__, tb.ServerError)
        found = client.recover(caught.value)
    assert found is not None
    assert len(found.subtasks) == 100


def test_expertai_cannot_recover_a_submission(scripted: Maker) -> None:
    harness = scripted("expertai-extract", Vendor("expertai-extract", response(502)))
    with pytest.raises(tb.SubmitUncertain) as caught:
        harness.client.submit("extract-text", PDF)
    with pytest.raises(tb.UnsupportedFeature, match="search for an uncertain submission"):
        harness.client.recover(caught.value)


def test_recover_accepts_only_submissions_of_its_own_connection(scripted: Maker) -> None:
    client = scripted("smartdocumentor").client
    with pytest.raises(tb.ConfigError, match="has no recovery token"):
        client.recover(tb.ServerError("no"))
    with pytest.raises(tb.ConfigError, match="'other'"):
        client.recover(tb.SubmitUncertain("x", recovery_token={"connection": "other", "provider": "smartdocumentor"}))


def test_a_reused_tag_finds_only_the_new_job(own_vendors: Emulator) -> None:
    settings = own_vendors.settings("cloudconvert")
    with tb.connect("cloudconvert", **settings) as client:
        old = client.submit("extract-text", PDF, external_id="INV-7")
        connection = connection_of("cloudconvert", settings)
        with tb.Client(connection, transport=Lossy(RequestsTransport(Network()))) as lossy:
            own_vendors.clock.advance(30)
            with pytest.raises(tb.SubmitUncertain) as caught:
                lossy.submit("extract-text", PDF, external_id="INV-7")
            found = lossy.recover(caught.value)
    assert found is not None
    assert found.id != old.id
    assert found.created_at is not None
    assert old.created_at is not None
    assert found.created_at > old.created_at


# A retry is a submission too.


def test_an_uncertain_retry_raises_submit_uncertain(scripted: Maker) -> None:
    harness = scripted("cloudconvert", Vendor("cloudconvert", interrupted(tb.TruncatedResponse, written=True)))
    with pytest.raises(tb.SubmitUncertain) as caught:
        harness.client.retry("c85f3ca9-164c-4e89-8ae2-c08192a7cb08")
    assert caught.value.recovery_token["retry_of"] == "c85f3ca9-164c-4e89-8ae2-c08192a7cb08"


def test_cancelling_a_submission_propagates_the_cancellation(raw_server: Maker) -> None:
    server = raw_server([silence])

    async def main() -> None:
        settings: dict[str, Any] = {"access_token": "canary-key", "base_url": server.url}
        async with aio.connect("smartdocumentor", **settings) as client:
            task = asyncio.ensure_future(client.submit("extract-text", URL))
            while not server.received:  # noqa: ASYNC110  # a thread sets it
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
