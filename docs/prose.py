"""Helpers of the generated regions: Markdown tables and code, docstrings of attributes."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable
from itertools import pairwise

Rows = Iterable[tuple[str, ...]]


def table(head: tuple[str, ...], rows: Rows) -> str:
    """Return a Markdown table; cells are joined to one line, bars in them are escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: object) -> str:
    """Return text as inline code."""
    return f"`{text}`"


def prose(docstring: str) -> str:
    """Return a docstring as Markdown."""
    return docstring.replace("``", "`").strip()


def yes(value: object) -> str:
    """Return yes or no."""
    return "yes" if value else "no"


def attribute_docs(kind: type[object]) -> dict[str, str]:
    """Return what a class says about its attributes, in order.

    Reads the ``Attributes:`` section of the docstring and the strings that follow attributes in the class body.
    """
    section = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    listed = re.findall(r"^    (\w+): (.+(?:\n      +.+)*)", section, re.MULTILINE)
    found = {name: " ".join(text.split()) for name, text in listed}
    (parsed,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = parsed.body if isinstance(parsed, ast.ClassDef) else []
    for member, following in pairwise(body):
        target = member.targets[0] if isinstance(member, ast.Assign) else getattr(member, "target", None)
        if isinstance(target, ast.Name) and (docstring := string(following)):
            found[target.id] = " ".join(docstring.split())
    return found


def string(node: ast.stmt) -> str | None:
    """Return the text of a statement that is nothing but a string."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return None
