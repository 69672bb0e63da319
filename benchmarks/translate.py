"""From the bytes of a response to a snapshot, compared with `json.loads` and with other libraries."""

from __future__ import annotations

import functools
import gc
import importlib
import json
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import taskbridge_cloudconvert
import taskbridge_expertai_extract
from benchmarks.measure import KEY, ROUNDS, in_turn, ratios
from benchmarks.vendor import Vendor, task_id
from taskbridge._config.connections import connection_settings
from taskbridge._config.files import ConnectionConfig
from taskbridge.provider.http import Response

_NOW: Final = datetime.now(UTC)


def run(*, quick: bool) -> dict[str, Any]:
    rounds = ROUNDS if quick else 3 * ROUNDS
    return {"small": small(rounds, 100 if quick else 500), "large": large(rounds if quick else ROUNDS + 2)}


def _provider(name: str, kind: Any, **settings: str) -> Any:
    _, own = connection_settings(ConnectionConfig("c", name, settings, {}), kind)
    return kind(own, "c")


def _timed(call: Callable[[], Any], number: int) -> Callable[[], float]:
    def side() -> float:
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            for _ in range(number):
                call()
            best = min(best, time.perf_counter() - start)
        return best / number

    return side


def small(rounds: int, number: int) -> dict[str, Any]:
    """Measure a CloudConvert task of 966 bytes."""
    vendor = Vendor(time.time())
    name = task_id("t", 1, 1e6)
    body = vendor.show(name, time.time())
    provider = _provider("cloudconvert", taskbridge_cloudconvert.CloudConvert, api_key=KEY)

    def to_task() -> Any:
        return provider.task(provider.payload(Response(200, {}, body, _NOW)).child("data"), name)

    calls: dict[str, Callable[[], Any]] = {
        "json.loads": lambda: json.loads(body),
        "taskbridge: bytes to Task": to_task,
        **_peers(vendor, name, body),
    }
    for call in calls.values():
        call()
    measured = in_turn({title: _timed(call, number) for title, call in calls.items()}, rounds)
    return {"bytes": len(body), "ratios": ratios(measured, "json.loads")}


def _peers(vendor: Vendor, name: str, body: bytes) -> dict[str, Callable[[], Any]]:
    calls: dict[str, Callable[[], Any]] = {}
    orjson = importlib.import_module("orjson")
    calls["orjson.loads"] = lambda: orjson.loads(body)

    cloudconvert = importlib.import_module("cloudconvert")
    cloudconvert.configure(api_key=KEY)
    calls["cloudconvert 2.1.0: Resource tree"] = lambda: cloudconvert.Task(json.loads(body)["data"])

    calls["azure-core: update_status"] = _azure(vendor.show(name, time.time(), "azure"))
    calls["google-api-core: refresh"] = _google(vendor.show(name, time.time(), "google"))
    return calls


def _azure(body: bytes) -> Callable[[], Any]:
    """Return one `update_status`, with a transport that returns a prepared response."""
    core = importlib.import_module("azure.core")
    polling = importlib.import_module("azure.core.polling.base_polling")
    transports = importlib.import_module("azure.core.pipeline.transport")
    requests = importlib.import_module("requests")

    def respond(request: Any, status: int, content: bytes, headers: dict[str, str]) -> Any:
        inner = requests.Response()
        inner.status_code, inner._content, inner._content_consumed = status, content, True  # noqa: SLF001  # no network
        inner.headers.update({"Content-Type": "application/json", **headers})
        return transports.RequestsTransportResponse(request, inner)

    class PreparedTransport(transports.HttpTransport):  # type: ignore[misc,name-defined]
        def send(self, request: Any, **_: Any) -> Any:
            if request.method == "POST":
                return respond(request, 202, b'{"status": "Running"}', {"Operation-Location": "http://127.0.0.1/o"})
            return respond(request, 200, body, {})

        def open(self) -> None: ...

        def close(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    policies = importlib.import_module("azure.core.pipeline.policies")
    client = core.PipelineClient(
        "http://127.0.0.1",
        transport=PreparedTransport(),
        policies=[policies.RequestIdPolicy(), policies.ContentDecodePolicy()],
    )
    legacy = transports.HttpRequest("POST", "http://127.0.0.1/begin")
    initial = client._pipeline.run(legacy)  # noqa: SLF001  # as generated clients do
    method = polling.LROBasePolling(1)
    method.initialize(client, initial, lambda response: response)
    return method.update_status


def _google(body: bytes) -> Callable[[], Any]:
    """Return one refresh of an `Operation` over HTTP and JSON, without the request itself."""
    operation = importlib.import_module("google.api_core.operation")
    empty = importlib.import_module("google.protobuf.empty_pb2").Empty
    importlib.import_module("google.protobuf.struct_pb2")

    def api_request(method: str, path: str) -> Any:
        del method, path
        return json.loads(body)

    future = operation.from_http_json({"name": "o", "done": False}, api_request, empty)
    return functools.partial(future._refresh)  # noqa: SLF001  # called by its polling


def large(rounds: int) -> dict[str, Any]:
    """Measure an expert.ai result of 5 MB."""
    block = {
        "type": "paragraph",
        "page": 3,
        "bbox": [72.0, 144.25, 523.5, 171.75],
        "content": "The lessee shall keep the premises in good repair and return them as they were let.",
        "fonts": [{"name": "Times-Roman", "size": 10.5}, {"name": "Times-Bold", "size": 10.5}],
        "confidence": 0.9731,
    }
    header = {"fileName": "lease.pdf", "pageCount": 900}
    number = 5_000_000 // len(json.dumps({"id": 10_000, **block}))
    blocks = [{"id": n, **block} for n in range(number)]
    status = {"state": "SUCCESS", "current": 100, "message": "", "result": {"header": header, "layout": blocks}}
    body = json.dumps(status).encode()
    provider = _provider("expertai-extract", taskbridge_expertai_extract.ExpertAiExtract, access_token="t" * 20)
    name = "0a1b2c3d-0000-4000-8000-000000000001"

    def to_task() -> Any:
        return provider.task(provider.payload(Response(200, {}, body, _NOW)), name)

    def plain() -> Any:
        return json.loads(body)

    measured = in_turn({"json.loads": _timed(plain, 1), "taskbridge: bytes to Task": _timed(to_task, 1)}, rounds)
    peak_plain, peak_task = _peak(plain), _peak(to_task)
    return {
        "bytes": len(body),
        "ratios": ratios(measured, "json.loads"),
        # Peak memory beside the body, relative to json.loads.
        "peak": peak_task / peak_plain,
        "peak_bodies_more": (peak_task - peak_plain) / len(body),
    }


def _peak(call: Callable[[], Any]) -> float:
    call()
    gc.collect()
    tracemalloc.start()
    try:
        kept = call()
        peak = tracemalloc.get_traced_memory()[1]
        del kept
    finally:
        tracemalloc.stop()
    return float(peak)
