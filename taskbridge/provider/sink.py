"""Where the body of an answer goes when it is a file, and what is known of that file so far; no I/O.

An answer that broke off is gone on with where its host takes ranges and gave the file a strong ETag (RFC 9110, 13.1.5):
the rest is asked for on condition that the file is still the same. In all other cases it begins anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from taskbridge.errors import MalformedResponse, ResponseTooLarge, TaskbridgeError, TruncatedResponse

__all__ = ["Progress", "ResponseSink"]

Progress: TypeAlias = Callable[[int, int | None], object]
"""Told bytes that are there, and bytes in all or None where nobody knows; called in whatever thread does the work."""


_ALWAYS: Final = 99  # as often as the retry policy allows: the next request asks for all of it


_PART: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)  # Content-Range


_STRONG: Final = re.compile(r'"[\x21\x23-\x7e]*"', re.ASCII)  # ETag; a weak one begins with W/


class ResponseSink:
    """A file that takes the body of an answer.

    Args:
        path: The file; overwritten, or gone on with.
        limit: Bytes that it takes at most; None for no limit.
        expected: Bytes that it will have, as far as was told before; None where nobody said.
        pace: Bytes that buy a second more than the request's deadline; None for a deadline that stays.
        on_progress: Told of each block.

    Attributes:
        received: Bytes in the file.
        furthest: Bytes that were in the file at most.
        total: Bytes that it will have, by the answer's head; None where that does not say.
        broken: What `on_progress` raised.
    """

    def __init__(
        self,
        path: Path,
        limit: int | None = None,
        *,
        expected: int | None = None,
        pace: float | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.path = path
        self.limit = limit
        self.expected = expected
        self.received = 0
        self.furthest = 0
        self._brought = 0  # bytes that came in all, those that were thrown away included
        self.total: int | None = None
        self.broken: Exception | None = None
        self._pace = pace
        self._on_progress = on_progress
        self._tag: str | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields that ask for what is missing; none where all of it is wanted."""
        if self._tag is None or not self.received:
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self._tag}

    @property
    def earned(self) -> float:
        """Seconds beyond the first deadline that what came so far is worth."""
        return 0.0 if self._pace is None else self._brought / self._pace

    def forget(self) -> None:
        """Begin anew."""
        self.received, self.total, self._tag = 0, None, None

    def begin(self, status: int, fields: Mapping[str, str], *, packed: bool) -> int:
        """Take the head of an answer; the place in the file at which its body belongs.

        Args:
            status: HTTP status, below 300.
            fields: Header fields, names in lower case.
            packed: Whether the body comes in a content encoding, so that its length is not the file's.

        Raises:
            MalformedResponse: It is another part of the file than was asked for.
        """
        if status == 206:
            self._go_on(fields)
            return self.received
        self.forget()
        if not packed:
            length = fields.get("content-length")
            self.total = None if length is None else int(length)
            tag = fields.get("etag", "")
            if status == 200 and fields.get("accept-ranges", "").strip().lower() == "bytes" and _STRONG.fullmatch(tag):
                self._tag = tag
        return 0

    def _go_on(self, fields: Mapping[str, str]) -> None:
        part = _PART.fullmatch(fields.get("content-range", "").strip())
        same_file = fields.get("etag", self._tag) == self._tag and (
            part is None or part[3] == "*" or self.total is None or int(part[3]) == self.total
        )
        if not self.headers or part is None or int(part[1]) != self.received or not same_file:
            self.forget()
            raise MalformedResponse(
                "the host answers with another part of the file than was asked for", repeats=_ALWAYS, http_status=206
            )

    def took(self, count: int) -> float:
        """Note that so many bytes were written; seconds that they are worth.

        Raises:
            TaskbridgeError: `on_progress` failed; `broken` has its error.
        """
        self.received += count
        self._brought += count
        self.furthest = max(self.furthest, self.received)
        if self._on_progress is not None:
            known = self.expected if self.total is None else self.total
            try:
                self._on_progress(self.received, known)
            except Exception as error:  # noqa: BLE001  # a caller's own code; the error is handed back to him
                self.broken = error
            if self.broken is not None:
                raise TaskbridgeError("on_progress failed")
        return 0.0 if self._pace is None else count / self._pace

    def check_room(self, count: int, status: int | None = None) -> None:
        """Refuse more than the limit.

        Args:
            count: Bytes that are to come.
            status: HTTP status.

        Raises:
            ResponseTooLarge: The file would have more than `limit`.
        """
        if self.limit is not None and self.received + count > self.limit:
            raise ResponseTooLarge(
                f"the file is larger than the {self.limit} bytes that it may have", http_status=status
            )

    def finish(self, *, framed: bool, status: int) -> None:
        """Take the end of a body.

        Args:
            framed: Whether the answer's head tells where its body ends.
            status: HTTP status.

        Raises:
            TruncatedResponse: A part of it is missing.
            MalformedResponse: It has more bytes than the vendor says.
        """
        if not framed and not self.received and not self.expected:
            raise TruncatedResponse("the answer ended inside its headers", http_status=status)
        whole = self.expected if self.total is None else self.total
        if whole is not None and self.received < whole:
            raise TruncatedResponse(f"the file broke off after {self.received} of {whole} bytes")
        if self.expected is not None and self.received != self.expected:
            words = f"the file has {self.received} bytes, where the vendor says {self.expected}"
            if self.received < self.expected:
                raise TruncatedResponse(words)
            raise MalformedResponse(words, http_status=status)
