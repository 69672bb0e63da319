"""Where a download lands: a file of its own beside the target, renamed once it is whole and on the disk."""

from __future__ import annotations

import os
from contextlib import suppress
from errno import EEXIST, EISDIR, ENOTDIR
from pathlib import Path
from secrets import token_hex

__all__ = ["Landing", "folder_of", "is_folder"]


class Landing:
    """A file on its way to its name.

    Args:
        target: Its name in the end.
        overwrite: Whether a file of that name is replaced.

    Attributes:
        target: Its name in the end.
        path: Its name until then, in the same folder.

    Raises:
        OSError: There is such a file, or a folder; or there is no folder to write in.
    """

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        self.target = target
        self.path = target.with_name(f".taskbridge-{token_hex(8)}.part")
        self._overwrite = overwrite
        if target.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(target))
        if not overwrite and (target.exists() or target.is_symlink()):
            raise _there(target)
        if not target.parent.is_dir():
            raise NotADirectoryError(ENOTDIR, "there is no such folder", str(target.parent))

    def write(self, content: bytes) -> None:
        """Write all of it."""
        try:
            with self.path.open("xb") as file:
                file.write(content)
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise

    def settle(self) -> None:
        """Bring it to the disk, then to its name: whoever sees the name sees the whole file.

        Raises:
            OSError: The disk is full or broken, or a file of that name has appeared meanwhile.
        """
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        if self._overwrite:
            self.path.replace(self.target)
        else:
            self._link()
        _sync_folder(self.target.parent)

    def _link(self) -> None:
        """Give it its name unless somebody else has it; a rename would replace what is there."""
        try:
            os.link(self.path, self.target)
        except FileExistsError:
            raise _there(self.target) from None
        except OSError:  # a file system without hard links
            if self.target.exists():
                raise _there(self.target) from None
            self.path.rename(self.target)
        else:
            self.path.unlink()

    def drop(self) -> None:
        """Remove it where it has not got its name."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _there(target: Path) -> FileExistsError:
    return FileExistsError(EEXIST, "exists; overwrite=True replaces it", str(target))


def _sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_folder(to: str | os.PathLike[str]) -> bool:
    """Whether a folder is meant: there is one, or the text ends in a separator."""
    text = os.fspath(to)
    return text.endswith(tuple(filter(None, (os.sep, os.altsep, "/")))) or Path(text).is_dir()


def folder_of(to: str | os.PathLike[str]) -> Path:
    """The folder that is meant, made where it is missing.

    Raises:
        OSError: It cannot be made, or is a file.
    """
    folder = Path(to)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
