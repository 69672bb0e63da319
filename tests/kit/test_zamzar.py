"""The finished plugin of the tutorial, as its author would install it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Plugin

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "examples" / "taskbridge-zamzar"


@pytest.fixture
def zamzar(on_the_path: Callable[[Path], Plugin]) -> Plugin:
    return on_the_path(FOLDER)


@pytest.mark.slow
def test_its_own_tests_pass(zamzar: Plugin) -> None:
    summary = zamzar.test()
    assert "passed" in summary
    assert "failed" not in summary
    assert "skipped" not in summary


def test_it_is_listed_beside_the_built_in_providers(zamzar: Plugin) -> None:
    code = "import json, taskbridge as tb; print(json.dumps({i.name: [i.builtin, i.problem] for i in tb.providers()}))"
    listed = json.loads(zamzar.run("-c", code))
    assert listed.pop("zamzar") == [False, None]
    assert all(info == [True, None] for info in listed.values())
