"""The synchronous and the asynchronous interface have the same names and the same parameters."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import taskbridge as tb
from taskbridge import aio

PAIRS: list[tuple[type[Any], type[Any]]] = [(tb.Client, aio.Client), (tb.Bridge, aio.Bridge)]
ENTRY = {"__enter__": "__aenter__", "__exit__": "__aexit__"}
YIELDING = {"as_completed", "list", "watch"}


def public(kind: type[Any]) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_") or name in ENTRY}


def parameters(function: Any) -> list[tuple[str, Any, Any, str]]:
    return [
        (each.name, each.kind, each.default, str(each.annotation).replace("Awaitable[object] | ", ""))
        for each in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda kind: kind.__module__)
def test_both_have_the_same_names(ours: type[Any], theirs: type[Any]) -> None:
    names = {ENTRY.get(name, name) for name in public(ours)}
    assert names == {name for name in dir(theirs) if not name.startswith("_")} | {"__aenter__", "__aexit__"}


@pytest.mark.parametrize(
    ("ours", "theirs", "name"),
    [(ours, theirs, name) for ours, theirs in PAIRS for name in sorted(public(ours)) if callable(getattr(ours, name))],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_both_take_the_same_parameters(ours: type[Any], theirs: type[Any], name: str) -> None:
    assert parameters(getattr(ours, name)) == parameters(getattr(theirs, ENTRY.get(name, name)))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda kind: kind.__module__)
def test_both_return_the_same_types(ours: type[Any], theirs: type[Any]) -> None:
    swap = {"Iterator": "AsyncIterator", "ContextManager": "AsyncContextManager"}
    for name, function in public(ours).items():
        if not inspect.isfunction(function):
            continue
        mine = str(inspect.signature(function).return_annotation)
        other = str(inspect.signature(getattr(theirs, ENTRY.get(name, name))).return_annotation)
        for word, twin in swap.items():
            mine = mine.replace(word, twin) if name in YIELDING else mine
        assert mine == other, name


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda kind: kind.__module__)
def test_methods_with_io_are_coroutines(ours: type[Any], theirs: type[Any]) -> None:
    del ours
    for name in ("get", "wait", "result", "wait_all", "close"):
        assert inspect.iscoroutinefunction(getattr(theirs, name))


def test_both_connect_functions_take_the_same_parameters() -> None:
    theirs = [(name, kind, default, said.replace("Async", "")) for name, kind, default, said in parameters(aio.connect)]
    assert parameters(tb.connect) == theirs


def test_the_asynchronous_names_are_the_synchronous_ones() -> None:
    assert set(aio.__all__) <= set(tb.__all__)
