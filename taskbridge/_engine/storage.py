"""Documents and results in storages such as S3: links for vendors that take only URLs, inputs and download targets.

A document that is staged is an object below the connection's `stage`, under a name that cannot be guessed. It is
removed once its task has ended, or the submission surely was not accepted. A signed link is a capability: only the
vendor gets it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from errno import EEXIST
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from taskbridge._engine.effects import RunBlocking, UseStorage
from taskbridge._engine.inputs import check_document
from taskbridge._engine.storage_urls import check_storage_url
from taskbridge.errors import ConfigError, InvalidInput, TaskbridgeError, TransportError, TruncatedResponse
from taskbridge.models import StorageUrl
from taskbridge.provider.secrets import SignedLink
from taskbridge.provider.storage import is_storage, shown_url
from taskbridge.provider.submission import Document, Link

if TYPE_CHECKING:
    from taskbridge._engine.connection import Connection
    from taskbridge._engine.effects import EffectFlow
    from taskbridge._engine.inputs import TemporaryFiles
    from taskbridge.provider.submission import Source, Submission

_UNSAFE: Final = re.compile(r"[^\w.-]+", re.ASCII)  # in a storage's key and in a link


# Documents of a submission.


@dataclass(frozen=True, slots=True)
class Stage:
    """Puts the documents of one submission where the vendor can fetch them.

    Attributes:
        connection: The connection.
        files: Where documents are copied to.
        urls: The objects that may exist.
    """

    connection: Connection
    files: TemporaryFiles
    urls: list[str] = field(default_factory=list[str])

    def resolve(self, submission: Submission) -> EffectFlow[Submission]:
        """Replace objects of storages by documents, or by signed links if the vendor takes only those.

        Local documents are put into the stage if the vendor does not take them.
        """
        takes_uploads = self.connection.takes_uploads
        sources = list(submission.sources)
        for index, source in enumerate(sources):
            found: Source = source
            if isinstance(found, Link) and is_storage(found.url):
                link = None if takes_uploads else (yield from self._sign_object(found))
                found = link or (yield from self._fetch(found, submission.native_operation))
            if isinstance(found, Document) and not takes_uploads:
                found = yield from self._put(found)
            sources[index] = found
        return replace(submission, sources=tuple(sources))

    def _sign_object(self, link: Link) -> EffectFlow[Link | None]:
        """Return a signed link to an object; None if its storage has none, so that it has to be copied."""
        yield UseStorage(lambda storage: storage.size(link.url))  # a missing one says so here, not at the vendor
        signed = yield from self._sign(link.url)
        if signed is None and self.connection.settings.stage is None:
            raise self._cannot_sign(link.url)
        return None if signed is None else Link(signed, link.name)

    def _fetch(self, link: Link, native: str) -> EffectFlow[Document]:
        """Copy an object into a local file, unless the vendor takes no document of its size."""
        provider, url, name = self.connection.provider, link.url, link.name or "document"
        size: int = yield UseStorage(lambda storage: storage.size(url))
        limit = provider.capabilities.upload_limit
        if limit is not None and size > limit:
            raise InvalidInput(
                f"{shown_url(url)} has {size} bytes; {provider.title} takes documents of at most {limit}"
            )
        if size == 0:
            raise InvalidInput(f"{shown_url(url)} is empty")
        path = self.files.new_path(name)
        yield UseStorage(lambda storage: storage.fetch(url, path))
        found: int = yield RunBlocking(lambda: path.stat().st_size)
        if found != size:
            failure = TruncatedResponse(f"{shown_url(url)} has {size} bytes, and {found} arrived")
            failure.written = False  # to the vendor
            raise self.connection.add_context(failure)
        document = Document(name, path, size)
        yield RunBlocking(lambda: check_document(document, self.connection, native))
        return document

    def _put(self, document: Document) -> EffectFlow[Link]:
        """Put a document into the stage."""
        stage = self.connection.settings.stage or ""
        url = f"{stage}/{token_hex(16)}/{_plain(document.name)}"
        link = yield from self._sign(url)
        if link is None:
            raise self._cannot_sign(url)
        content = document.content
        # The suffix of the path decides the media type of the object.
        path = content if isinstance(content, Path) else self.files.new_path(document.name)
        if isinstance(content, bytes):
            yield RunBlocking(partial(path.write_bytes, content))
        self.urls.append(url)
        try:
            yield UseStorage(lambda storage: storage.put(path, url, overwrite=False))
        except TaskbridgeError:
            raise
        except OSError as error:
            problem, is_permanent = error.strerror, isinstance(error, FileNotFoundError | PermissionError)
        else:
            return Link(link, document.name)
        message = f"the document could not be put into the stage {shown_url(stage)}: {problem}"
        if is_permanent:
            raise self.connection.add_context(ConfigError(message))
        failure = TransportError(message)
        failure.written = False  # to the vendor
        raise self.connection.add_context(failure)

    def _sign(self, url: str) -> EffectFlow[SignedLink | None]:
        link: SignedLink | None = yield UseStorage(
            lambda storage: storage.sign(url, self.connection.settings.stage_ttl)
        )
        return link

    def _cannot_sign(self, url: str) -> TaskbridgeError:
        title = self.connection.provider.title
        error = ConfigError(
            f"{url.partition('://')[0]}:// has no signed links, and {title} takes only links: set stage to a storage "
            'that has them, such as "s3://bucket/prefix"'
        )
        return self.connection.add_context(error)


def _plain(name: str) -> str:
    """Return a name that needs no escaping in a key or a link."""
    return _UNSAFE.sub("_", name)


# Targets of a download.


class StorageFile:
    """An object that gets the content of a local file once that is complete.

    Raises:
        InvalidInput: The URL is malformed.
        ConfigError: A package for it is not installed.
    """

    def __init__(self, url: str, files: TemporaryFiles, *, overwrite: bool) -> None:
        check_storage_url(url)
        self.target = StorageUrl(url)
        self._files = files
        self._overwrite = overwrite
        self.path = files.new_path(self.target.name)  # its suffix decides the media type of the object

    def check(self) -> EffectFlow[None]:
        """Refuse an object that exists, before anything is fetched."""
        if self._overwrite:
            return
        try:
            exists: bool = yield UseStorage(lambda storage: storage.exists(self.target))
        except PermissionError:
            exists = False  # it may be written, not read: the storage decides
        if exists:
            raise FileExistsError(EEXIST, "exists; overwrite=True replaces it", shown_url(self.target))

    def write(self, content: bytes) -> None:
        """Write the content into the local file."""
        self.path.write_bytes(content)

    def commit(self) -> EffectFlow[None]:
        """Copy the local file into the object."""
        yield UseStorage(lambda storage: storage.put(self.path, self.target, overwrite=self._overwrite))

    def discard(self) -> None:
        """Remove the local file."""
        self.path.unlink(missing_ok=True)
