"""URLs of objects in storages, checked; and those of a submission's staged documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from taskbridge._config.registry import require_extra
from taskbridge.errors import InvalidInput
from taskbridge.provider.storage import missing_package, shown_url, storage_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

STAGED: Final = "staged"
"""Key of a recovery token: the URLs of the objects that were staged for the submission."""


def check_storage_url(url: str) -> None:
    """Refuse the URL of a storage that cannot be used.

    Raises:
        InvalidInput: It is malformed.
        ConfigError: A package for it is not installed.
    """
    problem = storage_problem(url)
    if problem is not None:
        raise InvalidInput(f"the URL of an object {problem}")
    package = missing_package(url)
    if package is not None:
        raise require_extra(package, "fsspec", shown_url(url))


@dataclass(frozen=True, slots=True)
class StagedDocument:
    """An object that was staged for a task."""

    url: str


def staged_documents(stage: str | None, recovery_token: Mapping[str, Any]) -> tuple[StagedDocument, ...]:
    """Return the objects that a submission staged; only those of the stage, because a token may come from anywhere."""
    urls: Any = recovery_token.get(STAGED)
    if stage is None or not isinstance(urls, list):
        return ()
    texts = [each for each in urls if isinstance(each, str)]  # pyright: ignore[reportUnknownVariableType]  # any JSON
    return tuple(
        StagedDocument(each) for each in texts if each.startswith(f"{stage}/") and storage_problem(each) is None
    )


def object_url(to: str, name: str, *, is_folder: bool) -> str:
    """Return the URL of the object for a file of this name: below a folder, or the URL itself."""
    bucket = to.partition("://")[2].strip("/")
    if not is_folder and not to.endswith("/") and "/" in bucket:
        return to
    return f"{to.rstrip('/')}/{name}"
