"""A vendor that deletes a result once it was read, and answers JSON for one document, a ZIP archive for several."""

from __future__ import annotations

import asyncio
import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse

import taskbridge as tb
from taskbridge import aio
from taskbridge.emulator import Emulator, Host, Plan
from taskbridge.emulator.helpers import FormPart, to_json
from taskbridge.models import Task, TaskFile, TaskResult
from taskbridge.provider import Accepts, Credential, Downloads, Flow, Payload, Request, path_id
from taskbridge.provider.http import Response
from taskbridge.testing import ProviderConformance, ScriptedTransport

from .plain import PlainEmulator, PlainTask, refuse
from .test_several_files import SeveralProvider

LARGE = 3 << 20  # bytes of an archive that is more than max_body, and does not stay in memory


class OnceProvider(SeveralProvider):
    """The content type says in which form the result is."""

    capabilities = replace(
        SeveralProvider.capabilities,
        accepts={"read": Accepts(several=True, at_most=3)},
        separate_result=True,
        result_once=True,
        downloads=Downloads(("files", "text")),
    )

    def result(self, task: Task) -> Flow[TaskResult]:
        response = yield self._result_request(str(task.native_id))
        if response.media_type == "application/zip":
            return TaskResult(files=(TaskFile(id=str(task.native_id), name="texts.zip", media_type="application/zip"),))
        return TaskResult(text=self.payload(response).text("text"))

    def download_request(self, file: TaskFile) -> Request:
        return self._result_request(file.id or "")

    def _result_request(self, native: str) -> Request:
        return self.request("GET", f"/tasks/{path_id(native)}/result", response_type="bytes", read_once=True)

    def task(self, payload: Payload, task_id: str | None = None, **more: Any) -> Task:
        return super().task(payload, task_id, result=None, **more)


class OnceEmulator(PlainEmulator):
    """Deletes a result when it was sent."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        several = self.add(Plan(), age=3600)
        several.documents = [FormPart(b"one", "a.pdf"), FormPart(b"two", "b.pdf")]
        self._samples["several"] = several.id

    def calls(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [*super().calls(), ("GET", "/tasks/{id}/result", self.result)]

    async def result(self, request: HttpRequest) -> HttpResponse:
        task = self.find(request)
        if self.state(task) != "done" or task.fetched_at is not None:
            raise refuse(404, "no result")
        task.fetched_at = self.host.clock.time()
        if len(task.documents) < 2:
            return to_json({"text": self.text(task)})
        return HttpResponse(self.archive(task), media_type="application/zip")

    def archive(self, task: PlainTask) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for number, part in enumerate(task.documents):
                archive.writestr(f"{number}.txt", part.data)
        return packed.getvalue()


class TestResultOnce(ProviderConformance):
    provider = OnceProvider
    emulator_class = OnceEmulator


@pytest.fixture
def vendor() -> Iterator[Emulator]:
    with Emulator(vendors={"plain": OnceEmulator}, speed=1000) as emulator:
        yield emulator


def fetches(vendor: Emulator) -> int:
    return vendor.count(method="GET", path_contains="/result")


@pytest.mark.parametrize("transport", ["requests", "curl"])
def test_a_large_result_is_fetched_once_and_downloaded_twice(vendor: Emulator, tmp_path: Path, transport: str) -> None:
    settings: dict[str, Any] = {**vendor.settings(), "transport": transport, "max_body": 8 << 20}
    with tb.connect(OnceProvider, **settings) as client:
        task = client.wait(client.submit("extract-text", [b"\0" * LARGE, b"small"]))
        with pytest.raises(tb.ResponseTooLarge, match="larger than the 10 bytes"):
            client.download(task, tmp_path / "limited", max_bytes=10)
        progress: list[tuple[int, int | None]] = []

        def on_progress(received: int, total: int | None) -> None:
            progress.append((received, total))

        [first] = client.download(task, tmp_path / "first", on_progress=on_progress)
        [file] = client.result(task).files
        second = client.download(file, tmp_path / "second.zip")
        assert first.read_bytes() == second.read_bytes()
        assert zipfile.ZipFile(first).read("1.txt") == b"small"
        assert progress[-1] == (first.stat().st_size, first.stat().st_size)
    assert fetches(vendor) == 1


def test_an_asynchronous_client_and_calls_at_once_fetch_it_once_too(vendor: Emulator) -> None:
    async def read() -> list[TaskResult]:
        async with aio.connect(OnceProvider, **vendor.settings()) as client:
            task = await client.get(vendor.samples()["completed"])
            return await asyncio.gather(*(client.result(task) for _ in range(5)))

    results = asyncio.run(read())
    assert results == [TaskResult(text="words of 1 document(s)")] * 5
    assert fetches(vendor) == 1


def test_another_process_and_a_broken_transfer_get_an_error_that_says_why(vendor: Emulator) -> None:
    samples = vendor.samples()
    settings: dict[str, Any] = {**vendor.settings(), "retry": {"first": 0.01}}
    with tb.connect(OnceProvider, **settings) as client, tb.connect(OnceProvider, **settings) as other:
        tasks = [client.get(samples[label]) for label in ("completed", "several")]
        # Long ago, so that "not found" does not mean "not yet".
        ended = [replace(task, finished_at=task.observed_at - timedelta(days=2)) for task in tasks]
        client.result(ended[0])
        with pytest.raises(tb.TaskNotFound) as caught:
            other.result(ended[0])
        assert "no result; Plain gives each result once, and it may have been read before" in caught.value.message
        assert "Plain gives each result once" in pickle.loads(pickle.dumps(caught.value)).message
        vendor.fail_next("truncated", path_contains="/result")
        before = fetches(vendor)
        with pytest.raises(tb.TransportError, match="so it may be gone"):
            client.result(ended[1])
        assert fetches(vendor) == before + 1  # not repeated
        with pytest.raises(tb.TaskNotFound, match="and the connection broke while it was sent"):
            client.result(ended[1])


class LoginProvider(OnceProvider):
    """Logs in first."""

    def authorize(self) -> Flow[Credential]:
        login = Request("POST", f"{self.settings.base_url}/login", authorized=False)
        return Credential({"X-Key": self.payload((yield login)).text("key")})


def test_a_refused_login_does_not_count_as_a_broken_transfer() -> None:
    def answer(request: Request) -> Response:
        if request.url.endswith("/login"):
            return Response(200 if logins else 401, {}, b'{"key": "a-key-of-tests", "message": "who are you?"}')
        if request.save_to is None:
            return Response(200, {}, b'{"id": "t1", "state": "done"}')
        status = 404 if logins else 401
        return Response(status, {}, b'{"message": "no result"}')

    logins = True
    with tb.connect(LoginProvider, api_key="a-key-of-tests", transport=ScriptedTransport(answer)) as client:
        task = client.get("t1")
        task = replace(task, finished_at=task.observed_at - timedelta(days=2))
        logins = False
        with pytest.raises(tb.AuthenticationError):
            client.result(task)
        logins = True
        with pytest.raises(tb.TaskNotFound, match="it may have been read before"):
            client.result(task)


def test_a_transfer_that_ends_without_an_answer_leaves_no_file() -> None:
    folders: list[Path] = []

    def answer(request: Request) -> Response:
        if request.save_to is None:
            return Response(200, {}, b'{"id": "t1", "state": "done"}')
        request.save_to.path.write_bytes(b"the beginning")
        folders.append(request.save_to.path.parent)
        raise errors.pop(0)

    transport = ScriptedTransport(answer)
    with tb.connect(OnceProvider, api_key="a-key-of-tests", transport=transport) as client:
        task = client.get("t1")
        for kind in (OSError, KeyboardInterrupt):  # a full disk, Ctrl-C
            errors: list[BaseException] = [kind("ends")]
            with pytest.raises(kind, match="ends"):
                client.result(task)
            assert list(folders[-1].iterdir()) == []
    assert len(folders) == 2
