"""Secrets that are kept elsewhere: in a file, in the keyring of the system, or behind a function of the caller's.

A setting names its source in place of the secret: ``{ file = "/run/secrets/key" }``, ``{ keyring = "service", user =
"name" }``, or in Python a function without arguments. It is read when the connection is opened, and again once the
vendor has refused the secret. Errors name the source and never what it gave.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from inspect import iscoroutine
from pathlib import Path
from typing import Any, Final, cast

from pydantic import SecretStr

from taskbridge._config.registry import require_extra
from taskbridge.errors import ConfigError, printable

_LARGEST: Final = 1 << 16  # bytes of a file; certificates and tokens are smaller
_FORMS: Final = '{ file = "…" } or { keyring = "…", user = "…" }'


def is_source(value: object) -> bool:
    """Whether a setting names where a secret is kept."""
    return isinstance(value, dict) or callable(value)


def has_sources(values: Mapping[str, object], keys: frozenset[str]) -> bool:
    """Whether one of these settings names where it is kept, itself or in its list."""
    given = (values[key] for key in keys if key in values)
    return any(is_source(value) or any(map(is_source, _items(value))) for value in given)


def _items(value: object) -> list[object]:
    return list(cast("list[object]", value)) if isinstance(value, list | tuple) else []


def read_source(value: Any, key: str) -> tuple[str, str]:
    """Return a secret and, for messages, where it is kept.

    Args:
        value: The source.
        key: The setting, for messages.

    Raises:
        ConfigError: It cannot be read; the message says why, without the secret.
    """
    if not isinstance(value, dict):
        return _from_function(value, key), "returned by its function"
    table = cast("dict[str, object]", value)
    if set(table) == {"file"} and isinstance(table["file"], str):
        where = f"the file {_shown(table['file'])}"
        return _from_file(table["file"], f"{key}: {where}"), f"read from {where}"
    if set(table) == {"keyring", "user"} and all(isinstance(each, str) for each in table.values()):
        service, user = str(table["keyring"]), str(table["user"])
        where = f"the keyring, service {printable(service, 60)!r} and user {printable(user, 60)!r}"
        return _from_keyring(service, user, key), f"read from {where}"
    raise ConfigError(f"{key} must be a text, or {_FORMS}")


def _shown(path: str) -> str:
    """Return a path for messages; a text that does not look like one may be the secret itself."""
    folder = Path(path).parent
    looks_right = path.startswith(("/", "~", ".")) or Path(path).is_absolute() or (folder != Path() and _is_dir(folder))
    return printable(path, 300) if looks_right else "named there, which should be a path such as /run/secrets/key,"


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _from_file(path: str, where: str) -> str:
    try:
        chosen = Path(path).expanduser()
        if not stat.S_ISREG(chosen.stat().st_mode):  # a pipe could be read only once, and may block
            problem = "is no regular file"
        else:
            with chosen.open("rb") as file:
                content = file.read(_LARGEST + 1)
            if len(content) <= _LARGEST:
                return content.decode()
            problem = f"has more than {_LARGEST} bytes, which no secret has"
    except FileNotFoundError:
        problem = "does not exist"
    except UnicodeDecodeError:
        problem = "holds bytes that are no text"
    except PermissionError:
        problem = "cannot be read: permission denied"
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the path; no home
        problem = f"cannot be read ({type(error).__name__})"
    raise ConfigError(f"{where} {problem}")


def _from_keyring(service: str, user: str, key: str) -> str:
    try:
        import keyring  # noqa: PLC0415  # an extra
    except ModuleNotFoundError:
        raise require_extra("keyring", "keyring", f"{key} from the keyring") from None
    try:
        found = keyring.get_password(service, user)
    except Exception as error:  # noqa: BLE001  # a backend may be anybody's code; its message may hold the secret
        problem = f"cannot be read ({type(error).__name__}); is there a keyring, and is it unlocked?"
    else:
        if found is not None:
            return found
        problem = f"has no password for this service and user; add it: keyring set {service} {user}"
    raise ConfigError(f"{key}: the keyring {printable(problem, 300)}")


def _from_function(function: Callable[[], object], key: str) -> str:
    try:
        found = function()
    except Exception as error:  # noqa: BLE001  # the caller's code; its message may hold the secret
        problem = f"raised {type(error).__name__}"
    else:
        if isinstance(found, SecretStr):
            found = found.get_secret_value()
        if isinstance(found, str):
            return found
        if iscoroutine(found):
            found.close()
        problem = f"returned {type(found).__name__}, not a text"
    raise ConfigError(f"{key}: its function {problem}")
