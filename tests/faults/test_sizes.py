"""Responses are limited while they are read: what is too large is refused, and memory does not grow with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from .conftest import Place
from .polling import DRIVERS, QUICK, Driver
from .rows import gzip_bomb, head
from .server import FIN, READ, Repeat, Script, answer
from .vendors import VENDORS

MEBIBYTE: Final = 1 << 20
VENDOR: Final = VENDORS["scan-documents"]
ENDLESS: Final = 100_000
CHUNKED: Final = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")


def floods() -> Mapping[str, Script]:
    """Answers that never fit."""
    gzipped = gzip_bomb(200 * MEBIBYTE)
    return {
        "gzip bomb of 200 MiB": (READ, answer(200, gzipped, "Content-Encoding: gzip"), FIN),
        "the same in chunks": (
            READ,
            head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Content-Encoding: gzip"),
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(gzipped), gzipped),
            FIN,
        ),
        "gzip in gzip": (READ, answer(200, gzipped, "Content-Encoding: gzip, gzip"), FIN),
        "endless body": (READ, head("HTTP/1.1 200 OK"), Repeat(bytes(65_536), ENDLESS), FIN),
        "endless chunks": (READ, CHUNKED, Repeat(b"10000\r\n" + bytes(65_536) + b"\r\n", ENDLESS), FIN),
        "endless tiny chunks": (READ, CHUNKED, Repeat(b"2\r\n  \r\n" * 8192, ENDLESS), FIN),
        "one endless chunk": (READ, CHUNKED, b"ffffffffff\r\n", Repeat(bytes(65_536), ENDLESS), FIN),
        "2 GB announced": (READ, head("HTTP/1.1 200 OK", "Content-Length: 2000000000"), bytes(65_536), FIN),
    }


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not tell the peak of memory")
@pytest.mark.parametrize("driver", DRIVERS)
def test_memory_does_not_grow_with_the_response(
    driver: Driver, places: dict[str, Place], capsys: pytest.CaptureFixture[str]
) -> None:
    place = places["plain"]
    assert place.server is not None
    settings = {**QUICK, **VENDOR.settings(place.url), "request_timeout": 60.0}
    script = Path(__file__).with_name("memory.py")
    command = [sys.executable, str(script), driver, VENDOR.name, VENDOR.id, json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(flood: Script) -> tuple[str, int]:
            assert process.stdin is not None
            assert process.stdout is not None
            assert place.server is not None
            place.server.play(flood)
            process.stdin.write(f"{place.url}\n")
            process.stdin.flush()
            name, growth = process.stdout.readline().split()
            return name, int(growth)

        large = VENDOR.body(padding="x" * (MEBIBYTE - 4096))
        assert ask((READ, answer(200, VENDOR.completed), FIN))[0] == "Task"  # all that is imported, is
        grown: dict[str, int] = {}
        for what, flood in floods().items():
            name, grown[what] = ask(flood)
            assert name == "ResponseTooLarge", what
        updates = ", ".join(f"{what} {growth / MEBIBYTE:.1f}" for what, growth in grown.items())
        name, whole = ask((READ, answer(200, large), FIN))
        process.stdin.close()
    with capsys.disabled():
        sys.stdout.write(
            f"\n{driver}: peak memory grew (MiB) by: {updates}; an answer of 1 MiB {whole / MEBIBYTE:.1f}\n"
        )
    assert name == "Task"
    assert max(grown.values()) <= MEBIBYTE + 8 * MEBIBYTE
