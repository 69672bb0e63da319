"""One side of a comparison in a process of its own: waits for operations in somebody's way, and tells how it went.

``python -m benchmarks.clients SIDE URL`` reads lines of JSON and answers each with one:

* ``{"run", "ids", "interval", "latency"}`` waits for all of them and tells CPU, threads, memory and delays.
* ``{"run", "ids", "interval", "forever": true}`` begins to wait, tells that, and waits on.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from random import Random, random
from typing import Any, Final

import psutil

from benchmarks.measure import KEY, begin, cpu, lateness, more_files
from benchmarks.schedules import DISTRIBUTIONS
from benchmarks.virtual import single_looks
from taskbridge import aio
from taskbridge.models import Task, TaskStatus

Told = dict[str, float]
PreparedSubmission = Callable[[Told], None]
"""Waits for everything, noting when each end was told."""


def _pause(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251  # what people write


def _each_in_a_thread(ids: list[str], wait: Callable[[str], None]) -> PreparedSubmission:
    def run(told: Told) -> None:
        def one(task: str) -> None:
            wait(task)
            told[task] = time.time()

        threads = [threading.Thread(target=one, args=(task,), daemon=True) for task in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


# What people write.


def no_session(url: str, ids: list[str], said: dict[str, Any]) -> PreparedSubmission:
    requests = importlib.import_module("requests")
    return _loop(requests.get, url, ids, said)


def one_session(url: str, ids: list[str], said: dict[str, Any]) -> PreparedSubmission:
    requests = importlib.import_module("requests")
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=1000))
    return _loop(session.get, url, ids, said)


def _loop(get: Callable[..., Any], url: str, ids: list[str], said: dict[str, Any]) -> PreparedSubmission:
    def wait(task: str) -> None:
        if said.get("spread"):
            _pause(random() * said["interval"])  # or all of them march in step
        while True:
            answer = get(f"{url}/v2/tasks/{task}", headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
            answer.raise_for_status()
            if answer.json()["data"]["status"] in ("finished", "error"):
                return
            _pause(said["interval"])

    return _each_in_a_thread(ids, wait)


def cloudconvert(url: str, ids: list[str], said: dict[str, Any]) -> PreparedSubmission:
    """The vendor's own SDK, asked in a loop."""
    sdk = _sdk(url)

    def wait(task: str) -> None:
        while sdk.Task.find(task)["status"] not in ("finished", "error"):
            _pause(said["interval"])

    return _each_in_a_thread(ids, wait)


def cloudconvert_held(url: str, ids: list[str], said: dict[str, Any]) -> PreparedSubmission:
    """The vendor's own SDK, on the line that the vendor holds."""
    del said
    sdk = _sdk(url)
    return _each_in_a_thread(ids, sdk.Task.wait)


def _sdk(url: str) -> Any:
    sdk = importlib.import_module("cloudconvert")
    sdk.configure(api_key=KEY, endpoint=url, sync_endpoint=f"{url}/sync")
    return sdk


# The peers.


def azure(url: str, ids: list[str], said: dict[str, Any]) -> PreparedSubmission:
    """`LROPoller`, which starts a thread for each operation, with the policies of generated clients."""
    core = importlib.import_module("azure.core")
    polling = importlib.import_module("azure.core.polling")
    base = importlib.import_module("azure.core.polling.base_polling")
    rest = importlib.import_module("azure.core.rest")
    client = core.PipelineClient(url, policies=_azure_policies("RetryPolicy"))

    def start(task: str) -> Any:
        request = rest.HttpRequest("POST", f"{url}/azure/{task}")
        return client._pipeline.run(request)  # noqa: SLF001  # as generated clients do

    first = {task: start(task) for task in ids}

    def run(told: Told) -> None:
        def over(task: str) -> Callable[[Any], None]:
            return lambda _: told.__setitem__(task, time.time())

        pollers = []
        for task, response in first.items():
            method = base.LROBasePolling(said["interval"])
            poller = polling.LROPoller(client, response, lambda found: found, method)
            poller.add_done_callback(over(task))
            pollers.append(poller)
        for poller in pollers:
            poller.result()
        while len(told) < len(ids):
            _pause(0.001)  # callbacks come after results

    return run


def _azure_policies(retry: str) -> list[Any]:
    policies = importlib.import_module("azure.core.pipeline.policies")
    return [
        policies.RequestIdPolicy(),
        policies.HeadersPolicy(),
        policies.UserAgentPolicy("benchmark"),
        policies.ContentDecodePolicy(),
        getattr(policies, retry)(),
        policies.NetworkTraceLoggingPolicy(),
        policies.HttpLoggingPolicy(),
    ]


def azure_async(url: str, ids: list[str], said: dict[str, Any]) -> PreparedSubmission:
    """`AsyncLROPoller`, an asyncio task for each operation."""
    core = importlib.import_module("azure.core")
    polling = importlib.import_module("azure.core.polling")
    base = importlib.import_module("azure.core.polling.async_base_polling")
    rest = importlib.import_module("azure.core.rest")
    loop = asyncio.new_event_loop()
    client = core.AsyncPipelineClient(url, policies=_azure_policies("AsyncRetryPolicy"))

    async def start(task: str) -> Any:
        return await client._pipeline.run(rest.HttpRequest("POST", f"{url}/azure/{task}"))  # noqa: SLF001

    async def begun() -> dict[str, Any]:
        return {task: await start(task) for task in ids}

    first = loop.run_until_complete(begun())

    def run(told: Told) -> None:
        async def one(task: str, response: Any) -> None:
            method = base.AsyncLROBasePolling(said["interval"])
            await polling.AsyncLROPoller(client, response, lambda found: found, method).result()
            told[task] = time.time()

        async def everything() -> None:
            await asyncio.gather(*(one(task, response) for task, response in first.items()))
            await client.close()

        loop.run_until_complete(everything())
        loop.close()

    return run


def google(url: str, ids: list[str], said: dict[str, Any]) -> PreparedSubmission:
    """`Operation.result()` with its own schedule, in a thread for each, over one session."""
    operation = importlib.import_module("google.api_core.operation")
    retry = importlib.import_module("google.api_core.retry")
    empty = importlib.import_module("google.protobuf.empty_pb2").Empty
    importlib.import_module("google.protobuf.struct_pb2")
    requests = importlib.import_module("requests")
    session = requests.Session()

    def api_request(method: str, path: str) -> Any:
        answer = session.request(method, f"{url}/google/{path}", timeout=60)
        answer.raise_for_status()
        return answer.json()

    given: dict[str, Any] = {}
    if said.get("even"):  # a steady pace in place of its own: it draws each pause evenly from nought
        pace = 2 * said["interval"]
        given["polling"] = retry.Retry(
            predicate=retry.if_exception_type(importlib.import_module(_POLLING)._OperationNotComplete),  # noqa: SLF001
            initial=pace,
            maximum=pace,
            multiplier=1.0,
            timeout=900,
        )

    def wait(task: str) -> None:
        operation.from_http_json({"name": task, "done": False}, api_request, empty, **given).result()

    return _each_in_a_thread(ids, wait)


_POLLING: Final = "google.api_core.future.polling"


def boto3(url: str, ids: list[str], said: dict[str, Any]) -> PreparedSubmission:
    """The waiter of a service with jobs, in a thread for each, over one client."""
    sdk = importlib.import_module("boto3")
    config = importlib.import_module("botocore.config").Config(retries={"max_attempts": 0})
    client = sdk.client(
        "signer",
        region_name="eu-central-1",
        endpoint_url=url,
        aws_access_key_id="k",
        aws_secret_access_key=KEY,
        config=config,
    )
    waiter = client.get_waiter("successful_signing_job")

    def wait(task: str) -> None:
        waiter.wait(jobId=task, WaiterConfig={"Delay": said["interval"], "MaxAttempts": 100_000})

    return _each_in_a_thread(ids, wait)


# Ours.


def _settings(url: str, said: dict[str, Any]) -> dict[str, Any]:
    poll = {"latency": said["latency"]} if said.get("latency") else {"interval": said["interval"]}
    return {"api_key": KEY, "base_url": f"{url}/v2", "poll": poll}


def _taught(client: Any, said: dict[str, Any]) -> None:
    """Let a client have seen 400 such tasks before."""
    connection = client._connection  # noqa: SLF001  # taught what it would have learnt
    if not said.get("lists"):
        single_looks(connection)
    if said.get("latency"):
        _teach(connection.pace("convert"))


def _prepared(client: Any, ids: list[str], said: dict[str, Any]) -> list[Any]:
    """The tasks as a submit gives them."""
    if not said.get("known"):
        return list(ids)
    now = client._connection.clock.now() - timedelta(seconds=said.get("stale", 0.0))  # noqa: SLF001  # its clock
    return [
        Task(
            provider="cloudconvert",
            connection="cloudconvert",
            id=task,
            native_id=task,
            status=TaskStatus.PROCESSING,
            native_status="processing",
            operation="convert",
            observed_at=now,
            created_at=now,
        )
        for task in ids
    ]


def _teach(pace: Any) -> None:
    chance = Random(3)
    for duration in DISTRIBUTIONS["lognormal-1"].drawn(chance, 400):
        age, ended = 0.0, False
        while not ended:
            later = age + pace.pause(age) * chance.uniform(0.9, 1.1)
            ended = later >= duration
            pace.durations.observe(age, later, ended=ended)
            age = later


def ours(url: str, ids: list[str], said: dict[str, Any]) -> PreparedSubmission:
    client = importlib.import_module("taskbridge").connect("cloudconvert", **_settings(url, said))
    _taught(client, said)

    def run(told: Told) -> None:
        for outcome in client.as_completed(_prepared(client, ids, said), timeout=None):
            told[outcome.ref.id] = time.time()
        client.close()

    return run


def ours_async(url: str, ids: list[str], said: dict[str, Any]) -> PreparedSubmission:
    loop = asyncio.new_event_loop()

    async def connect() -> aio.Client:
        return aio.connect("cloudconvert", **_settings(url, said))

    client = loop.run_until_complete(connect())
    _taught(client, said)

    def run(told: Told) -> None:
        async def everything() -> None:
            async for outcome in client.as_completed(_prepared(client, ids, said), timeout=None):
                told[outcome.ref.id] = time.time()
            await client.close()

        loop.run_until_complete(everything())
        loop.close()

    return run


SIDES: Final[dict[str, Callable[[str, list[str], dict[str, Any]], PreparedSubmission]]] = {
    "no-session": no_session,
    "session": one_session,
    "cloudconvert": cloudconvert,
    "cloudconvert-held": cloudconvert_held,
    "azure": azure,
    "azure-async": azure_async,
    "google": google,
    "boto3": boto3,
    "ours": ours,
    "ours-async": ours_async,
}


class _Watch:
    """The most threads and memory that this process had."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._over = threading.Event()
        self.before = self._process.memory_info().rss
        self.rss = self.before
        self.threads = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            self.threads = max(self.threads, threading.active_count() - 1)
            self.rss = max(self.rss, self._process.memory_info().rss)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def _wait(side: str, url: str, said: dict[str, Any]) -> dict[str, Any]:
    ids = said["ids"]
    run = SIDES[side](url, ids, said)
    told: Told = {}
    watch = _Watch()
    epoch = begin(url, said["run"], ids)
    used = cpu()
    run(told)
    used = cpu() - used
    watch.close()
    return {
        "cpu": used,
        "threads": watch.threads,
        "megabytes": (watch.rss - watch.before) / 1e6,
        **lateness(ids, epoch, told),
    }


def main() -> None:
    more_files()
    threading.stack_size(512 * 1024)
    side, url = sys.argv[1:3]
    SIDES[side](url, [], {"interval": 1.0})  # imports what it needs
    importlib.import_module("taskbridge._transport.requests")
    importlib.import_module("taskbridge._transport.aiohttp")
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        said = json.loads(line)
        if said.get("forever"):
            run = SIDES[side](url, said["ids"], said)
            begin(url, said["run"], said["ids"] if said.get("lists") else [])
            threading.Thread(target=run, args=({},), daemon=True).start()
            print(json.dumps({"begun": True}), flush=True)
        else:
            print(json.dumps(_wait(side, url, said)), flush=True)


if __name__ == "__main__":
    main()
