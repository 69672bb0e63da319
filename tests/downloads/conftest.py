"""Tasks that have made something at the emulated vendors, and both clients under one name."""

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

# Vendor -> what makes a task with files, texts or data at once.
ORDERS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "cloudconvert": ("convert", b"%PDF-1.4\n" + bytes(range(256)) * 40, {"output_format": "png"}),
    "scan-documents": ("convert", PNG, {"target_format": "image/png"}),
    "smartdocumentor": ("extract-text", "https://example.com/a.pdf", {}),
    "expertai-extract": ("extract-text", b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n", {}),
}


class Both:
    """One client's calls, synchronous or asynchronous, under the same names and with the same results."""

    def __init__(self, provider: str, settings: dict[str, Any], *, asynchronous: bool) -> None:
        self._provider = provider
        self._settings = settings
        self._asynchronous = asynchronous

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._asynchronous:
                return asyncio.run(self._ask(name, args, kwargs))
            with tb.connect(self._provider, **self._settings) as client:
                return getattr(client, name)(*args, **kwargs)

        return call

    async def _ask(self, name: str, args: Any, kwargs: Any) -> Any:
        async with aio.connect(self._provider, **self._settings) as client:
            return await getattr(client, name)(*args, **kwargs)

    def made(self, operation: str | None = None, given: Any = None, **options: Any) -> tb.Task:
        """A task that has ended."""
        usual, document, needed = ORDERS[self._provider]
        chosen = options or (needed if operation is None else {})
        task: tb.Task = self.submit(operation or usual, document if given is None else given, options=chosen)
        ended: tb.Task = self.wait(task)
        assert ended.status is tb.TaskStatus.COMPLETED
        return ended


class Told(list[tuple[int, "int | None"]]):
    """What `on_progress` was told."""

    def __call__(self, done: int, total: int | None) -> None:
        self.append((done, total))


@pytest.fixture
def told() -> Told:
    """Takes what `on_progress` is told."""
    return Told()


@pytest.fixture
def png() -> bytes:
    """A small image."""
    return PNG


@pytest.fixture(scope="session")
def quick_vendors() -> Iterator[Emulator]:
    """Every vendor, at work in no time; for tests that count nothing and stop no clock."""
    with Emulator(speed=2000) as emulator:
        yield emulator


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def both(request: pytest.FixtureRequest) -> Callable[..., Both]:
    """Makes the two clients of an emulated vendor, one after the other; of the test's own vendors where it has some."""
    own = "own_vendors" in request.fixturenames
    emulator: Emulator = request.getfixturevalue("own_vendors" if own else "quick_vendors")
    emulator.clock.speed = 2000

    def make(provider: str, **settings: Any) -> Both:
        return Both(provider, {**FAST, **emulator.settings(provider), **settings}, asynchronous=request.param)

    return make
