"""Faults during downloads: a file is saved completely or not at all, and the key goes to no other host."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import taskbridge as tb
from taskbridge import aio
from taskbridge.errors import (
    ApiError,
    DeadlineExceeded,
    MalformedResponse,
    PermissionDenied,
    ResponseTooLarge,
    ServerError,
    TaskNotFound,
    TruncatedResponse,
    UnsupportedFeature,
)
from taskbridge.models import TaskFile
from taskbridge.provider.sink import ResponseSink

from .conftest import Place
from .downloading import ProgressLog, download
from .polling import DRIVERS, QUICK, Driver
from .server import FIN, HANG, READ, RST, FaultServer, Repeat, Script, Seen, answer, gzipped
from .vendors import CANARY, VENDORS

DATA: Final = bytes(n * 7 % 256 for n in range(300_000))
TAG: Final = 'ETag: "one"'
RANGES: Final = "Accept-Ranges: bytes"
HOPS: Final = (301, 302, 303, 307, 308)
HERE: Final = {"allow_private": True, "allow_http": True}  # to reach another host of this machine

# Links that are never requested: F60.
BAD_LINKS: Final = (
    "https://169.254.169.254/latest/meta-data",
    "https://127.1/",
    "https://0x7f000001/",
    "https://2130706433/",
    "https://0177.0.0.1/",
    "https://[::ffff:127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://good.example@evil.example/",
    "https://good.example\\@evil.example/",
    "https://localhost/",
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "https://[::1",
)


@pytest.fixture
def server(places: dict[str, Place]) -> FaultServer:
    found = places["plain"].server
    assert found is not None
    return found


@pytest.fixture
def foreign_server(places: dict[str, Place]) -> FaultServer:
    """Another host."""
    found = places["other"].server
    assert found is not None
    return found


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Driver:
    found: Driver = request.param
    return found


def link(server: FaultServer, path: str = "/a.pdf", **fields: Any) -> TaskFile:
    said: dict[str, Any] = {"name": "a.pdf", "url": f"{server.url}{path}", **fields}
    return TaskFile(**said)


# A process of its own, whose files stay small; with -B, because others would read compiled files that are cut.
LIMITED: Final = """
import json, resource, sys
from pathlib import Path
root, limit, driver, url, folder, size = sys.argv[1:]
sys.path.insert(0, root)
from taskbridge import TaskFile
from faults.downloading import ProgressLog, download
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
what, updates = TaskFile(name="a.pdf", url=f"{url}/a.pdf", size=json.loads(size)), ProgressLog()
result = download(driver, "cloudconvert", url, what, Path(folder), overwrite=True, on_progress=updates)
assert updates == [] or what.size is None, updates
print(json.dumps([[each.__name__ for each in type(result).__mro__], str(result)]))
"""


def limited(limit: int, driver: Driver, url: str, folder: Path, size: int | None = None) -> tuple[list[str], str]:
    """Download with a limit to the bytes of a file; return the names of the result's classes, and its text."""
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-B", "-c", LIMITED, root, str(limit), driver, url, str(folder), json.dumps(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60.0, check=True)
    kinds, text = json.loads(done.stdout)
    return kinds, text


def keyed() -> TaskFile:
    return TaskFile(id="file_1", name="a.pdf")


def is_empty(folder: Path) -> bool:
    return list(folder.iterdir()) == []


# The key goes to no other host.


@pytest.mark.parametrize("code", HOPS)
def test_the_key_is_sent_to_no_other_host(
    code: int, driver: Driver, server: FaultServer, foreign_server: FaultServer, tmp_path: Path
) -> None:
    here = server.reply(lambda _: answer(code, b"moved", f"Location: {foreign_server.url}/stored"))
    busy = iter([503])  # retried after the hop
    there = foreign_server.reply(lambda _: answer(next(busy, 200), DATA, TAG, "Set-Cookie: a=b"))
    result = download(driver, "scan-documents", server.url, keyed(), tmp_path, settings=HERE)
    assert result == tmp_path / "a.pdf"
    assert result.read_bytes() == DATA
    assert [CANARY in seen.headers.get("x-api-key", "") for seen in here.requests] == [True]
    assert len(there.requests) == 2
    for seen in there.requests:
        assert CANARY.encode() not in seen.raw
        assert seen.headers.keys() <= {"host", "user-agent", "accept", "accept-encoding", "connection"}


def test_the_key_is_not_sent_again_after_a_foreign_hop(
    driver: Driver, server: FaultServer, foreign_server: FaultServer, tmp_path: Path
) -> None:
    def play(seen: Seen) -> bytes:
        return answer(302, b"", f"Location: {foreign_server.url}/x") if "download" in seen.target else answer(200, DATA)

    here = server.reply(play)
    foreign_server.reply(lambda _: answer(302, b"", f"Location: {server.url}/back"))
    result = download(driver, "scan-documents", server.url, keyed(), tmp_path, settings=HERE)
    assert result == tmp_path / "a.pdf"
    assert [CANARY.encode() in seen.raw for seen in here.requests] == [True, False]


def test_the_key_is_sent_on_redirects_within_the_host(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    def play(seen: Seen) -> bytes:
        return answer(307, b"", "Location: /v2/file") if "download" in seen.target else answer(200, DATA)

    here = server.reply(play)
    assert download(driver, "scan-documents", server.url, keyed(), tmp_path) == tmp_path / "a.pdf"
    assert [CANARY.encode() in seen.raw for seen in here.requests] == [True, True]


def test_a_link_gets_no_key_even_on_the_vendors_host(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    play = server.reply(lambda _: answer(200, DATA))
    assert download(driver, "cloudconvert", server.url, link(server), tmp_path) == tmp_path / "a.pdf"
    assert [CANARY.encode() in seen.raw for seen in play.requests] == [False]


@pytest.mark.parametrize("url", BAD_LINKS)
def test_a_link_into_a_private_network_is_not_requested(
    url: str, driver: Driver, server: FaultServer, tmp_path: Path
) -> None:
    play = server.reply(lambda _: answer(302, b"", f"Location: {url}"))
    result = download(driver, "cloudconvert", server.url, TaskFile(name="a", url=url), tmp_path)
    assert type(result) is MalformedResponse
    assert "nothing was fetched" in result.message
    assert play.requests == []
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path)
    assert type(result) is MalformedResponse
    assert len(play.requests) == 1
    assert is_empty(tmp_path)


def test_a_host_name_is_connected_to_at_the_checked_address(
    driver: Driver, server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = socket.getaddrinfo

    def lie(host: Any, *args: Any, **kwargs: Any) -> Any:
        return ask("127.0.0.1" if host in ("files.test", b"files.test") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lie)
    play = server.reply(lambda _: answer(200, DATA))
    file = TaskFile(name="a", url=f"http://files.test:{server.port}/a")
    result = download(driver, "cloudconvert", server.url, file, tmp_path, settings={"allow_http": True})
    assert type(result) is MalformedResponse
    assert "public internet" in result.message
    assert (play.connections, is_empty(tmp_path)) == (0, True)


def test_endless_redirects_are_an_error(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    play = server.reply(lambda _: answer(302, b"", "Location: /a.pdf"))
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path)
    assert type(result) is MalformedResponse
    assert (len(play.requests), is_empty(tmp_path)) == (6, True)


# Dead links.


def native(server: FaultServer, link: str, name: str = "a.pdf") -> bytes:
    files = [{"filename": name, "url": f"{server.url}{link}"}]
    said = {"operation": "export/url", "result": {"files": files}}
    return VENDORS["cloudconvert"].body(VENDORS["cloudconvert"].words[1], **said)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_dead_link_is_refreshed_once(status: int, driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    links = iter(["/old", "/new", "/newer"])

    def play(seen: Seen) -> bytes:
        if seen.target == VENDORS["cloudconvert"].target:
            return answer(200, native(server, next(links)))
        return answer(200, DATA) if seen.target == "/new" else answer(status, b"<Error/>")

    played = server.reply(play)
    (path,) = download(driver, "cloudconvert", server.url, VENDORS["cloudconvert"].id, tmp_path)
    assert path.read_bytes() == DATA
    assert [seen.target for seen in played.requests[1:]] == ["/old", VENDORS["cloudconvert"].target, "/new"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, PermissionDenied), (403, PermissionDenied), (404, TaskNotFound), (410, TaskNotFound), (400, ApiError)],
)
def test_a_link_that_stays_dead_says_how_long_links_are_valid(
    status: int, kind: type[ApiError], driver: Driver, server: FaultServer, tmp_path: Path
) -> None:
    vendor = VENDORS["cloudconvert"]

    def play(seen: Seen) -> bytes:
        return answer(200, native(server, "/old")) if seen.target == vendor.target else answer(status, b"<Error/>")

    played = server.reply(play)
    seen: list[Any] = []
    result = download(
        driver, vendor.name, server.url, vendor.id, tmp_path, then=lambda client: seen.append(client.get(vendor.id))
    )
    assert type(result) is kind
    assert (result.http_status, result.retryable, result.raw) == (status, False, None)
    assert ("24 hours" in result.message) == (status != 400)
    assert server.url not in str(result)
    targets = [each.target for each in played.requests[: 3 - (status == 400)]]
    assert targets == [vendor.target, "/old", *([vendor.target] if status != 400 else [])]
    assert is_empty(tmp_path)
    assert len(seen) == (driver == "sync")  # the account is not paused


def test_a_link_that_died_with_its_task_says_so(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    vendor = VENDORS["cloudconvert"]
    answers = iter([answer(200, native(server, "/old")), answer(403), answer(404, b'{"message": "gone"}')])
    server.reply(lambda _: next(answers))
    result = download(driver, vendor.name, server.url, vendor.id, tmp_path)
    assert type(result) is PermissionDenied
    assert "no longer has the task" in result.message


def test_a_failing_file_host_does_not_slow_the_connection(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    play = server.reply(lambda _: answer(503))
    updates: list[Any] = []
    result = download(
        driver, "cloudconvert", server.url, link(server), tmp_path, then=lambda c: updates.append(c.stats())
    )
    assert type(result) is ServerError
    assert (len(play.requests), result.retryable, "after 3 attempts" in result.message) == (3, True, True)
    assert not any(stats.is_probing for each in updates for stats in each.values())


# Cuts.


SHORT: Final = b"all of the file"


@pytest.mark.parametrize("end", [FIN, RST])
@pytest.mark.parametrize("length", [True, False], ids=["length", "size"])
def test_a_truncated_file_is_never_saved(
    length: bool, end: Any, driver: Driver, server: FaultServer, tmp_path: Path
) -> None:
    whole = answer(200, SHORT, length=length)
    head = len(whole) - len(SHORT)
    file = link(server, size=None if length else len(SHORT))
    for offset in [*range(0, head, 9), *range(head - 1, len(whole))]:
        play = server.play((READ, whole[:offset], end))
        result = download(driver, "cloudconvert", server.url, file, tmp_path)
        assert isinstance(result, TruncatedResponse), (offset, result)
        assert result.retryable
        assert len(play.requests) == 3
        assert is_empty(tmp_path), offset


def test_an_interrupted_download_is_resumed(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    first = answer(200, DATA, TAG, RANGES)
    rest = answer(206, DATA[100_000:], TAG, f"Content-Range: bytes 100000-{len(DATA) - 1}/{len(DATA)}")
    play = server.play((READ, first[: len(first) - 200_000], FIN), (READ, rest[:-5], FIN), (READ, rest, FIN))
    updates = ProgressLog()
    result = download(
        driver,
        "cloudconvert",
        server.url,
        link(server),
        tmp_path,
        on_progress=updates,
    )
    # The third response is a part that was not requested: it is discarded.
    assert isinstance(result, MalformedResponse)
    ranges = [seen.headers.get("range") for seen in play.requests[:3]]
    assert ranges == [None, "bytes=100000-", f"bytes={len(DATA) - 5}-"]
    assert [seen.headers.get("if-range") for seen in play.requests[:3]] == [None, '"one"', '"one"']
    assert is_empty(tmp_path)

    play = server.play((READ, first[: len(first) - 200_000], FIN), (READ, rest, FIN))
    updates.clear()
    result = download(
        driver,
        "cloudconvert",
        server.url,
        link(server),
        tmp_path,
        on_progress=updates,
    )
    assert result.read_bytes() == DATA
    assert updates == sorted(updates)
    assert updates[-1] == (len(DATA), len(DATA))


@pytest.mark.parametrize(
    ("fields", "again"),
    [
        ((TAG, RANGES), True),
        (('ETag: W/"one"', RANGES), False),
        ((RANGES,), False),
        ((TAG,), False),
        ((TAG, "Accept-Ranges: none"), False),
    ],
    ids=["both", "a weak tag", "no tag", "ranges untold", "no ranges"],
)
def test_a_download_is_resumed_only_with_ranges_and_a_strong_etag(
    fields: tuple[str, ...], again: bool, driver: Driver, server: FaultServer, tmp_path: Path
) -> None:
    whole = answer(200, DATA, *fields)
    play = server.play((READ, whole[:-9], FIN), (READ, answer(200, DATA, *fields), FIN))
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path)
    assert result.read_bytes() == DATA  # whole again, wherever it began
    assert ["range" in seen.headers for seen in play.requests] == [False, again]


@pytest.mark.parametrize(
    "second",
    [
        answer(206, DATA[5:], TAG, f"Content-Range: bytes 5-{len(DATA) - 1}/{len(DATA)}"),
        answer(206, DATA[-9:], TAG),
        answer(206, DATA[-9:], 'ETag: "two"', f"Content-Range: bytes {len(DATA) - 9}-{len(DATA) - 1}/{len(DATA)}"),
        answer(206, DATA[-9:], TAG, f"Content-Range: bytes {len(DATA) - 9}-{len(DATA) - 1}/{len(DATA) + 1}"),
        answer(416, b"", f"Content-Range: bytes */{len(DATA)}"),
        answer(206, DATA[-9:] + b"x", TAG, f"Content-Range: bytes {len(DATA) - 9}-{len(DATA) - 1}/{len(DATA)}"),
    ],
    ids=["another part", "no part named", "another file", "another length", "no such part", "more than the part"],
)
def test_a_wrong_part_restarts_the_download(second: bytes, driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    play = server.play(
        (READ, answer(200, DATA, TAG, RANGES)[:-9], FIN), (READ, second, FIN), (READ, answer(200, DATA), FIN)
    )
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path)
    assert result.read_bytes() == DATA
    assert ["range" in seen.headers for seen in play.requests] == [False, True, False]


@pytest.mark.parametrize("total", [str(len(DATA)), "*"])
def test_a_part_longer_than_its_range_is_malformed(
    total: str, driver: Driver, server: FaultServer, tmp_path: Path
) -> None:
    part = f"Content-Range: bytes {len(DATA) - 9}-{len(DATA) - 1}/{total}"
    long = answer(206, DATA[-9:] + bytes(500), TAG, part)
    play = server.play((READ, answer(200, DATA, TAG, RANGES)[:-9], FIN), (READ, long, FIN))
    settings = {"retry": {"attempts": 2, "first": 0.0, "at_most": 0.0}}
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path, settings=settings)
    assert type(result) is MalformedResponse, repr(result)
    assert (len(play.requests), is_empty(tmp_path)) == (2, True)


def test_an_unrequested_part_is_never_saved(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    server.play((READ, answer(206, DATA[:9], f"Content-Range: bytes 0-8/{len(DATA)}"), FIN))
    assert type(download(driver, "cloudconvert", server.url, link(server), tmp_path)) is MalformedResponse
    assert is_empty(tmp_path)


def test_a_large_file_may_be_interrupted_often(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    """The attempts are counted again after each megabyte."""
    size, step = 6 << 20, (1 << 20) + 77
    data = os.urandom(size)

    scripts: list[Script] = []
    for start in range(0, size, step):
        fields = (f"Content-Range: bytes {start}-{size - 1}/{size}",) if start else (RANGES,)
        whole = answer(206 if start else 200, data[start:], TAG, *fields)
        scripts.append((READ, whole[: len(whole) - (size - start) + step], FIN))
    played = server.play(*scripts)
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path)
    assert result.read_bytes() == data
    assert len(played.requests) == len(scripts)


def test_a_host_that_cannot_resume_is_not_retried_forever(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    play = server.play((READ, answer(200, bytes(3 << 20))[:-1], FIN))
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path)
    assert isinstance(result, TruncatedResponse)
    assert (len(play.requests), is_empty(tmp_path)) == (3, True)


def test_a_truncated_part_is_resumed(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    parts = [
        answer(206, DATA[start:end], TAG, f"Content-Range: bytes {start}-{end - 1}/{len(DATA)}")
        for start, end in ((200_000, 250_000), (250_000, len(DATA)))
    ]
    server.play(
        (READ, answer(200, DATA, TAG, RANGES)[: 200_000 - len(DATA)], FIN), *((READ, part, FIN) for part in parts)
    )
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path)
    assert result.read_bytes() == DATA


@pytest.mark.parametrize(("size", "kind"), [(len(SHORT) + 1, TruncatedResponse), (len(SHORT) - 1, MalformedResponse)])
def test_a_file_of_the_wrong_length_is_never_saved(
    size: int, kind: type[tb.TaskbridgeError], driver: Driver, server: FaultServer, tmp_path: Path
) -> None:
    server.reply(lambda _: answer(200, SHORT))
    result = download(driver, "cloudconvert", server.url, link(server, size=size), tmp_path)
    assert type(result) is kind
    assert is_empty(tmp_path)


def test_an_empty_file_is_saved(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    server.reply(lambda _: answer(200, b""))
    updates = ProgressLog()
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path, on_progress=updates)
    assert (result.read_bytes(), updates) == (b"", [(0, 0)])


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_a_compressed_body_is_decompressed(cut: bool, driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    body = gzipped(DATA * 3)[: -9 if cut else None]
    server.reply(lambda _: answer(200, body, "Content-Encoding: gzip", TAG, RANGES))
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path)
    if cut:
        assert isinstance(result, TruncatedResponse)
        assert is_empty(tmp_path)
    else:
        assert result.read_bytes() == DATA * 3


# Limits.


@pytest.mark.parametrize("how", ["length", "no length", "size", "packed"])
def test_a_file_over_the_limit_is_refused(how: str, driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    answers = {
        "length": answer(200, DATA),
        "no length": answer(200, DATA, length=False),
        "size": answer(200, DATA),
        "packed": answer(200, gzipped(bytes(1 << 20)), "Content-Encoding: gzip"),
    }
    play = server.play((READ, answers[how], FIN))
    file = link(server, size=len(DATA) if how == "size" else None)
    result = download(driver, "cloudconvert", server.url, file, tmp_path, max_bytes=200_000)
    assert type(result) is ResponseTooLarge
    assert "200000" in result.message
    assert (len(play.requests), is_empty(tmp_path)) == (how != "size", True)


@pytest.mark.parametrize("how", ["length", "no length", "packed"])
def test_a_download_stops_at_the_size_that_the_vendor_stated(
    how: str, driver: Driver, server: FaultServer, tmp_path: Path
) -> None:
    """The host sends until the client leaves; the disk gets no more than was stated."""
    body = gzipped(bytes(64 << 20)) if how == "packed" else bytes(4 << 20)
    fields = ("Content-Encoding: gzip",) if how == "packed" else ()
    server.play((READ, answer(200, body, *fields, length=how == "length"), FIN))
    kinds, message = limited(1000, driver, server.url, tmp_path, size=10)
    assert kinds[0] == "MalformedResponse", message
    assert "more than the 10 bytes" in message
    assert is_empty(tmp_path)


def test_time_is_earned_up_to_the_size_of_the_file(tmp_path: Path) -> None:
    known = ResponseSink(tmp_path / "a", expected=2_000_000, bytes_per_second=20_000.0)
    for _ in range(3):  # a host that lets each attempt begin again
        known.begin(200, {}, compressed=False)
        known.add(1_999_999)
    assert known.extra_seconds == 200.0
    unknown = ResponseSink(tmp_path / "b", bytes_per_second=20_000.0)
    earned = [unknown.add(20_000_000) for _ in range(9)]
    assert (earned, unknown.extra_seconds) == ([*[1000.0] * 3, 600.0, *[0.0] * 5], 3600.0)


def test_a_steady_download_may_take_any_time(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    block = bytes(8_000)
    head = answer(200, b"", f"Content-Length: {24 * len(block)}", length=False)
    server.play((READ, head, Repeat(block, 24, 0.025), FIN))
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path, settings={"request_timeout": 0.5})
    assert result.stat().st_size == 24 * len(block)


def test_a_dripping_download_ends_at_the_deadline(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    head = answer(200, b"", "Content-Length: 10000", length=False)
    play = server.play((READ, head, Repeat(b"x", 10_000, 0.002), FIN))
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path, settings={"request_timeout": 0.05})
    assert isinstance(result, DeadlineExceeded)
    assert play.sent < 10_000
    assert is_empty(tmp_path)


# Here.


def test_a_failed_write_leaves_the_existing_file(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("mine")
    play = server.reply(lambda _: answer(200, bytes(4 << 20)))
    kinds, _ = limited(2 << 20, driver, server.url, tmp_path)
    assert "OSError" in kinds
    assert "TaskbridgeError" not in kinds
    assert len(play.requests) == 1
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.pdf", "mine")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_existing_file(driver: Driver, server: FaultServer, small_disk: Path) -> None:
    (small_disk / "a.pdf").write_text("mine")
    server.reply(lambda _: answer(200, DATA))
    result = download(driver, "cloudconvert", server.url, link(server), small_disk, overwrite=True)
    assert isinstance(result, OSError)
    assert "No space left" in str(result)
    assert [(path.name, path.read_text()) for path in small_disk.iterdir()] == [("a.pdf", "mine")]
    server.reply(lambda _: answer(200, SHORT))
    assert download(driver, "cloudconvert", server.url, link(server), small_disk, overwrite=True).read_bytes() == SHORT


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "..\\..\\x", "C:\\x", "a/../../x"])
def test_nothing_is_saved_outside_the_folder(name: str, driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    server.reply(lambda _: answer(200, SHORT))
    (tmp_path / "folder").mkdir()
    result = download(driver, "cloudconvert", server.url, link(server, name=name), tmp_path / "folder")
    assert result == tmp_path / "folder" / "x"


class Stop(BaseException):
    pass


@pytest.mark.parametrize("kind", [ValueError, Stop])
def test_an_error_in_on_progress_ends_the_download_and_is_raised(
    kind: type[BaseException], driver: Driver, server: FaultServer, tmp_path: Path
) -> None:
    play = server.reply(lambda _: answer(200, DATA))

    def stop(done: int, total: int | None) -> None:
        assert (done > 0, total) == (True, len(DATA))
        raise kind("enough")

    if kind is Stop:
        with pytest.raises(Stop):
            download(driver, "cloudconvert", server.url, link(server), tmp_path, on_progress=stop)
    else:
        result = download(driver, "cloudconvert", server.url, link(server), tmp_path, on_progress=stop)
        assert (type(result), str(result)) == (ValueError, "enough")
    assert (len(play.requests), is_empty(tmp_path)) == (1, True)


def test_a_cancelled_download_leaves_nothing(server: FaultServer, tmp_path: Path) -> None:
    server.play((READ, answer(200, DATA)[:-9], HANG))

    async def run() -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def begin(_done: int, _total: int | None) -> None:
            loop.call_soon_threadsafe(begun.set)

        async with aio.connect("cloudconvert", **QUICK, **VENDORS["cloudconvert"].settings(server.url)) as client:
            task = asyncio.create_task(client.download(link(server), tmp_path, on_progress=begin))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert is_empty(tmp_path)


def test_a_file_that_appears_meanwhile_is_not_overwritten(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    def play(_: Seen) -> bytes:
        (tmp_path / "a.pdf").write_text("theirs")
        return answer(200, DATA)

    server.reply(play)
    result = download(driver, "cloudconvert", server.url, link(server), tmp_path)
    assert isinstance(result, FileExistsError)
    assert (result.strerror, result.filename2) == ("exists; overwrite=True replaces it", None)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.pdf", "theirs")]


# Results that hold nothing.


@pytest.mark.parametrize("result", [None, {}])
def test_a_missing_result_is_reported_by_result_not_by_get(
    result: Any, driver: Driver, server: FaultServer, tmp_path: Path
) -> None:
    vendor = VENDORS["cloudconvert"]
    server.reply(lambda _: answer(200, vendor.body(vendor.words[1], operation="export/url", result=result)))
    seen: list[Any] = []
    result = download(
        driver, vendor.name, server.url, vendor.id, tmp_path, then=lambda c: seen.append(c.get(vendor.id))
    )
    assert type(result) is MalformedResponse
    assert all(task.status == "completed" for task in seen)
    assert is_empty(tmp_path)


def test_a_file_without_a_link_is_an_error(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    play = server.reply(lambda _: answer(200, DATA))
    result = download(driver, "cloudconvert", server.url, TaskFile(name="a.pdf"), tmp_path)
    assert type(result) is UnsupportedFeature
    result = download(driver, "scan-documents", server.url, TaskFile(name="a.pdf"), tmp_path)
    assert type(result) is MalformedResponse
    assert (play.requests, is_empty(tmp_path)) == ([], True)


def test_an_error_of_the_vendors_host_is_the_vendors(driver: Driver, server: FaultServer, tmp_path: Path) -> None:
    said = {"type": "https://scan-documents.com/docs/errors/not-found", "message": "File with id file_1 not found."}
    server.reply(lambda _: answer(404, json.dumps(said).encode()))
    result = download(driver, "scan-documents", server.url, keyed(), tmp_path)
    assert type(result) is TaskNotFound
    assert result.message == "File with id file_1 not found."
    assert is_empty(tmp_path)


# Links are keys.

KEY: Final = "link-key-5b1d0c9e"


@pytest.mark.parametrize("case", ["dead", "cut", "private", "broken off", "moved", "too large", "whole"])
def test_no_error_or_log_shows_a_link(
    case: str, driver: Driver, server: FaultServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    query = f"?X-Amz-Signature={KEY}"
    answers = {
        "dead": answer(403, f"<Error>{KEY}</Error>".encode()),
        "cut": answer(200, DATA)[:-1],
        "private": answer(302, b"", f"Location: https://10.0.0.1/{query}"),
        "broken off": b"",
        "moved": answer(302, b"", f"Location: /b.pdf{query}"),
        "too large": answer(200, bytes(400_000)),
        "whole": answer(200, DATA),
    }
    server.play((READ, answers[case], FIN))
    result = download(driver, "cloudconvert", server.url, link(server, f"/a.pdf{query}"), tmp_path, max_bytes=len(DATA))
    shown = [caplog.text, repr(result), str(result)]
    if isinstance(result, tb.TaskbridgeError):
        shown += [repr(vars(result)), repr(pickle.dumps(result)), "".join(traceback.format_exception(result))]
    assert isinstance(result, Path) == (case == "whole")
    assert KEY not in "\n".join(shown)
