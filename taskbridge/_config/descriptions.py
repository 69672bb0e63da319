"""What settings mean: the texts below their fields in the source.

pydantic reads them, too, but when a class is created, which would slow down every start of a program.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from textwrap import dedent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel


def describe(model: type[BaseModel]) -> dict[str, str]:
    """Return the description of each setting that has one, by its dotted key."""
    from pydantic import BaseModel  # noqa: PLC0415  # heavy

    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if set(inspect.get_annotations(each)) & set(model.model_fields):
            found.update(_docstrings(each))
    found.update({name: field.description for name, field in model.model_fields.items() if field.description})
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found.update({f"{name}.{key}": text for key, text in describe(inner).items()})
    return found


def _docstrings(kind: type) -> Iterator[tuple[str, str]]:
    try:
        (tree,) = ast.parse(dedent(inspect.getsource(kind))).body
    except (OSError, TypeError, SyntaxError):  # it was not defined in a file
        return
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for field, text in pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                yield name, inspect.cleandoc(words)
            case _:
                continue
