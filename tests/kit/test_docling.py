"""The plugin for docling-serve, as its author would install it; `make test-docling` runs it against the real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Plugin

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "taskbridge-docling"


@pytest.mark.slow
def test_it_is_listed_and_its_own_tests_pass(on_the_path: Callable[[Path], Plugin]) -> None:
    docling = on_the_path(FOLDER)
    code = "import json, taskbridge as tb; print(json.dumps({i.name: [i.builtin, i.problem] for i in tb.providers()}))"
    assert json.loads(docling.run("-c", code))["docling"] == [False, None]
    summary = docling.test()
    assert "passed" in summary
    assert "failed" not in summary
    assert "skipped" not in summary
