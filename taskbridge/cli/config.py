"""``config show``: print what is set and where each value comes from, but no secret."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import click

from taskbridge._redaction import MASK
from taskbridge.cli.exit_codes import DONE, USAGE
from taskbridge.cli.options import config_path, connections_argument, with_config, with_json
from taskbridge.errors import ConfigError, TaskbridgeError, printable
from taskbridge.models import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from taskbridge._config.files import Config, ConnectionConfig, GroupConfig
    from taskbridge.cli.output import Output


Setting: TypeAlias = tuple[str, Any, str]
"""Dotted key, value that may be shown, origin."""


@click.group(name="config", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> int:
    """Print the configuration."""
    if ctx.invoked_subcommand is None:
        ctx.obj.note(ctx.get_help())
        return USAGE
    return DONE


@command.command()
@connections_argument
@click.option("--all", "everything", is_flag=True, help="Include settings that are not set, with their defaults.")
@with_json
@with_config
@click.pass_obj
def show(output: Output, connections: tuple[str, ...], *, everything: bool) -> int:
    """Print each setting and where its value comes from. Secrets are masked."""
    from taskbridge._config.files import GroupConfig  # noqa: PLC0415  # heavy

    config = load_shown(config_path(), connections)
    chosen = [config.find(name) for name in connections or config.names]
    code = DONE
    if not output.as_json:
        output.line(config.place)
        output.line(f"default = {config.default or 'none'}")
    for connection in chosen:
        if isinstance(connection, GroupConfig):
            _show_group(output, connection)
            continue
        problem = _problem(connection)
        code = USAGE if problem else code
        connection = with_variables(connection)  # noqa: PLW2901  # the same one
        rows = list(connection_settings(connection, everything=everything))
        if output.as_json:
            settings = {key: {"value": value, "origin": origin} for key, value, origin in rows}
            record = {"connection": connection.name, "provider": _provider(connection), "settings": settings}
            output.record({**record, "problem": problem})
        else:
            output.line(f"\n{_block(connection, rows, problem)}")
    return code


def load_shown(path: str | None, names: Sequence[str]) -> Config:
    """Read the configuration; a name that is a provider's, and no connection's, is what ``connect(name)`` opens.

    Raises:
        ConfigError: There is no configuration, or it cannot be used.
    """
    from taskbridge._config.files import Config, load_config, provider_connection  # noqa: PLC0415  # heavy
    from taskbridge._config.registry import provider_names  # noqa: PLC0415  # heavy

    installed = provider_names()
    try:
        config = load_config(path)
    except ConfigError as error:
        is_named = path is not None or os.environ.get("TASKBRIDGE_CONFIG")
        if is_named or not names or not set(names) <= set(installed):
            raise error.again() from None
        config = Config(None, {})
    more = {name: provider_connection(name, {}) for name in names if name in installed and name not in config.names}
    return replace(config, connections={**config.connections, **more})


def with_variables(connection: ConnectionConfig) -> ConnectionConfig:
    """Return a connection with what its vendor's customary environment variables say."""
    from taskbridge._config.connections import add_vendor_variables  # noqa: PLC0415  # heavy
    from taskbridge._config.registry import load_provider, provider_names  # noqa: PLC0415  # as above

    if connection.provider in provider_names():  # else perhaps a credential in the wrong place
        with suppress(TaskbridgeError):
            return add_vendor_variables(connection, load_provider(connection.provider))
    return connection


def _show_group(output: Output, group: GroupConfig) -> None:
    if output.as_json:
        first = {"value": list(group.first), "origin": group.origin}
        output.record({"connection": group.name, "provider": None, "settings": {"first": first}, "problem": None})
    else:
        output.line(f"\n[{group.name}]\n  first = {_value(list(group.first))}  # {printable(group.origin, 300)}")


def _block(connection: ConnectionConfig, settings: Sequence[Setting], problem: str | None) -> str:
    rows = [("provider", _value(_provider(connection)), connection.origins.get("provider", ""))]
    rows += [(printable(key, 120), _value(value), origin) for key, value, origin in settings]
    key_width = max(len(key) for key, _, _ in rows)
    value_width = min(40, max(len(value) for _, value, _ in rows))
    lines = [f"[{connection.name}]"]
    lines += [
        f"  {key.ljust(key_width)} = {value.ljust(value_width)}  # {printable(from_, 300)}"
        for key, value, from_ in rows
    ]
    return "\n".join([*lines, f"  cannot be used: {printable(problem)}"] if problem else lines)


def _provider(connection: ConnectionConfig) -> str:
    """Return the name of the provider; a text that names none may be a credential."""
    from taskbridge._config.registry import provider_names  # noqa: PLC0415  # heavy

    return connection.provider if connection.provider in provider_names() else MASK


def _value(value: Any) -> str:
    return value if value == MASK else printable(json.dumps(value, ensure_ascii=False), 300)


def _problem(connection: ConnectionConfig) -> str | None:
    """Why a connection cannot be used as configured, or None."""
    from taskbridge._config import connections, registry  # noqa: PLC0415  # heavy

    try:
        provider = registry.load_provider(connection.provider)
        connections.connection_settings(connection, provider, registry.load_builtin_providers())
    except TaskbridgeError as error:
        return error.message
    return None


def connection_settings(connection: ConnectionConfig, *, everything: bool = False) -> Iterator[Setting]:
    """Yield what is set for a connection; secrets, and settings that no model knows, are masked."""
    from taskbridge._config.files import leaves  # noqa: PLC0415  # heavy
    from taskbridge._config.settings import CommonSettings  # noqa: PLC0415  # as above

    fields = {**dict(setting_fields(CommonSettings)), **_own_fields(connection.provider)}
    values = dict(leaves(connection.values))
    for key, value in values.items():
        if _is_source(key, fields):
            yield key, _shown_source(key, value), connection.origins.get(key, "")
            continue
        field = fields["states"] if key.startswith("states.") else fields.get(key)
        yield key, _masked(key, value, field), connection.origins.get(key, "")
    for key, field in fields.items() if everything else ():
        if not any(name == key or name.startswith(f"{key}.") for name in values) and not field.is_required():
            yield key, field.get_default(call_default_factory=True, validated_data={}), "default"


def _is_source(key: str, fields: Mapping[str, FieldInfo]) -> bool:
    """Whether a dotted key says where a secret is kept."""
    setting, _, part = key.rpartition(".")
    return setting in fields and part in ("file", "keyring", "user")


def _shown_source(key: str, value: Any) -> Any:
    """Return where a secret is kept; what does not exist may be the secret itself, in the wrong place."""
    return MASK if key.endswith(".file") and not os.path.exists(str(value)) else value  # noqa: PTH110  # False for a NUL, too


def _own_fields(provider: str) -> dict[str, FieldInfo]:
    """Return the settings of a provider; one that cannot be used has none, so that its settings stay masked."""
    from taskbridge._config.registry import load_provider, provider_names  # noqa: PLC0415  # heavy

    if provider not in provider_names():  # perhaps a credential in the wrong place: no error may hold it
        return {}
    with suppress(TaskbridgeError):
        return dict(setting_fields(load_provider(provider).Settings))
    return {}


def setting_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted key and the field of each setting of a model."""
    from pydantic import BaseModel  # noqa: PLC0415  # heavy

    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from setting_fields(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", field


def _masked(key: str, value: Any, field: FieldInfo | None) -> Any:
    """Return a value as it may be shown: a field that its model hides from repr is masked."""
    from taskbridge._config.files import VARIABLE, Unset  # noqa: PLC0415  # heavy

    if isinstance(value, Unset) and VARIABLE.fullmatch(value):
        return str(value)  # the variable's name, without its value
    if field is None or not field.repr or "SecretStr" in str(field.annotation) or _is_misplaced(key, value):
        return MASK
    if isinstance(value, str) and "@" in (urlsplit(value).netloc if "//" in value else ""):
        return MASK  # a URL with a password
    return value


def _is_misplaced(key: str, value: Any) -> bool:
    """Whether a value cannot be right for its setting: perhaps it is a credential in the wrong place."""
    from taskbridge._config.connections import url_problem  # noqa: PLC0415  # heavy

    if key.startswith("states."):
        return value not in list(TaskStatus)
    if key == "ca_bundle":
        return not os.path.exists(str(value))  # noqa: PTH110  # False for a NUL, too
    return key.endswith("_url") and url_problem(str(value), allow_http=True) is not None
