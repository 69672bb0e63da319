"""Lists of the site's pages and of the public names, for the generated regions and the reference."""

from __future__ import annotations

import ast
import inspect
import os
import re
import tomllib
import types
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Final, cast

from prose import code, prose, string, table

import taskbridge
from taskbridge import errors

ROOT: Final = Path(__file__).resolve().parent.parent


def by_family(kind: type[errors.TaskbridgeError]) -> Iterator[type[errors.TaskbridgeError]]:
    """Yield an error class and its subclasses, each after its base class."""
    if kind.__name__ in dir(taskbridge):
        yield kind
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from by_family(each)


def _nav() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield each section of the site's navigation, with the titles and files of its pages."""
    project = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text(encoding="utf-8"))["project"]
    sources: dict[str, str] = project["extra"]["sources"]
    for entry in cast("list[dict[str, str | list[dict[str, str]]]]", project["nav"]):
        for section, inner in entry.items():
            if not isinstance(inner, str):
                pairs = (pair for each in inner for pair in each.items())
                yield section, [(title, sources.get(path, f"docs/{path}")) for title, path in pairs]


def site_pages(folder: str = "docs") -> str:
    """Return every page of the site's navigation, by section; links are relative to a folder of the repository."""
    rows = [
        (section, " · ".join(f"[{title}]({os.path.relpath(path, folder)})" for title, path in pages))
        for section, pages in _nav()
    ]
    return table(("", "Pages"), rows)


def llms_txt() -> str:
    """Return llms.txt (https://llmstxt.org): what the project is, and each page with its first sentence."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = ["# taskbridge", "", f"> {project['description']}. [On one page](docs/for-agents.md)."]
    for section, pages in _nav():
        lines += ["", f"## {section}", ""]
        lines += [f"- [{title}]({path}): {_first_sentence(ROOT / path)}" for title, path in pages]
    return "\n".join(lines) + "\n"


def _first_sentence(page: Path) -> str:
    """Return the first sentence below the title of a page, without its links."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    first = next(each for each in text.split("\n\n") if each.strip() and not each.startswith(("#", "<!--", "|")))
    plain = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", " ".join(first.split()))
    return re.split(r"(?<=[.:])\s", plain)[0].rstrip(":.") + "."


# The reference: a table that reads on a code host, and mkdocstrings directives that build_site.py adds for the site.


def reference(module: str, *homes: str) -> str:
    """Return the public names of a module, and the public methods of its classes, with the first lines of their docs.

    Args:
        module: The public module.
        homes: Top-level modules of `taskbridge` (of `module`, where that is a package of its own) whose names are
            listed; all, if none is given.
    """
    rows: list[tuple[str, str]] = []
    for name in listed_names(module, *homes):
        value: object = getattr(import_module(module), name)
        call = "()" if inspect.isfunction(value) else ""
        documented = isinstance(value, type | types.FunctionType)
        docstring = inspect.getdoc(value) if documented else _constants(_home(module, name)).get(name)
        rows.append((code(name + call), _first_line(docstring)))
        if inspect.isclass(value) and not issubclass(value, BaseException):
            rows += [(code(f"{name}.{member}"), summary) for member, summary in _members(value)]
    return table(("Name", "Summary"), rows)


def signatures(name: str = "Client") -> str:
    """Return the public methods of a class of `taskbridge`, with their parameters."""
    kind = getattr(taskbridge, name)
    rows: list[tuple[str, str]] = []
    for member, meaning in _members(kind):
        if not member.endswith("()"):
            continue
        method = getattr(kind, member.removesuffix("()"))
        parameters = [
            each.replace(annotation=inspect.Parameter.empty)
            for each in inspect.signature(method).parameters.values()
            if each.name != "self"
        ]
        shown = inspect.Signature(parameters)
        rows.append((code(f"{member.removesuffix('()')}{shown}"), meaning))
    return table(("Call", "What it does"), rows)


def directives(module: str, *homes: str) -> str:
    """Return the mkdocstrings directives of the same names."""
    return "\n".join(_directive(module, name) for name in listed_names(module, *homes))


def listed_names(module: str, *homes: str) -> list[str]:
    """Return the public names of a module that come from some modules: functions first, errors by family."""
    public = import_module(module)
    names = [name for name in public.__all__ if not isinstance(getattr(public, name), types.ModuleType)]
    if homes:
        names = [name for name in names if _top(module, name) in homes]
    families = [kind.__name__ for kind in by_family(errors.TaskbridgeError)]
    return sorted(names, key=lambda name: (name[0].isupper(), families.index(name) if name in families else -1, name))


def linked_names(text: str, module: str) -> str:
    """Return a reference table whose names link to the documentation that the directives produce."""
    return re.sub(
        r"^\| `([\w.]+)(\(\))?` \|",
        lambda found: f"| [`{found[1]}{found[2] or ''}`][{module}.{found[1]}] |",
        text,
        flags=re.MULTILINE,
    )


def _directive(module: str, name: str) -> str:
    value = getattr(import_module(module), name)
    is_plain_error = (
        isinstance(value, type) and issubclass(value, errors.TaskbridgeError) and not vars(value).get("__init__")
    )
    options = "    options:\n      show_bases: true\n      inherited_members: false\n      show_signature: false\n"
    return f"::: {module}.{name}\n{options if is_plain_error else ''}"


def _members(kind: type[object]) -> Iterator[tuple[str, str]]:
    """Yield the public methods and properties of a class, with the first lines of their docs."""
    names = {
        name: None
        for each in kind.__mro__
        if each.__module__.startswith("taskbridge")
        for name in vars(each)
        if not name.startswith("_")
    }
    for name in names:
        static: object = inspect.getattr_static(kind, name)
        is_method = isinstance(static, types.FunctionType | classmethod | staticmethod)
        if is_method or isinstance(static, property):
            summary = _first_line(inspect.getdoc(getattr(kind, name) if is_method else static))
            if not summary.startswith("See `"):  # a method of a protocol
                yield f"{name}()" if is_method else name, summary


def _first_line(docstring: str | None) -> str:
    return prose(" ".join((docstring or "").partition("\n\n")[0].split()))


@cache
def _constants(module: str) -> dict[str, str]:
    """Return the docstrings of a module's constants and type aliases."""
    body = _parsed(module).body
    found: dict[str, str] = {}
    for node, following in pairwise(body):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name):
            found[target.id] = string(following) or ""
    return found


def _top(module: str, name: str) -> str:
    home = _home(module, name)
    package = "taskbridge" if module == "taskbridge" or not home.startswith(f"{module}.") else module
    return home.removeprefix(f"{package}.").partition(".")[0]


@cache
def _home(module: str, name: str) -> str:
    """Return the module that defines a name, as the imports of the public module say."""
    source = "taskbridge._public" if module == "taskbridge" else module
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("taskbridge"):
            names = [alias.name for alias in node.names]
            if name in names or (names == ["*"] and name in import_module(node.module).__all__):
                return node.module
    return source


@cache
def _parsed(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(import_module(module)))
