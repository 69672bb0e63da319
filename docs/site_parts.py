"""What the pages say about the site and the public names: lists of pages, and entries of the reference."""

from __future__ import annotations

import os
import tomllib
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Final, cast

from prose import table

from taskbridge import __all__ as public_names
from taskbridge import errors

ROOT: Final = Path(__file__).resolve().parent.parent


def by_family(kind: type[errors.TaskbridgeError]) -> Iterator[type[errors.TaskbridgeError]]:
    """A class of errors, and all that are one, each behind its parent."""
    if kind.__name__ in public_names:
        yield kind
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from by_family(each)


def site_pages(folder: str = "docs") -> str:
    """Every page of the site, by section, as the site's navigation has them, linked from a folder of the repository."""
    project = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text(encoding="utf-8"))["project"]
    sources: dict[str, str] = project["extra"]["sources"]
    rows: list[tuple[str, str]] = []
    for entry in cast("list[dict[str, str | list[dict[str, str]]]]", project["nav"]):
        for section, inner in entry.items():
            if not isinstance(inner, str):
                links = (
                    f"[{title}]({os.path.relpath(sources.get(path, f'docs/{path}'), folder)})"
                    for each in inner
                    for title, path in each.items()
                )
                rows.append((section, " · ".join(links)))
    return table(("", "Pages"), rows)


def reference(module: str, *homes: str) -> str:
    """The public names of a module whose home is one of those named; with ``but:`` in front, all whose home is none."""
    but = {home.removeprefix("but:") for home in homes if home.startswith("but:")}
    names = [
        name
        for name in import_module(module).__all__
        if not homes or (_home(module, name) not in but if but else _home(module, name) in homes)
    ]
    families = [kind.__name__ for kind in by_family(errors.TaskbridgeError)]
    names.sort(key=lambda name: (name[0].isupper(), families.index(name) if name in families else -1, name))
    return "\n".join(_entry(module, name) for name in names)


def _entry(module: str, name: str) -> str:
    value = getattr(import_module(module), name)
    printable = (
        isinstance(value, type) and issubclass(value, errors.TaskbridgeError) and not vars(value).get("__init__")
    )
    options = {"show_bases": "true", "inherited_members": "false", "show_signature": "false"} if printable else {}
    lines = [f"::: {module}.{name}", *(["    options:"] if options else [])]
    return "\n".join((*lines, *(f"      {key}: {value}" for key, value in options.items()))) + "\n"


def _home(module: str, name: str) -> str:
    """The last word of the module that has what a name stands for."""
    value = getattr(import_module(module), name)
    return "module" if isinstance(value, types.ModuleType) else getattr(value, "__module__", module).rpartition(".")[2]
