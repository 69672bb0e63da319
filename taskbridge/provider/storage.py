"""Which URLs name an object of a storage, and what the engine needs of one; no I/O.

Storages are opened through fsspec, with the credentials that it and the storage's own library find: in the environment,
in their configuration files, or from the machine. URLs of other schemes that fsspec knows (``file://``, ``ftp://``) are
refused: a document's URL may be a customer's input.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from taskbridge.errors import printable
from taskbridge.provider.secrets import SignedLink

# Scheme -> package that fsspec needs for it.  https://filesystem-spec.readthedocs.io/en/latest/api.html
SCHEMES: Final[Mapping[str, str | None]] = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "memory": None,  # of this process, for tests
}


class Storage(Protocol):
    """What reaches the objects of storages. All methods block; errors are `OSError` with the URL, or `ConfigError`."""

    def size(self, url: str) -> int:
        """Return the bytes of an object."""
        ...

    def exists(self, url: str) -> bool:
        """Return whether there is such an object."""
        ...

    def fetch(self, url: str, path: Path) -> None:
        """Copy an object into a local file."""
        ...

    def put(self, path: Path, url: str, *, overwrite: bool) -> None:
        """Copy a local file into an object: a reader sees the whole object or none."""
        ...

    def sign(self, url: str, seconds: float) -> SignedLink | None:
        """Return a link to an object that is valid for some seconds; None if such a storage has no links."""
        ...

    def remove(self, url: str) -> None:
        """Remove an object, if it exists."""
        ...


def is_storage(text: str) -> bool:
    """Whether a text is the URL of an object in a storage."""
    scheme, found, _ = text.partition("://")
    return bool(found) and scheme.lower() in SCHEMES


def storage_problem(url: str) -> str | None:
    """Return what is wrong with the URL of a storage, in words that follow its name; None if it can be used."""
    try:
        parts = urlsplit(url)
        password, host = parts.password, parts.netloc
    except ValueError:
        return "is no URL"
    scheme, _, rest = url.partition("://")  # as it is written: fsspec knows no S3://
    problems = (
        (scheme not in SCHEMES, f"must begin with {', '.join(f'{each}://' for each in SCHEMES)}"),
        (not url.isprintable() or not host.strip("@"), "must name a bucket, and hold no control characters"),
        (password is not None, "must hold no password: fsspec finds credentials in the environment"),
        ("?" in url or "::" in url, "must hold no query and no second URL"),
        (not {".", ".."}.isdisjoint(rest.split("/")), "must hold no . or .. between slashes"),
    )
    return next((words for is_wrong, words in problems if is_wrong), None)


def missing_package(url: str) -> str | None:
    """Return the package that must be installed for a URL of a storage; ``fsspec`` is the extra of that name."""
    package = SCHEMES.get(url.partition("://")[0])
    return next((each for each in ("fsspec", package) if each is not None and find_spec(each) is None), None)


def shown_url(url: str) -> str:
    """Return a URL of a storage for messages."""
    return printable(url.partition("?")[0], 300)
