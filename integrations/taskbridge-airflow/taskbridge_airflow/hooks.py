"""The hook: makes taskbridge clients from a connection of Airflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow.sdk import BaseHook

import taskbridge as tb
from taskbridge.errors import printable

if TYPE_CHECKING:
    from airflow.sdk import Connection

# Provider -> its settings for the login and the password of a connection; others have an API key.
_CREDENTIALS: Final[Mapping[str, tuple[str | None, str]]] = {
    "expertai-extract": ("username", "password"),
    "smartdocumentor": ("client_id", "client_secret"),
}


class TaskbridgeHook(BaseHook):
    """Makes clients of taskbridge from a connection of the type ``taskbridge``.

    The field *provider* of the connection names the provider. The password is its API key, client secret or password;
    the login its client id or user name; the host its ``base_url``. The extra JSON has all other settings.

    Args:
        taskbridge_conn_id: Id of the connection.
    """

    conn_name_attr: ClassVar[str] = "taskbridge_conn_id"
    default_conn_name: ClassVar[str] = "taskbridge_default"
    conn_type: ClassVar[str] = "taskbridge"
    hook_name: ClassVar[str] = "taskbridge"

    def __init__(self, taskbridge_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.taskbridge_conn_id = taskbridge_conn_id

    def get_conn(self) -> tb.Client:
        """Return a client of the connection; close it, or use it in a ``with`` statement.

        Raises:
            ConfigError: A field of the connection cannot be used; the message names it, never its value.
            ProviderNotFound: No such provider is installed.
        """
        provider, settings = settings_of(self.get_connection(self.taskbridge_conn_id))
        return tb.connect(provider, **settings)

    async def aget_settings(self) -> tuple[str, dict[str, Any]]:
        """Return the name of the provider and the settings, for ``taskbridge.aio.connect``.

        Raises:
            ConfigError: A field of the connection cannot be used.
        """
        return settings_of(await self.aget_connection(self.taskbridge_conn_id))

    def test_connection(self) -> tuple[bool, str]:
        """Ask the vendor whether it accepts the credential; return that and a message."""
        try:
            with self.get_conn() as client:
                client.check()
        except tb.TaskbridgeError as error:
            return False, str(error)
        return True, "the vendor accepts the credential"


def settings_of(connection: Connection) -> tuple[str, dict[str, Any]]:
    """Return the name of the provider and the settings that a connection of Airflow describes.

    Raises:
        ConfigError: A field cannot be used; the message names it, never its value.
    """
    place = f"Airflow connection {printable(str(connection.conn_id), 100)!r}"
    settings = {key: value for key, value in _extra(connection.extra, place).items() if value not in (None, "")}
    provider = settings.pop("provider", None)
    if not isinstance(provider, str):
        raise tb.ConfigError(f'{place}: the extra field "provider" must name a provider, such as cloudconvert')
    login_key, password_key = _CREDENTIALS.get(provider, (None, "api_key"))
    if connection.login and login_key is None:
        raise tb.ConfigError(f"{place}: {printable(provider, 60)} has no user names; leave the login empty")
    fields = {login_key: connection.login, password_key: connection.password, "base_url": _base_url(connection)}
    for key, value in fields.items():
        if not value or key is None:
            continue
        if key in settings:
            raise tb.ConfigError(f"{place}: {key} is in the extra JSON and in a field of its own; remove one")
        settings[key] = value
    return provider, settings


def _extra(text: str | None, place: str) -> dict[str, Any]:
    """Return the extra JSON; unlike Airflow's ``extra_dejson``, do not take broken JSON for an empty object."""
    if not text:
        return {}
    try:
        extra = json.loads(text)
    except ValueError:
        extra = None  # the error would repeat the text, which may hold a credential
    if not isinstance(extra, dict):
        raise tb.ConfigError(f"{place}: extra must be a JSON object")
    return extra


def _base_url(connection: Connection) -> str | None:
    if not connection.host:
        return None
    host = connection.host if "://" in connection.host else f"https://{connection.host}"
    return f"{host}:{connection.port}" if connection.port else host
