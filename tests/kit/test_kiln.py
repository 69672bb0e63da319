"""Kiln, an invented vendor that says when to ask again and tells states by the HTTP status, as an installed plugin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .conftest import Plugin

FOLDER = Path(__file__).parent / "taskbridge-kiln"


def test_it_passes_the_suite_and_is_asked_when_it_says(on_the_path: Callable[[Path], Plugin]) -> None:
    summary = on_the_path(FOLDER).test()
    assert "passed" in summary
    assert "failed" not in summary
