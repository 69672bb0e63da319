"""The file that receives the body of a response, and what is known about it so far; no I/O.

An interrupted download is resumed if the host supports ranges and gave the file a strong ETag (RFC 9110, 13.1.5): the
rest is requested on condition that the file is unchanged. In all other cases the download starts again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from taskbridge.errors import MalformedResponse, ResponseTooLarge, TaskbridgeError, TruncatedResponse

Progress: TypeAlias = Callable[[int, int | None], object]
"""Called with the bytes received so far and the total, or None if that is unknown, in whatever thread downloads."""

_MOST_EXTRA: Final = 3600.0  # seconds by which a file of unknown size may extend its deadline
_ALWAYS: Final = 99  # as often as the retry policy allows: the next request asks for the whole file
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]*"', re.ASCII)  # a weak one begins with W/


class ResponseSink:
    """A file that receives the body of a response; it is overwritten, or resumed."""

    def __init__(
        self,
        path: Path,
        limit: int | None = None,
        *,
        expected: int | None = None,
        bytes_per_second: float | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.path = path
        self.limit = limit  # bytes
        self.expected = expected  # bytes of the whole file, as stated earlier
        self.received = 0  # bytes in the file
        self.most_received = 0  # bytes that were ever in the file
        self.total: int | None = None  # bytes of the whole file by the response's header
        self.progress_error: Exception | None = None  # what `on_progress` raised
        self._all_received = 0  # bytes, those that were discarded included
        self._part_end: int | None = None  # offset behind the part that a response with a Content-Range holds
        self._bytes_per_second = bytes_per_second  # that extend the request's deadline by a second
        self._on_progress = on_progress  # called after each block
        self._etag: str | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields that request the rest; empty if the whole file is needed."""
        if self._etag is None or not self.received:
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self._etag}

    @property
    def extra_seconds(self) -> float:
        """Seconds by which the bytes received so far extend the first deadline; bounded by the size of the file."""
        rate, size = self._bytes_per_second, self._known_size
        if rate is None:
            return 0.0
        if size is None:
            return min(self._all_received / rate, _MOST_EXTRA)
        return min(self._all_received, 2 * max(size, 0)) / rate  # twice, since a download may start again

    @property
    def _known_size(self) -> int | None:
        return self.expected if self.total is None else self.total

    def reset(self) -> None:
        """Discard what was received."""
        self.received, self.total, self._etag = 0, None, None

    def begin(self, status: int, headers: Mapping[str, str], *, compressed: bool) -> int:
        """Read the header of a response and return the offset in the file at which its body belongs.

        The length of a compressed body is not the file's.

        Raises:
            MalformedResponse: It is another part of the file than was requested.
        """
        if status == 206:
            self._check_range(headers)
            return self.received
        self.reset()
        self._part_end = None
        if not compressed:
            length = headers.get("content-length")
            self.total = None if length is None else int(length)
            etag = headers.get("etag", "")
            accepts_ranges = headers.get("accept-ranges", "").strip().lower() == "bytes"
            if status == 200 and accepts_ranges and _STRONG_ETAG.fullmatch(etag):
                self._etag = etag
        return 0

    def _check_range(self, headers: Mapping[str, str]) -> None:
        part = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
        same_file = headers.get("etag", self._etag) == self._etag and (
            part is None or part[3] == "*" or self.total is None or int(part[3]) == self.total
        )
        if not self.headers or part is None or int(part[1]) != self.received or not same_file:
            raise self._wrong_part("the host answers with another part of the file than was asked for")
        self._part_end = int(part[2]) + 1
        if part[3] != "*":
            self.total = int(part[3])

    def _wrong_part(self, message: str) -> MalformedResponse:
        """Return the error for a part that cannot be trusted; the next request asks for the whole file."""
        self.reset()
        return MalformedResponse(message, repeats=_ALWAYS, http_status=206)

    def add(self, count: int) -> float:
        """Record that bytes were written; return the seconds by which they extend the deadline.

        Raises:
            TaskbridgeError: `on_progress` failed; `progress_error` is its error.
        """
        before = self.extra_seconds
        self.received += count
        self._all_received += count
        self.most_received = max(self.most_received, self.received)
        if self._on_progress is not None:
            try:
                self._on_progress(self.received, self.expected if self.total is None else self.total)
            except Exception as error:  # noqa: BLE001  # the caller's own code; the caller gets its error back
                self.progress_error = error
            if self.progress_error is not None:
                raise TaskbridgeError("on_progress failed")
        return self.extra_seconds - before

    def check_size(self, count: int, status: int) -> None:
        """Refuse so many bytes more if the file has fewer.

        Raises:
            MalformedResponse: They exceed the size that the vendor stated, or the part that the header names.
            ResponseTooLarge: They exceed the limit.
        """
        end = self.received + count
        if self._part_end is not None and end > self._part_end:
            raise self._wrong_part("the host sends more than the part of the file that its Content-Range names")
        if self.expected is not None and end > self.expected:
            message = f"the file has more than the {self.expected} bytes that the vendor says"
            raise MalformedResponse(message, http_status=status)
        self.check_limit(count, status)

    def check_limit(self, count: int, status: int) -> None:
        """Raise `ResponseTooLarge` if so many bytes more exceed the limit."""
        if self.limit is not None and self.received + count > self.limit:
            message = f"the file is larger than the {self.limit} bytes that it may have"
            raise ResponseTooLarge(message, http_status=status)

    def finish(self, *, framed: bool, status: int) -> None:
        """Check the file at the end of a body; `framed` says whether the response's header says where that is.

        Raises:
            TruncatedResponse: A part of the file is missing.
        """
        if not framed and not self.received and not self.expected:
            raise TruncatedResponse("the answer ended inside its headers", http_status=status)
        whole = self._known_size
        if whole is not None and self.received < whole:
            raise TruncatedResponse(f"the file broke off after {self.received} of {whole} bytes")
        if self.expected is not None and self.received < self.expected:
            raise TruncatedResponse(f"the file has {self.received} bytes, where the vendor says {self.expected}")
