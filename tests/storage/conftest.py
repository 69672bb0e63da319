"""An S3 on this machine (moto), and clients of emulated vendors, synchronous and asynchronous."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

import taskbridge as tb
from taskbridge import aio
from taskbridge.testing import Emulator

FSSPEC: Any = fsspec  # it has no types
BUCKET = "taskbridge-tests"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000000a0000000a0800000000a859a1410000000f4944415478da63f80f070cb4670200"
    "2d63ae76e03a250000000049454e44ae426082"
)
PDF = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n"


class Bucket:
    """The bucket of a test, seen past the library."""

    def __init__(self, name: str) -> None:
        self.url = f"s3://{name}"
        self._files: Any = FSSPEC.filesystem("s3")
        self._name = name

    def put(self, key: str, content: bytes) -> str:
        """Make an object and return its URL."""
        self._files.pipe_file(f"{self._name}/{key}", content)
        return f"{self.url}/{key}"

    def read(self, url: str) -> bytes:
        content: bytes = self._files.cat_file(url)
        return content

    @property
    def keys(self) -> list[str]:
        """The keys of all objects."""
        self._files.invalidate_cache()
        return sorted(each.partition("/")[2] for each in self._files.find(self._name))

    def clear(self) -> None:
        for key in self.keys:
            self._files.rm_file(f"{self._name}/{key}")


@pytest.fixture(scope="session")
def s3() -> Iterator[Bucket]:
    """An S3 with one bucket; its credentials are found in the environment, as anywhere."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    secret = SecretStr("storage-secret-of-tests-1f0c")  # no text may hold it: see canaries
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", SecretStr("AKIASTORAGEOFTESTS00").get_secret_value())
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret.get_secret_value())
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        FSSPEC.filesystem("s3").mkdir(BUCKET)
        yield Bucket(BUCKET)
    server.stop()


@pytest.fixture
def bucket(s3: Bucket) -> Bucket:
    """The bucket, empty."""
    s3.clear()
    return s3


class Caller:
    """The methods of one open client, synchronous or not."""

    def __init__(self, provider: str, settings: dict[str, Any], runner: asyncio.Runner | None) -> None:
        self._runner = runner
        self.client: Any = (tb if runner is None else aio).connect(provider, **settings)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Any = getattr(self.client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            return result if self._runner is None or name == "can" else self._runner.run(result)

        return call


Open = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest, own_vendors: Emulator) -> Iterator[Open]:
    """Open a synchronous, then an asynchronous client of an emulated vendor."""
    own_vendors.clock.speed = 500
    with asyncio.Runner() as runner:
        opened: list[Caller] = []

        def make(provider: str, **settings: Any) -> Any:
            usual: dict[str, Any] = {"poll": {"interval": 0.02}, "retry": {"first": 0.01}}
            given = {**usual, **own_vendors.settings(provider), **settings}
            opened.append(Caller(provider, given, runner if request.param == "async" else None))
            return opened[-1]

        yield make
        for each in opened:
            each.close()
