"""Objects of storages such as S3, through fsspec.

fsspec keeps one file system per storage and process, with the credentials that it finds. Its errors are replaced by
ours once they are gone: their text may hold a credential or a signed link.
"""

from __future__ import annotations

import errno
import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

from taskbridge.errors import ConfigError, printable
from taskbridge.provider.addresses import is_http
from taskbridge.provider.secrets import SignedLink
from taskbridge.provider.storage import shown_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

# What a file system raises -> number and words of our error; the first that fits. Others are named by their class.
_ERRORS: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (FileNotFoundError, errno.ENOENT, "does not exist"),
    (FileExistsError, errno.EEXIST, "exists; overwrite=True replaces it"),
    (IsADirectoryError, errno.EISDIR, "is a folder"),
    (PermissionError, errno.EACCES, "the storage does not permit it with the credentials that fsspec finds"),
    (TimeoutError, errno.ETIMEDOUT, "the storage does not answer in time"),
)


class FsspecStorage:
    """Reaches objects through fsspec; see `taskbridge.provider.storage.Storage`."""

    def size(self, url: str) -> int:
        """Return the bytes of an object."""
        found = _run(url, lambda fs, path: fs.info(path))
        if found.get("type") == "directory":
            raise IsADirectoryError(errno.EISDIR, "is a folder", shown_url(url))
        return int(found["size"])

    def exists(self, url: str) -> bool:
        """Return whether there is such an object."""
        return bool(_run(url, lambda fs, path: fs.exists(path)))

    def fetch(self, url: str, path: Path) -> None:
        """Copy an object into a local file."""
        _run(url, lambda fs, remote: fs.get_file(remote, str(path)))

    def put(self, path: Path, url: str, *, overwrite: bool) -> None:
        """Copy a local file into an object; without `overwrite`, the storage itself refuses one that exists."""
        mode = {} if overwrite else {"mode": "create"}
        _run(url, lambda fs, remote: fs.put_file(str(path), remote, **mode))

    def sign(self, url: str, seconds: float) -> SignedLink | None:
        """Return a link to an object; None if the file system has none."""
        try:
            link: object = _run(url, lambda fs, path: fs.sign(path, expiration=math.ceil(seconds)), NotImplementedError)
        except NotImplementedError:
            return None
        except OSError as error:
            problem = error.strerror
        else:
            if isinstance(link, str) and is_http(link):
                return SignedLink(link)
            problem = "the storage returned no http link"
        raise ConfigError(
            f"no link to {shown_url(url)} can be signed: {problem}; some credentials, such as those of a person, "
            "cannot sign"
        )

    def remove(self, url: str) -> None:
        """Remove an object, if it exists."""
        try:
            _run(url, lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            return


def _run(url: str, work: Callable[[Any, str], T], passed: type[Exception] | None = None) -> T:
    """Call a function with the file system of a URL and the path in it; an error of type `passed` stays as it is."""
    import fsspec  # noqa: PLC0415  # an extra

    untyped: Any = fsspec
    try:
        file_system, path = untyped.url_to_fs(url)
        file_system.invalidate_cache(path)  # another process may have changed what is there
        return work(file_system, path)
    except Exception as error:  # noqa: BLE001  # each storage has errors of its own
        failure = passed() if passed is not None and isinstance(error, passed) else _translated(url, error)
    raise failure


def _translated(url: str, error: Exception) -> Exception:
    if isinstance(error, ImportError):
        return ConfigError(f"{shown_url(url)} cannot be opened: a package that fsspec needs for it cannot be imported")
    number, words = next(
        ((number, words) for kind, number, words in _ERRORS if isinstance(error, kind)),
        (errno.EIO, f"the storage failed with {printable(type(error).__name__, 60)}; its words may hold a credential"),
    )
    return OSError(number, words, shown_url(url))
