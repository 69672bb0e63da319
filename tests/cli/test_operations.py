"""`operations`: what a vendor can do, before anything is submitted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

Here = Callable[..., subprocess.CompletedProcess[str]]


def test_operations_are_lines_or_objects(run_here: Here) -> None:
    shown = run_here("operations", "cloudconvert")
    assert shown.returncode == 0
    assert "convert  docx > pdf  (office)" in shown.stdout.splitlines()
    assert "import/url" in shown.stdout.splitlines()

    narrowed = run_here("operations", "cloudconvert", "--from", "jpg", "--into", "png", "--json")
    (record,) = map(json.loads, narrowed.stdout.splitlines())
    assert (record["name"], record["input_format"], record["output_format"]) == ("convert", "jpg", "png")
    assert "raw" not in record


def test_options_are_shown_below_their_operation(run_here: Here) -> None:
    lines = run_here("operations", "cloudconvert", "--name", "import/url").stdout.splitlines()
    assert lines == ["import/url", "    url (string)"]


def test_a_vendor_that_lists_none_is_named(run_here: Here) -> None:
    done = run_here("operations", "scan-documents")
    assert done.returncode == 2
    assert "Scan Documents cannot list its operations" in done.stderr
