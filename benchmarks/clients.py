"""One side of a comparison in its own process: waits for operations with one library, and reports figures.

``python -m benchmarks.clients SIDE URL`` reads lines of JSON and answers each with one line:

* ``{"run", "ids", "interval", "latency"}`` waits for all tasks and returns CPU, threads, memory and delays.
* ``{"run", "ids", "interval", "forever": true}`` begins to wait, returns at once, and keeps waiting.
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

from benchmarks.measure import KEY, begin, cpu, delays_of, raise_file_limit
from benchmarks.schedules import DISTRIBUTIONS
from benchmarks.virtual import single_polls
from taskbridge import aio
from taskbridge._polling.intervals import IntervalPolicy, interval_policy
from taskbridge.models import Task, TaskStatus

Detected = dict[str, float]
"""When each end was detected, in Unix seconds."""
Wait = Callable[[Detected], None]
"""Waits for all tasks and records when each end was detected."""


def _pause(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251  # as in naive code


def _in_threads(ids: list[str], wait: Callable[[str], None]) -> Wait:
    def run(detected: Detected) -> None:
        def one(task: str) -> None:
            wait(task)
            detected[task] = time.time()

        threads = [threading.Thread(target=one, args=(task,), daemon=True) for task in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


# Naive code.


def no_session(url: str, ids: list[str], options: dict[str, Any]) -> Wait:
    requests = importlib.import_module("requests")
    return _loop(requests.get, url, ids, options)


def one_session(url: str, ids: list[str], options: dict[str, Any]) -> Wait:
    requests = importlib.import_module("requests")
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=1000))
    return _loop(session.get, url, ids, options)


def _loop(get: Callable[..., Any], url: str, ids: list[str], options: dict[str, Any]) -> Wait:
    def wait(task: str) -> None:
        if options.get("spread"):
            _pause(random() * options["interval"])  # or all threads poll at the same moments
        while True:
            response = get(f"{url}/v2/tasks/{task}", headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
            response.raise_for_status()
            if response.json()["data"]["status"] in ("finished", "error"):
                return
            _pause(options["interval"])

    return _in_threads(ids, wait)


def cloudconvert(url: str, ids: list[str], options: dict[str, Any]) -> Wait:
    """Poll with the vendor's own SDK in a loop."""
    sdk = _sdk(url)

    def wait(task: str) -> None:
        while sdk.Task.find(task)["status"] not in ("finished", "error"):
            _pause(options["interval"])

    return _in_threads(ids, wait)


def cloudconvert_long_poll(url: str, ids: list[str], options: dict[str, Any]) -> Wait:
    """Use the long poll of the vendor's own SDK."""
    del options
    sdk = _sdk(url)
    return _in_threads(ids, sdk.Task.wait)


def _sdk(url: str) -> Any:
    sdk = importlib.import_module("cloudconvert")
    sdk.configure(api_key=KEY, endpoint=url, sync_endpoint=f"{url}/sync")
    return sdk


# Other libraries.


def azure(url: str, ids: list[str], options: dict[str, Any]) -> Wait:
    """Use `LROPoller`, which starts a thread per operation, with the policies of generated clients."""
    core = importlib.import_module("azure.core")
    polling = importlib.import_module("azure.core.polling")
    base = importlib.import_module("azure.core.polling.base_polling")
    rest = importlib.import_module("azure.core.rest")
    client = core.PipelineClient(url, policies=_azure_policies("RetryPolicy"))

    def start(task: str) -> Any:
        request = rest.HttpRequest("POST", f"{url}/azure/{task}")
        return client._pipeline.run(request)  # noqa: SLF001  # as generated clients do

    first = {task: start(task) for task in ids}

    def run(detected: Detected) -> None:
        def finished(task: str) -> Callable[[Any], None]:
            return lambda _: detected.__setitem__(task, time.time())

        pollers = []
        for task, response in first.items():
            method = base.LROBasePolling(options["interval"])
            poller = polling.LROPoller(client, response, lambda response: response, method)
            poller.add_done_callback(finished(task))
            pollers.append(poller)
        for poller in pollers:
            poller.result()
        while len(detected) < len(ids):
            _pause(0.001)  # callbacks run after results

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


def azure_async(url: str, ids: list[str], options: dict[str, Any]) -> Wait:
    """Use `AsyncLROPoller`, with an asyncio task per operation."""
    core = importlib.import_module("azure.core")
    polling = importlib.import_module("azure.core.polling")
    base = importlib.import_module("azure.core.polling.async_base_polling")
    rest = importlib.import_module("azure.core.rest")
    loop = asyncio.new_event_loop()
    client = core.AsyncPipelineClient(url, policies=_azure_policies("AsyncRetryPolicy"))

    async def start(task: str) -> Any:
        return await client._pipeline.run(rest.HttpRequest("POST", f"{url}/azure/{task}"))  # noqa: SLF001

    async def start_all() -> dict[str, Any]:
        return {task: await start(task) for task in ids}

    first = loop.run_until_complete(start_all())

    def run(detected: Detected) -> None:
        async def one(task: str, response: Any) -> None:
            method = base.AsyncLROBasePolling(options["interval"])
            await polling.AsyncLROPoller(client, response, lambda response: response, method).result()
            detected[task] = time.time()

        async def everything() -> None:
            await asyncio.gather(*(one(task, response) for task, response in first.items()))
            await client.close()

        loop.run_until_complete(everything())
        loop.close()

    return run


def google(url: str, ids: list[str], options: dict[str, Any]) -> Wait:
    """Use `Operation.result()` with its own schedule, with a thread per operation and one session."""
    operation = importlib.import_module("google.api_core.operation")
    retry = importlib.import_module("google.api_core.retry")
    empty = importlib.import_module("google.protobuf.empty_pb2").Empty
    importlib.import_module("google.protobuf.struct_pb2")
    requests = importlib.import_module("requests")
    session = requests.Session()

    def api_request(method: str, path: str) -> Any:
        response = session.request(method, f"{url}/google/{path}", timeout=60)
        response.raise_for_status()
        return response.json()

    polling: dict[str, Any] = {}
    if options.get("even"):  # a steady interval instead: each pause is drawn uniformly between 0 and the maximum
        maximum = 2 * options["interval"]
        polling["polling"] = retry.Retry(
            predicate=retry.if_exception_type(importlib.import_module(_POLLING)._OperationNotComplete),  # noqa: SLF001
            initial=maximum,
            maximum=maximum,
            multiplier=1.0,
            timeout=900,
        )

    def wait(task: str) -> None:
        operation.from_http_json({"name": task, "done": False}, api_request, empty, **polling).result()

    return _in_threads(ids, wait)


_POLLING: Final = "google.api_core.future.polling"


def boto3(url: str, ids: list[str], options: dict[str, Any]) -> Wait:
    """Use the waiter of a service with jobs, with a thread per job and one client."""
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
        waiter.wait(jobId=task, WaiterConfig={"Delay": options["interval"], "MaxAttempts": 100_000})

    return _in_threads(ids, wait)


# taskbridge.


def _settings(url: str, options: dict[str, Any]) -> dict[str, Any]:
    poll = {"latency": options["latency"]} if options.get("latency") else {"interval": options["interval"]}
    return {"api_key": KEY, "base_url": f"{url}/v2", "poll": poll}


def _prepare(client: Any, options: dict[str, Any]) -> None:
    """Let a client learn from 400 such tasks."""
    connection = client._connection  # noqa: SLF001  # no public way to teach it
    if not options.get("lists"):
        single_polls(connection)
    if options.get("latency"):
        _teach(interval_policy(connection, connection.durations_of("convert")))


def _tasks(client: Any, ids: list[str], options: dict[str, Any]) -> list[Any]:
    """Return the tasks as `submit` returns them."""
    if not options.get("known"):
        return list(ids)
    now = client._connection.clock.now() - timedelta(seconds=options.get("stale", 0.0))  # noqa: SLF001  # uses its clock
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


def _teach(policy: IntervalPolicy) -> None:
    chance = Random(3)
    for duration in DISTRIBUTIONS["lognormal-1"].drawn(chance, 400):
        age, ended = 0.0, False
        while not ended:
            later = age + policy.pause(age) * chance.uniform(0.9, 1.1)
            ended = later >= duration
            policy.durations.observe(age, later, ended=ended)
            age = later


def taskbridge_sync(url: str, ids: list[str], options: dict[str, Any]) -> Wait:
    client = importlib.import_module("taskbridge").connect("cloudconvert", **_settings(url, options))
    _prepare(client, options)

    def run(detected: Detected) -> None:
        for outcome in client.as_completed(_tasks(client, ids, options), timeout=None):
            detected[outcome.ref.id] = time.time()
        client.close()

    return run


def taskbridge_async(url: str, ids: list[str], options: dict[str, Any]) -> Wait:
    loop = asyncio.new_event_loop()

    async def connect() -> aio.Client:
        return aio.connect("cloudconvert", **_settings(url, options))

    client = loop.run_until_complete(connect())
    _prepare(client, options)

    def run(detected: Detected) -> None:
        async def everything() -> None:
            async for outcome in client.as_completed(_tasks(client, ids, options), timeout=None):
                detected[outcome.ref.id] = time.time()
            await client.close()

        loop.run_until_complete(everything())
        loop.close()

    return run


SIDES: Final[dict[str, Callable[[str, list[str], dict[str, Any]], Wait]]] = {
    "no-session": no_session,
    "session": one_session,
    "cloudconvert": cloudconvert,
    "cloudconvert-long-poll": cloudconvert_long_poll,
    "azure": azure,
    "azure-async": azure_async,
    "google": google,
    "boto3": boto3,
    "taskbridge": taskbridge_sync,
    "taskbridge-async": taskbridge_async,
}


class _Monitor:
    """The maximum of threads and memory of this process."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._stop = threading.Event()
        self.before = self._process.memory_info().rss
        self.rss = self.before
        self.threads = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self.threads = max(self.threads, threading.active_count() - 1)
            self.rss = max(self.rss, self._process.memory_info().rss)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def _wait(side: str, url: str, options: dict[str, Any]) -> dict[str, Any]:
    ids = options["ids"]
    run = SIDES[side](url, ids, options)
    detected: Detected = {}
    monitor = _Monitor()
    epoch = begin(url, options["run"], ids)
    used = cpu()
    run(detected)
    used = cpu() - used
    monitor.close()
    return {
        "cpu": used,
        "threads": monitor.threads,
        "megabytes": (monitor.rss - monitor.before) / 1e6,
        **delays_of(ids, epoch, detected),
    }


def main() -> None:
    raise_file_limit()
    threading.stack_size(512 * 1024)
    side, url = sys.argv[1:3]
    SIDES[side](url, [], {"interval": 1.0})  # imports its modules
    importlib.import_module("taskbridge._transport.requests")
    importlib.import_module("taskbridge._transport.curl")
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        options = json.loads(line)
        if options.get("forever"):
            run = SIDES[side](url, options["ids"], options)
            begin(url, options["run"], options["ids"] if options.get("lists") else [])
            threading.Thread(target=run, args=({},), daemon=True).start()
            print(json.dumps({"started": True}), flush=True)
        else:
            print(json.dumps(_wait(side, url, options)), flush=True)


if __name__ == "__main__":
    main()
