"""The faults of a status request, one row each, as data: what is injected, and the expected outcome.

Ids are those of the fault catalogue. Every row is tested for each vendor with the synchronous and the asynchronous
client; ``docs/reliability.md`` is generated from the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from taskbridge.errors import (
    ApiError,
    AuthenticationError,
    ConnectFailed,
    DeadlineExceeded,
    IdentityMismatch,
    InvalidRequest,
    MalformedResponse,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ResponseTooLarge,
    ServerError,
    TaskNotFound,
    TlsError,
    TruncatedResponse,
    UnexpectedRedirect,
)
from taskbridge.models import TaskStatus

from .rows import (
    Row,
    always,
    body,
    clipped,
    dripping,
    error_response,
    extra_member,
    field_of,
    gzip_bomb,
    head,
    ignored_or_clipped,
    message_is,
    not_sent,
    responding,
    sent,
    status_is,
    time_is,
    waits,
)
from .server import FIN, HANG, READ, RECEIVE, RST, Pause, Repeat, Script, answer, chunked, gzipped
from .vendors import Vendor

QUICK: Final = {"request_timeout": 0.5}  # long enough to send the request, even on a busy machine
WITH_MESSAGE: Final = ("cloudconvert", "expertai-extract")
WITH_TIME: Final = ("cloudconvert", "scan-documents", "smartdocumentor")
WITH_TEXT_ID: Final = ("cloudconvert", "scan-documents")
PAGE: Final = b"<!DOCTYPE html><html><head><title>Down for maintenance</title></head><body>Back soon</body></html>"
DATE: Final = "Date: Sun, 22 Nov 2026 12:00:00 GMT"

_CONNECTING: Final = (
    Row("F1", "name does not resolve", always(), ConnectFailed, 3, where="unresolvable", check=not_sent),
    Row("F2", "connection refused", always(), ConnectFailed, 3, where="refused", check=not_sent),
    Row(
        "F3", "four addresses that do not respond", always(), DeadlineExceeded, 3, where="dead", settings=QUICK,
        check=not_sent,
    ),
    Row("F4", "certificate is self-signed", always(b"-"), TlsError, 1, ends_wait=True, where="self-signed",
        check=not_sent),
    Row("F4", "certificate has expired", always(b"-"), TlsError, 1, ends_wait=True, where="expired", check=not_sent),
    Row("F4", "certificate is for another host", always(b"-"), TlsError, 1, ends_wait=True, where="wrong-host",
        check=not_sent),
    Row(
        "F5", "hangs inside the TLS handshake", lambda _: [(HANG,)], DeadlineExceeded, 3, where="no-handshake",
        settings=QUICK, check=not_sent,
    ),
    Row(
        "F5", "closes inside the TLS handshake", lambda _: [(FIN,)], ConnectFailed, 3, where="no-handshake",
        check=not_sent,
    ),
    Row(
        "F5", "closes inside the TLS handshake, after the client's first message", lambda _: [(RECEIVE, FIN)],
        ConnectFailed, 3, where="no-handshake", check=not_sent,
    ),
    Row(
        "F5", "resets inside the TLS handshake", lambda _: [(RECEIVE, RST)], ConnectFailed, 3,
        where="no-handshake", check=not_sent,
    ),
    Row(
        "F5", "speaks plain HTTP where TLS is expected", lambda _: [(answer(400), FIN)], TlsError, 1, ends_wait=True,
        where="no-handshake", check=not_sent,
    ),
)  # fmt: skip

_BREAKING: Final = (
    Row("F6", "closes after accepting, before any byte", always(), TruncatedResponse, 3, check=sent),
    Row("F6", "resets after accepting, before any byte", lambda _: [(READ, RST)], TruncatedResponse, 3, check=sent),
    Row("F6", "closes after accepting, before any byte, over TLS", always(), TruncatedResponse, 3, where="tls"),
    Row(
        "F8", "reset inside the body", lambda v: [(READ, answer(200, v.completed)[:-20], Pause(0.003), RST)],
        TruncatedResponse, 3,
    ),
    Row("F9", "body shorter than its Content-Length", lambda v: [(READ, answer(200, v.completed)[:-20], FIN)],
        TruncatedResponse, 3),
    Row("F9", "body shorter than its Content-Length, over TLS",
        lambda v: [(READ, answer(200, v.completed)[:-20], FIN)], TruncatedResponse, 3, where="tls"),
    Row("F10", "chunked body ends early", lambda v: [(READ, chunked(v.completed)[:-30], FIN)], TruncatedResponse, 3),
    Row("F10", "chunked body ends before its last chunk", lambda v: [(READ, chunked(v.completed)[:-5], FIN)],
        TruncatedResponse, 3),
    Row("F11", "no Content-Length, closed inside the JSON",
        lambda v: [(READ, answer(200, v.completed, length=False)[:-20], FIN)], MalformedResponse, 3,
        message="may be cut"),
    Row("F11", "the same over TLS, without close_notify",
        lambda v: [(READ, answer(200, v.completed, length=False)[:-20], FIN)], MalformedResponse, 3,
        message="may be cut", where="tls"),
    Row("F12", "closed inside the headers of a 200", always(b"HTTP/1.1 200 OK\r\nContent-Type: appli"),
        TruncatedResponse, 3),
    Row("F12", "closed inside the headers of a 404, after its length",
        always(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nX-A: b\r\n"), TruncatedResponse, 3),
    Row("F12", "a 404 without length and body, once, then a response",
        lambda v: [(READ, head("HTTP/1.1 404 Not Found"), FIN), (READ, answer(200, v.completed), FIN)], None, 2,
        state="as answered", check=status_is(TaskStatus.COMPLETED)),
    Row("F12", "a 404 without length and body, twice: counts by its status",
        always(head("HTTP/1.1 404 Not Found")), TaskNotFound, 2),
    Row("F13", "truncated status line: HTTP/1.1 200", always(b"HTTP/1.1 200"), TruncatedResponse, 3),
    Row("F13", "truncated status line: HTTP/1.1 404 Not Fo", always(b"HTTP/1.1 404 Not Fo"), TruncatedResponse, 3),
    Row("F13", "truncated status line: HTTP/1.1 2", always(b"HTTP/1.1 2"), TruncatedResponse, 3),
)  # fmt: skip

_DRIPPING: Final = (
    Row("F14", "headers drip", dripping(b"HTTP/1.1 200 OK\r\nX-A: ", b"b"), DeadlineExceeded, 3, settings=QUICK),
    Row("F15", "body drips", dripping(head("HTTP/1.1 200 OK", "Content-Length: 10000"), b" "), DeadlineExceeded, 3,
        settings=QUICK),
    Row("F15", "chunks drip", dripping(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), b"1\r\n \r\n"),
        DeadlineExceeded, 3, settings=QUICK),
    Row("F15", "a body without length drips", dripping(head("HTTP/1.1 200 OK", "Connection: close"), b" "),
        DeadlineExceeded, 3, settings=QUICK),
    Row("F16", "endless 100 Continue", dripping(b"", head("HTTP/1.1 100 Continue")), DeadlineExceeded, 3,
        settings=QUICK),
    Row("F16", "endless 103 Early Hints", dripping(b"", head("HTTP/1.1 103 Early Hints", "Link: <a>")),
        DeadlineExceeded, 3, settings=QUICK),
    Row("F17", "silence after the headers",
        lambda _: [(READ, head("HTTP/1.1 200 OK", "Content-Length: 100"), HANG)], DeadlineExceeded, 3, settings=QUICK),
    Row("F17", "silence before the headers", lambda _: [(READ, HANG)], DeadlineExceeded, 3, settings=QUICK),
)  # fmt: skip


def _framed(*lines: str) -> Callable[[Vendor], Sequence[Script]]:
    return lambda v: [(READ, head("HTTP/1.1 200 OK", *lines) + v.completed, FIN)]


def _chunk_of(size: str, *pauses: Pause) -> Callable[[Vendor], Sequence[Script]]:
    start = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
    return lambda v: [(READ, start, *pauses, f"{size}\r\n".encode() + v.completed + b"\r\n0\r\n\r\n", FIN)]


_NOT_HTTP: Final = (
    Row("F18", "not HTTP", always(b"SSH-2.0-OpenSSH_9.6\r\n"), MalformedResponse, 2),
    Row("F18", "two different Content-Lengths", _framed("Content-Length: 10", "Content-Length: 20"),
        MalformedResponse, 2),
    Row("F18", "Content-Length: abc", _framed("Content-Length: abc"), MalformedResponse, 2),
    Row("F18", "Content-Length: -5", _framed("Content-Length: -5"), MalformedResponse, 2),
    Row("F18", "Content-Length of 5000 digits", _framed("Content-Length: " + "1" * 5000), MalformedResponse, 2),
    Row("F18", "Content-Length together with Transfer-Encoding",
        _framed("Content-Length: 10", "Transfer-Encoding: chunked"), MalformedResponse, 2),
    Row("F18", "header line without a colon", _framed("Content-Length: 10", "no colon here"), MalformedResponse, 2),
    *(Row("F18", f"chunk size {size}", _chunk_of(size), MalformedResponse, 2) for size in ("zz", "-1", "-5")),
    *(
        Row("F18", f"chunk size {size}, sent after the header", _chunk_of(size, Pause(0.005)), MalformedResponse, 2)
        for size in ("zz", "-1", "-5")
    ),
    Row("F18", "chunk size zz, over TLS", _chunk_of("zz"), MalformedResponse, 2, where="tls"),
    Row("F10", "chunked body ends early, over TLS", lambda v: [(READ, chunked(v.completed)[:-30], FIN)],
        TruncatedResponse, 3, where="tls"),
    Row("F19", "101 headers", _framed(*(f"X-{n}: a" for n in range(101))), MalformedResponse, 2),
    Row("F19", "a header line of 70 kB", _framed("X-A: " + "a" * 70_000), MalformedResponse, 2),
)  # fmt: skip


def _pause(status: int, *fields: str) -> Callable[[Vendor], Sequence[Script]]:
    return error_response(status, *(f"Retry-After: {value}" for value in fields), DATE)


def _short(text: str) -> str:
    if len(text) > 40:
        return f"{len(text)} digits"
    return text or "nothing"


_NONSENSE: Final = (
    "-5", "1.5", "inf", "nan", "1e9", "1" * 400, "1" * 5000, "", "soon", "0x10", "2026-11-22T12:00:00Z", "١٢",
    "Fri, 31 Dec 99999 23:59:59 GMT",
)  # fmt: skip

_RATE_LIMITS: Final = (
    Row("F21", "429 with Retry-After: 120", _pause(429, "120"), RateLimited, 1, pauses=True, check=waits(120)),
    Row("F21", "503 with Retry-After: 120", _pause(503, "120"), ServerError, 1, pauses=True, check=waits(120)),
    Row("F21", "503 with Retry-After: ' 120 '", _pause(503, " 120 "), ServerError, 1, pauses=True, check=waits(120)),
    Row("F21", "503 with Retry-After: 0", _pause(503, "0"), ServerError, 2, check=waits(0), attempts=2),
    *(
        Row("F22", f"503 with Retry-After as {form}", _pause(503, text), ServerError, 1, pauses=True, check=waits(120))
        for form, text in {
            "IMF date": "Sun, 22 Nov 2026 12:02:00 GMT",
            "RFC 850 date": "Sunday, 22-Nov-26 12:02:00 GMT",
            "asctime date": "Sun Nov 22 12:02:00 2026",
        }.items()
    ),
    Row("F22", "503 with Retry-After in the past", _pause(503, "Sun, 22 Nov 2026 11:00:00 GMT"), ServerError, 2,
        check=waits(0), attempts=2),
    *(
        Row("F23", f"503 with Retry-After: {_short(text)}", _pause(503, text),
            ServerError, 3, check=waits(None))
        for text in _NONSENSE
    ),
    Row("F23", "503 with Retry-After sent twice", _pause(503, "3", "9"), ServerError, 3, check=waits(None)),
    Row("F23", "503 with Retry-After in the year 9999", _pause(503, "Fri, 31 Dec 9999 23:59:59 GMT"), ServerError, 1,
        pauses=True, check=ignored_or_clipped),
    Row("F24", "429 without Retry-After", error_response(429), RateLimited, 2, attempts=2),
    Row("F26", "200 with RateLimit: r=0",
        responding(lambda v: v.processing, 200, 'RateLimit: "default";r=0;t=30'), None, 1,
        state="as answered", check=status_is(TaskStatus.PROCESSING)),
    Row("F26", "200 with X-RateLimit-Remaining: 0",
        responding(lambda v: v.processing, 200, "X-RateLimit-Remaining: 0"), None, 1,
        state="as answered", check=status_is(TaskStatus.PROCESSING)),
    Row("F27", "200 with a malformed RateLimit",
        responding(lambda v: v.processing, 200, "RateLimit: ;;;r=\xff"), None, 1,
        state="as answered", check=status_is(TaskStatus.PROCESSING)),
)  # fmt: skip

_STATUSES: Final = (
    Row("F30", "401", error_response(401), AuthenticationError, 2, ends_wait=True),
    Row("F30", "403", error_response(403), PermissionDenied, 1, ends_wait=True),
    Row("F31", "401 once, then 200",
        lambda v: [(READ, answer(401, b"{}"), FIN), (READ, answer(200, v.completed), FIN)], None, 2,
        state="as answered", check=status_is(TaskStatus.COMPLETED)),
    Row("F32", "404", error_response(404), TaskNotFound, 1),
    Row("F33", "410", error_response(410), TaskNotFound, 1, ends_wait=True),
    *(Row("F34", str(status), error_response(status), InvalidRequest, 1, ends_wait=True) for status in (400, 405, 422)),
    Row("F35", "204", always(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), MalformedResponse, 3,
        message="empty"),
    Row("F35", "200 with an empty body", body(b""), MalformedResponse, 3, message="empty"),
    Row("F35", "200 with a blank body", body(b" \r\n\t"), MalformedResponse, 3, message="empty"),
    *(
        Row("F36", f"{status} to another host", body(b"", status, "Location: https://elsewhere.invalid/"),
            UnexpectedRedirect, 1, ends_wait=True)
        for status in (301, 302, 303, 307, 308)
    ),
    Row("F37", "304", always(b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"), MalformedResponse, 2),
    *(Row("F37", str(s), responding(lambda v: v.completed, s), MalformedResponse, 2) for s in (206, 207, 999)),
    Row("F37", "000", lambda v: [(READ, answer("000 Nothing", v.completed), FIN)], MalformedResponse, 2),
    Row("F37", "101", always(head("HTTP/1.1 101 Switching Protocols", "Upgrade: x", "Connection: upgrade")),
        MalformedResponse, 2),
    Row("F38", "503 whose problem document says 200", error_response(503, status=200, title="Fine"), ServerError, 3),
    Row("F38", "503 whose problem document has wrong types", body(b'{"status":[],"type":7,"title":{}}', 503),
        ServerError, 3),
    *(Row("F28", str(status), error_response(status), ServerError, 3) for status in (500, 502, 503, 504, 520, 524)),
    Row("F28", "another 5xx (599)", error_response(599), ServerError, 2),
    Row("F92", "402", error_response(402), QuotaExceeded, 1, ends_wait=True,
        vendors=("scan-documents", "smartdocumentor", "expertai-extract")),
    Row("F92", "402 CREDITS_EXCEEDED at CloudConvert", error_response(402, code="CREDITS_EXCEEDED"), QuotaExceeded, 1,
        ends_wait=True, vendors=("cloudconvert",)),
    *(Row("F93", str(status), error_response(status), ApiError, 3) for status in (408, 425)),
    Row("F94", "409", error_response(409), InvalidRequest, 1, ends_wait=True, other={"scan-documents": QuotaExceeded}),
    Row("F94", "413", error_response(413), InvalidRequest, 1, ends_wait=True),
    *(Row("F95", str(status), error_response(status), ServerError, 1, ends_wait=True) for status in (501, 505)),
    *(Row("F96", str(s), error_response(s), ApiError, 1, ends_wait=True) for s in (406, 415, 418, 451, 499)),
)  # fmt: skip

_BODIES: Final = (
    Row("F39", "an HTML page, declared as HTML", lambda _: [(READ, answer(200, PAGE, "Content-Type: text/html"), FIN)],
        MalformedResponse, 3, message="Down for maintenance"),
    Row("F40", "an HTML page declared as JSON", body(PAGE), MalformedResponse, 3, message="Down for maintenance"),
    Row("F40", "valid JSON declared as text",
        lambda v: [(READ, answer(200, v.completed, "Content-Type: text/plain"), FIN)], None, 1,
        state="as answered", check=status_is(TaskStatus.COMPLETED)),
    *(
        Row("F41", f"top level is {text.decode()}", body(text), MalformedResponse, 1, message="shape")
        for text in (b"null", b"[]", b'"completed"', b"42")
    ),
    Row("F42", "trailing data", responding(lambda v: v.completed + b" trailing"), MalformedResponse, 1),
    Row("F42", "two documents", responding(lambda v: v.completed + v.completed), MalformedResponse, 1),
    Row("F42", "JSONP", responding(lambda v: b"callback(" + v.completed + b");"), MalformedResponse, 1),
    Row("F43", "duplicate key", extra_member(b'"a": 1, "a": 2'), MalformedResponse, 1, message="duplicate key"),
    Row("F44", "NaN, Infinity and 1e400", extra_member(b'"a": NaN, "b": -Infinity, "c": 1e400'), None, 1,
        state="as answered", check=status_is(TaskStatus.PROCESSING)),
    Row("F45", "an integer of 5000 digits", extra_member(b'"a": ' + b"9" * 5000), MalformedResponse, 1,
        message="digits"),
    Row("F46", "nested 100 000 deep", extra_member(b'"a": ' + b"[" * 100_000 + b"]" * 100_000), MalformedResponse, 1,
        message="depth"),
    Row("F46", "nested 100 000 deep, and not closed", body(b"[" * 100_000), MalformedResponse, 1, message="depth"),
    Row("F47", "byte order mark", responding(lambda v: b"\xef\xbb\xbf" + v.completed), None, 1, state="as answered",
        check=status_is(TaskStatus.COMPLETED)),
    Row("F48", "invalid UTF-8", extra_member(b'"a": "\xff\xfe"'), MalformedResponse, 2, message="encoding"),
    Row("F49", "UTF-16", responding(lambda v: v.completed.decode().encode("utf-16")), MalformedResponse, 1),
    Row("F50", "lone surrogate in a message", field_of("message", "a\ud800b"), None, 1, state="as answered",
        vendors=WITH_MESSAGE, check=message_is("a?b")),
    Row("F50", "lone surrogate in the id", field_of("key", "task_\ud800"), MalformedResponse, 1,
        vendors=WITH_TEXT_ID),
    Row("F51", "NUL in a message", field_of("message", "a\0b"), None, 1, state="as answered", vendors=WITH_MESSAGE,
        check=message_is("a␀b")),
    Row("F51", "NUL in the id", field_of("key", "task_\0"), MalformedResponse, 1, vendors=WITH_TEXT_ID),
    Row("F52", "a gzip bomb", lambda _: [(READ, answer(200, gzip_bomb(8 << 20), "Content-Encoding: gzip"), FIN)],
        ResponseTooLarge, 1),
    *(
        Row("F52", f"Content-Encoding: {coding}",
            responding(lambda v: gzipped(v.completed), 200, f"Content-Encoding: {coding}"), ResponseTooLarge, 1)
        for coding in ("gzip, gzip", "br", "zstd", "deflate")
    ),
    Row("F53", "valid gzip that was not requested",
        lambda v: [(READ, answer(200, gzipped(v.completed), "Content-Encoding: gzip"), FIN)], None, 1,
        state="as answered", check=status_is(TaskStatus.COMPLETED)),
    Row("F53", "invalid gzip", lambda v: [(READ, answer(200, v.completed, "Content-Encoding: gzip"), FIN)],
        TruncatedResponse, 3),
    Row("F53", "truncated gzip with a matching Content-Length",
        lambda v: [(READ, answer(200, gzipped(v.completed)[:-9], "Content-Encoding: gzip"), FIN)],
        TruncatedResponse, 3),
    Row("F54", "2 GB announced",
        lambda _: [(READ, head("HTTP/1.1 200 OK", "Content-Length: 2000000000"), Repeat(bytes(65_536), 64), FIN)],
        ResponseTooLarge, 1),
    Row("F54", "2 GB without a length",
        lambda _: [(READ, head("HTTP/1.1 200 OK", "Connection: close"), Repeat(bytes(65_536), 30_000), FIN)],
        ResponseTooLarge, 1),
    Row("F54", "2 GB in chunks",
        lambda _: [(READ, head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"),
                    Repeat(b"10000\r\n" + bytes(65_536) + b"\r\n", 30_000), FIN)],
        ResponseTooLarge, 1),
    Row("F55", "the id of another task", lambda v: [(READ, answer(200, v.body(**{v.key: OTHER[v.name]})), FIN)],
        IdentityMismatch, 2, vendors=WITH_TIME),
    Row("F56", "a status word that no table has", responding(lambda v: v.body("levitating")), None, 1,
        state="as answered", check=status_is(TaskStatus.PROCESSING, recognized=False)),
    Row("F56", "the status word in another case, with spaces",
        responding(lambda v: v.body(f"  {v.words[1].swapcase()} ")), None, 1, state="as answered",
        check=status_is(TaskStatus.COMPLETED)),
    Row("F56", "no status word", lambda v: [(READ, answer(200, v.body(**{v.word: None})), FIN)],
        MalformedResponse, 1, vendors=("cloudconvert", "scan-documents", "expertai-extract")),
    Row("F56", "a status word of the wrong type", field_of("word", [1]), MalformedResponse, 1),
)  # fmt: skip

OTHER: Final[Mapping[str, Any]] = {
    "cloudconvert": "00000000-0000-0000-0000-000000000000",
    "scan-documents": "task_another",
    "smartdocumentor": 45,
}

_TEXTS: Final = (
    *(
        Row("F58", f"a time that is {text!r}", field_of("time", text), None, 1, state="as answered",
            vendors=WITH_TIME, check=time_is(moment))
        for text, moment in {
            "2026-03-29T02:30:00": datetime(2026, 3, 29, 2, 30, tzinfo=UTC),
            "2026-03-29T02:30:00+02:00": datetime(2026, 3, 29, 0, 30, tzinfo=UTC),
            "2026-12-31T23:59:60Z": None,
            "10000-01-01T00:00:00Z": None,
            "soon": None,
        }.items()
    ),
    Row("F58", "a time that is a number", field_of("time", 1_790_000_000), None, 1, state="as answered",
        vendors=WITH_TIME, check=time_is(None)),
    Row("F59", "a message of 100 kB with controls, escapes and bidi marks",
        field_of("message", "a\r\n\x1b[31m\u202e" * 12_500), None, 1, state="as answered", vendors=WITH_MESSAGE,
        check=clipped),
)  # fmt: skip

ROWS: Final[tuple[Row, ...]] = (
    *_CONNECTING, *_BREAKING, *_DRIPPING, *_NOT_HTTP, *_RATE_LIMITS, *_STATUSES, *_BODIES, *_TEXTS,
)  # fmt: skip
