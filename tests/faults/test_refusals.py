"""Whose refusal it is: a host that gets no credential says nothing about the account, and nothing about the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge.errors import ApiError, TaskbridgeError
from taskbridge.models import TaskFile

from .conftest import Place
from .polling import DRIVERS, QUICK, TRANSPORTS, Driver
from .server import FaultServer, Seen, answer
from .vendors import VENDORS

VENDOR: Final = VENDORS["cloudconvert"]
PDF: Final = b"%PDF-1.4\n"
OUTAGE: Final = 6  # failures, more than open the circuit


@pytest.fixture
def api(places: dict[str, Place]) -> FaultServer:
    found = places["plain"].server
    assert found is not None
    return found


@pytest.fixture
def storage(places: dict[str, Place]) -> FaultServer:
    found = places["other"].server
    assert found is not None
    return found


def waiting_job(storage: FaultServer) -> bytes:
    form = {"url": f"{storage.url}/up", "parameters": {"key": "a"}}
    task = {"id": "t-1", "name": "import-1", "status": "waiting", "result": {"form": form}}
    return json.dumps({"data": {"id": "j-1", "status": "waiting", "tasks": [task]}}).encode()


def talk(driver: Driver, url: str, use: Callable[[Any, Callable[[Any], Awaitable[Any]]], Awaitable[Any]]) -> Any:
    """Use either client in the same words: `do` calls a method and returns its result or its error."""
    settings: dict[str, Any] = {**QUICK, "transport": TRANSPORTS[driver], **VENDOR.settings(url), "allow_private": True}

    async def run(client: Any) -> Any:
        async def do(call: Callable[[], Any]) -> Any:
            try:
                outcome = call()
                return await outcome if driver == "async" else outcome
            except TaskbridgeError as error:
                return error

        return await use(client, do)

    async def run_async() -> Any:
        async with aio.connect(VENDOR.name, **settings) as client:
            return await run(client)

    if driver == "async":
        return asyncio.run(run_async())
    with tb.connect(VENDOR.name, **settings) as client:
        return asyncio.run(run(client))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_upload_says_nothing_about_the_account(
    status: int, driver: Driver, api: FaultServer, storage: FaultServer, tmp_path: Path
) -> None:
    document = tmp_path / "a.pdf"
    document.write_bytes(PDF)
    play = storage.reply(lambda _: answer(status, b"<Error><Code>AccessDenied</Code></Error>"))
    api.reply(lambda seen: answer(201 if seen.method == "POST" else 200, waiting_job(storage)))

    async def use(client: Any, do: Any) -> Any:
        error = await do(lambda: client.submit("extract-text", document))
        return error, client.stats()["cloudconvert"]

    error, stats = talk(driver, api.url, use)
    assert isinstance(error, ApiError)
    assert not isinstance(error, tb.AuthenticationError | tb.QuotaExceeded)
    assert (error.http_status, error.authorized, stats.is_refused) == (status, False, False)
    assert "the upload was refused" in error.message
    assert [seen.method for seen in play.requests] == ["POST"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_storage_host_that_is_busy_does_not_slow_down_the_api(
    driver: Driver, api: FaultServer, storage: FaultServer, tmp_path: Path
) -> None:
    document = tmp_path / "a.pdf"
    document.write_bytes(PDF)
    storage.reply(lambda _: answer(429))
    api.reply(lambda _: answer(201, waiting_job(storage)))

    async def use(client: Any, do: Any) -> Any:
        error = await do(lambda: client.submit("extract-text", document))
        return error, client.stats()["cloudconvert"]

    error, stats = talk(driver, api.url, use)
    assert (type(error), error.http_status, stats.rate) == (tb.RateLimited, 429, float("inf"))


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_text_of_a_result_comes_from_a_host_of_its_own(
    driver: Driver, api: FaultServer, storage: FaultServer
) -> None:
    storage.reply(lambda _: answer(500))
    files = [{"filename": "a.txt", "url": f"{storage.url}/a.txt"}]
    tasks = [
        {"id": "t-1", "name": "extract-text", "operation": "command", "status": "finished"},
        {"id": "t-2", "operation": "export/url", "status": "finished", "result": {"files": files}},
    ]
    job = {"id": "11111111-1111-4111-8111-111111111111", "status": "finished", "tasks": tasks}
    api.reply(lambda _: answer(200, json.dumps({"data": job}).encode(), close=False))

    async def use(client: Any, do: Any) -> Any:
        task = await do(lambda: client.get(f"job/{job['id']}"))
        errors = [await do(lambda: client.result(task)) for _ in range(OUTAGE)]
        return errors, client.stats()["cloudconvert"]

    errors, stats = talk(driver, api.url, use)
    assert {(type(error), error.http_status) for error in errors} == {(ApiError, 500)}
    assert not stats.is_probing


@pytest.mark.parametrize("driver", DRIVERS)
def test_retries_of_downloads_use_up_no_retries_of_the_api(
    driver: Driver, api: FaultServer, storage: FaultServer, tmp_path: Path
) -> None:
    links = storage.reply(lambda _: answer(503))
    answers = iter([answer(503, close=False), answer(200, VENDOR.completed, close=False)])
    api.reply(lambda _: next(answers))
    file = TaskFile(name="a.pdf", url=f"{storage.url}/a.pdf")

    async def use(client: Any, do: Any) -> Any:
        for number in range(OUTAGE):
            await do(lambda number=number: client.download(file, tmp_path / f"{number}.pdf"))
        return await do(lambda: client.get(VENDOR.id))

    task = talk(driver, api.url, use)
    assert isinstance(task, tb.Task), repr(task)
    # Their own budget is spent as well: two retries for each of five, then single requests.
    assert len(links.requests) == 5 * 3 + 1


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_wait_continues_while_an_upload_is_refused(
    driver: Driver, api: FaultServer, storage: FaultServer, tmp_path: Path
) -> None:
    document = tmp_path / "a.pdf"
    document.write_bytes(PDF)
    refused = storage.reply(lambda _: answer(401))

    def respond(seen: Seen) -> bytes:
        if seen.method == "POST":
            return answer(201, waiting_job(storage), close=False)
        return answer(200, VENDOR.completed if refused.requests else VENDOR.processing, close=False)

    api.reply(respond)
    errors: list[Any] = []

    async def use(client: Any, do: Any) -> Any:
        submits: list[Any] = []

        def submit(_: tb.Task) -> None:  # in the middle of the wait
            if driver == "async":
                submits.append(asyncio.ensure_future(do(lambda: client.submit("extract-text", document))))
            else:
                try:
                    client.submit("extract-text", document)
                except TaskbridgeError as error:
                    errors.append(error)

        updates: list[tb.Task] = []

        def on_update(task: tb.Task) -> None:
            if not updates:
                submit(task)
            updates.append(task)

        task = await do(lambda: client.wait(VENDOR.id, timeout=20.0, on_update=on_update))
        errors.extend([await each for each in submits])
        return task

    task = talk(driver, api.url, use)
    assert isinstance(task, tb.Task), repr(task)
    assert task.status == "completed"
    assert [error.http_status for error in errors] == [401]
