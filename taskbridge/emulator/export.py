"""How to reach a running emulator, as text: a configuration file for people, JSON for scripts."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.emulator.shell import Emulator


def connections_json(emulator: Emulator) -> str:
    """Return one line of JSON: the settings by vendor, as ``taskbridge.connect`` takes them."""
    return json.dumps({name: emulator.settings(name) for name in emulator.vendors})


def samples_json(emulator: Emulator) -> str:
    """Return one line of JSON: ``{"samples": {vendor: {label: shared id}}, "control": {"url": …, "token": …}}``."""
    samples = {name: emulator.samples(name) for name in emulator.vendors}
    control = {"url": emulator.control_url, "token": emulator.control_token}
    return json.dumps({"samples": samples, "control": control})


def config_toml(emulator: Emulator) -> str:
    """Return a configuration file for the running vendors, with sample tasks and the control interface as comments."""
    tables = {name: {"provider": name, **emulator.settings(name)} for name in emulator.vendors}
    refs = [
        f"# {name}:{shared}  ({label})" for name in emulator.vendors for label, shared in emulator.samples(name).items()
    ]
    control = f"# control: {emulator.control_url} with the header Authorization: Bearer {emulator.control_token}"
    return "\n".join([connections_toml(tables), "# sample tasks:", *refs, control, ""])


def connections_toml(tables: Mapping[str, Mapping[str, str]]) -> str:
    """Return a configuration file for connections with these settings; the first is the default."""
    lines = [f"default = {_text(next(iter(tables)))}"]
    for name, table in tables.items():
        lines += ["", f"[connections.{_key(name)}]", *(f"{_key(key)} = {_text(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _text(key)


def _text(value: str) -> str:
    # a JSON string is a TOML basic string, except for surrogate pairs and the DEL that JSON does not escape
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
