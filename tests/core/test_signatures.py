"""The synchronous and the asynchronous client have the same methods and parameters."""

from __future__ import annotations

import inspect
from typing import Any, cast

import pytest

import taskbridge as tb
from taskbridge import aio

PAIRS: list[tuple[type[Any], type[Any]]] = [(tb.Client, aio.Client), (tb.Bridge, aio.Bridge)]
ENTRY = {"__enter__": "__aenter__", "__exit__": "__aexit__"}
YIELDING = {"as_completed", "ingesting", "list", "watch"}


def public(kind: type[Any]) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_") or name in ENTRY}


def parameters(function: Any) -> list[tuple[str, Any, Any, str]]:
    return [
        (each.name, each.kind, each.default, str(each.annotation).replace("Awaitable[object] | ", ""))
        for each in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS, ids=lambda kind: kind.__module__)
def test_both_have_the_same_names(sync: type[Any], asynchronous: type[Any]) -> None:
    names = {ENTRY.get(name, name) for name in public(sync)}
    assert names == {name for name in dir(asynchronous) if not name.startswith("_")} | {"__aenter__", "__aexit__"}


@pytest.mark.parametrize(
    ("sync", "asynchronous", "name"),
    [
        (sync, asynchronous, name)
        for sync, asynchronous in PAIRS
        for name in sorted(public(sync))
        if callable(getattr(sync, name))
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_both_take_the_same_parameters(sync: type[Any], asynchronous: type[Any], name: str) -> None:
    assert parameters(getattr(sync, name)) == parameters(getattr(asynchronous, ENTRY.get(name, name)))


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS, ids=lambda kind: kind.__module__)
def test_both_return_the_same_types(sync: type[Any], asynchronous: type[Any]) -> None:
    swap = {"Iterator": "AsyncIterator", "Generator": "AsyncGenerator", "ContextManager": "AsyncContextManager"}
    for name, function in public(sync).items():
        if not inspect.isfunction(function):
            continue
        expected = str(inspect.signature(function).return_annotation)
        actual = str(inspect.signature(getattr(asynchronous, ENTRY.get(name, name))).return_annotation)
        for word, counterpart in swap.items():
            expected = expected.replace(word, counterpart) if name in YIELDING else expected
        assert expected == actual, name


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS, ids=lambda kind: kind.__module__)
def test_methods_with_io_are_coroutines(sync: type[Any], asynchronous: type[Any]) -> None:
    del sync
    for name in ("get", "wait", "result", "wait_all", "close"):
        assert inspect.iscoroutinefunction(getattr(asynchronous, name))


def test_both_connect_functions_take_the_same_parameters() -> None:
    expected = [
        (name, kind, default, annotation.replace("Async", ""))
        for name, kind, default, annotation in parameters(aio.connect)
    ]
    assert parameters(tb.connect) == expected


def test_the_asynchronous_names_are_the_synchronous_ones() -> None:
    assert set(aio.__all__) <= set(cast("list[str]", tb.__all__))
