"""Results that a vendor gives once, kept so that they can be read again: small ones in memory, others on disk.

The oldest make room for new ones. The files are in a temporary folder of this process, which is removed with the
connection, or at the end of the process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from threading import Lock
from typing import TYPE_CHECKING, Final
from weakref import finalize

from taskbridge._fork import renew_after_fork

if TYPE_CHECKING:
    from datetime import datetime

    from taskbridge.provider.http import Response

_MOST: Final = 256  # results
_MOST_BYTES: Final = 1 << 30  # of all results together, unless one alone is larger
_IN_MEMORY: Final = 1 << 16  # bytes of a result that is kept in memory
_OF_THE_BODY: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """A response to a request that is sent once."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    received_at: datetime
    content: bytes | Path = field(repr=False)
    size: int  # bytes


class KeptResults:
    """The results of one connection, by URL; used by many threads."""

    def __init__(self) -> None:
        self._kept: dict[str, KeptResponse] = {}  # the oldest first
        self._broken: dict[str, None] = {}  # URLs whose transfer broke off, the oldest first
        renew_after_fork(self, KeptResults._begin_process)

    def _begin_process(self) -> None:
        """A forked child reads what its parent keeps, and puts its own files elsewhere."""
        self._lock = Lock()
        self._under_way: set[str] = set()
        self._folder: Path | None = None
        self._count = 0

    def begin(self, url: str) -> bool:
        """Reserve a result for this caller until `end`; False if another caller has it at present."""
        with self._lock:
            if url in self._under_way:
                return False
            self._under_way.add(url)
            return True

    def end(self, url: str) -> None:
        """Let other callers have it."""
        with self._lock:
            self._under_way.discard(url)

    def find(self, url: str) -> KeptResponse | None:
        """Return a result, if it is kept."""
        with self._lock:
            kept = self._kept.get(url)
        return kept if kept is None or isinstance(kept.content, bytes) or kept.content.exists() else None

    def note_broken(self, url: str) -> None:
        """Remember that the transfer of a result broke off, so that it may be gone."""
        with self._lock:
            self._broken[url] = None
            if len(self._broken) > _MOST:
                del self._broken[next(iter(self._broken))]

    def is_broken(self, url: str) -> bool:
        """Whether a transfer of the result broke off."""
        return url in self._broken

    def new_path(self) -> Path:
        """Return a path for a result that does not exist yet."""
        with self._lock:
            if self._folder is None:
                self._folder = Path(mkdtemp(prefix="taskbridge-results-"))
                finalize(self, _remove, self._folder, os.getpid())
            self._count += 1
            return self._folder / str(self._count)

    def keep(self, url: str, response: Response, path: Path) -> KeptResponse:
        """Keep a response whose body is in a file, or in the response if it is a redirect.

        The oldest ones make room for it, but none that a caller has at present.
        """
        headers = {name: value for name, value in response.headers.items() if name not in _OF_THE_BODY}
        content: bytes | Path = path if response.status < 300 else response.body
        size = path.stat().st_size if isinstance(content, Path) else len(content)
        if isinstance(content, Path) and size <= _IN_MEMORY:
            content = path.read_bytes()
            path.unlink()
        kept = KeptResponse(response.status, headers, response.received_at, content, size)
        with self._lock:
            self._broken.pop(url, None)
            self._kept[url] = kept
            total = sum(each.size for each in self._kept.values())
            unused = [each for each in self._kept if each not in self._under_way and each != url]
            while unused and (len(self._kept) > _MOST or total > _MOST_BYTES):
                oldest = self._kept.pop(unused.pop(0))
                total -= oldest.size
                if isinstance(oldest.content, Path) and oldest.content.parent == self._folder:
                    with suppress(OSError):
                        oldest.content.unlink()
        return kept


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child leaves its parent's files alone
        rmtree(folder, ignore_errors=True)
