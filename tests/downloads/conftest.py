"""Finished tasks of the emulated vendors, and both clients behind the same methods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge.testing import Emulator

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000000a0000000a0800000000a859a1410000000f4944415478da63f80f070cb4670200"
    "2d63ae76e03a250000000049454e44ae426082"
)
FAST: dict[str, Any] = {"poll": {"interval": 0.02}, "retry": {"first": 0.01}}

# Vendor -> a submission whose task produces files, text or data.
SUBMISSIONS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "cloudconvert": ("convert", b"%PDF-1.4\n" + bytes(range(256)) * 40, {"output_format": "png"}),
    "scan-documents": ("convert", PNG, {"target_format": "image/png"}),
    "smartdocumentor": ("extract-text", "https://example.com/a.pdf", {}),
    "expertai-extract": ("extract-text", b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n", {}),
}


class Both:
    """The methods of a synchronous or asynchronous client, with the same names and results."""

    def __init__(self, provider: str, settings: dict[str, Any], *, asynchronous: bool) -> None:
        self._provider = provider
        self._settings = settings
        self._asynchronous = asynchronous

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._asynchronous:
                return asyncio.run(self._await(name, args, kwargs))
            with tb.connect(self._provider, **self._settings) as client:
                return getattr(client, name)(*args, **kwargs)

        return call

    async def _await(self, name: str, args: Any, kwargs: Any) -> Any:
        async with aio.connect(self._provider, **self._settings) as client:
            return await getattr(client, name)(*args, **kwargs)

    def finished_task(self, operation: str | None = None, given: Any = None, **options: Any) -> tb.Task:
        """Submit a document and wait for its completed task."""
        usual, document, needed = SUBMISSIONS[self._provider]
        chosen = options or (needed if operation is None else {})
        task: tb.Task = self.submit(operation or usual, document if given is None else given, options=chosen)
        finished: tb.Task = self.wait(task)
        assert finished.status is tb.TaskStatus.COMPLETED
        return finished


class ProgressLog(list[tuple[int, "int | None"]]):
    """Records the calls of `on_progress`."""

    def __call__(self, done: int, total: int | None) -> None:
        self.append((done, total))


@pytest.fixture
def progress() -> ProgressLog:
    """An `on_progress` that records its calls."""
    return ProgressLog()


@pytest.fixture
def png() -> bytes:
    """A small image."""
    return PNG


@pytest.fixture(scope="session")
def quick_vendors() -> Iterator[Emulator]:
    """Every vendor with a fast clock; for tests that neither count requests nor stop the clock."""
    with Emulator(speed=2000) as emulator:
        yield emulator


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def both(request: pytest.FixtureRequest) -> Callable[..., Both]:
    """Create the synchronous, then the asynchronous client of an emulated vendor (the test's own, if it has one)."""
    own = "own_vendors" in request.fixturenames
    emulator: Emulator = request.getfixturevalue("own_vendors" if own else "quick_vendors")
    emulator.clock.speed = 2000

    def make(provider: str, **settings: Any) -> Both:
        return Both(provider, {**FAST, **emulator.settings(provider), **settings}, asynchronous=request.param)

    return make
