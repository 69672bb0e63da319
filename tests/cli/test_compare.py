"""`compare`: the same documents at two emulated vendors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from taskbridge.testing import ScriptedVendor

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(64)
RunHere = Callable[..., CompletedProcess[str]]


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[str]]:
    def make(*names: str) -> list[str]:
        for name in names:
            (tmp_path / name).write_bytes(IMAGE)
        return [str(tmp_path / name) for name in names]

    return make


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[tuple[ScriptedVendor, str]]:
    """Two connections to one scripted vendor, and the configuration that has them."""
    path = tmp_path / "two.toml"
    path.write_text('[connections.old]\nprovider = "scripted"\n[connections.new]\nprovider = "scripted"\n')
    with ScriptedVendor() as vendor:
        yield vendor, str(path)


def test_two_emulated_vendors_side_by_side(run_here: RunHere, files: Callable[..., list[str]]) -> None:
    done = run_here("compare", "cloudconvert", "scan-documents", *files("page.png", "fail.png"))
    assert done.returncode == 1  # a task failed
    page, fail, *_ = done.stdout.split("\n\n")
    assert page.startswith("page.png: different\n")
    assert "path     waiting > processing > finished" in page
    assert "% of the words are the same and in the same order" in page
    assert "  words    " in page
    assert "-Text of page.png" in page
    assert "+This is the extracted text content" in page
    assert fail.startswith("fail.png: neither\n")
    assert "2 documents: 1 different, 1 neither" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_both_vendors_get_the_same_neutral_options(run_here: RunHere, files: Callable[..., list[str]]) -> None:
    words = ("--operation", "convert", "--set", "to=jpg", "--json")
    done = run_here("compare", "cloudconvert", "scan-documents", *files("page.png"), *words)
    one, _ = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 0
    assert one["a"]["result"]["files"][0]["name"] == "page.jpg"
    assert one["b"]["result"]["files"][0]["media_type"] == "image/jpeg"


def test_the_same_in_json(run_here: RunHere, files: Callable[..., list[str]]) -> None:
    done = run_here("compare", "cloudconvert", "smartdocumentor", *files("page.png"), "--json")
    one, summary = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 2  # SmartDocumentor takes no path, and nothing is sent to it
    assert (one["document"], one["verdict"]) == ("page.png", "only cloudconvert")
    assert one["a"]["path"][-1] == "finished"
    assert one["a"]["result"]["text"] == len("Text of page.png\n")
    assert one["b"]["error"]["type"] == "UnsupportedFeature"
    assert summary["verdicts"] == {"only cloudconvert": 1}


def test_durations_paths_and_texts(
    run_here: RunHere, files: Callable[..., list[str]], scripted: tuple[ScriptedVendor, str]
) -> None:
    vendor, config = scripted
    vendor.plan_next({0: "pending", 60: "completed"}, text="Total: 12 EUR\nThank you")
    vendor.plan_next({0: "pending", 10: "processing", 600: "completed"}, text="Total: 12 EUR\nThank me")
    done = run_here("compare", "old", "new", *files("a.pdf"), "--config", config, "--json")
    one, summary = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 0
    assert one["a"]["path"] == ["pending", "completed"]
    assert one["b"]["path"] == ["pending", "processing", "completed"]
    assert 60 <= one["a"]["seconds"] < 70
    assert 600 <= one["b"]["seconds"] < 660
    assert one["text"]["similarity"] == 0.8
    assert one["text"]["words"] == {"a": 5, "b": 5, "common": 4, "share": 0.6667}
    assert one["fields"] is None
    assert one["text"]["diff"][-2:] == ["-Thank you", "+Thank me"]
    assert summary["median_seconds"] == {"old": one["a"]["seconds"], "new": one["b"]["seconds"]}


def test_fields_and_pages(
    run_here: RunHere, files: Callable[..., list[str]], scripted: tuple[ScriptedVendor, str]
) -> None:
    vendor, config = scripted
    old = [
        {"name": "total", "text": "12.50", "value": 12.5},
        {"name": "seller", "text": "The  Shop"},
        {"name": "date", "text": "1 May"},
        {"name": "paid", "value": True},
        {"text": "without a name"},
    ]
    new = [
        {"name": "total", "value": 12.5},
        {"name": "seller", "text": "The\nShop"},
        {"name": "date", "text": "1 May"},
        {"name": "date", "text": "2 May"},
        {"name": "iban", "text": None},
    ]
    for _ in range(2):
        vendor.plan_next({0: "completed"}, fields=old, pages=[{"number": 1}, {"number": 2}])
        vendor.plan_next({0: "completed"}, fields=new, pages=[{"number": 1}])
    arguments = ("compare", "old", "new", *files("a.pdf"), "--config", config)
    one, _ = (json.loads(line) for line in run_here(*arguments, "--json").stdout.splitlines())
    expected = {"same": ["total", "seller"], "different": ["date"], "only_a": ["paid"], "only_b": ["iban"]}
    assert (one["fields"], one["verdict"]) == (expected, "different")
    assert [(one[side]["result"]["pages"], one[side]["result"]["fields"]) for side in "ab"] == [(2, 5), (1, 5)]
    shown = run_here(*arguments).stdout
    assert "  fields   2 the same, 1 different, 1 only in A, 1 only in B\n    different: date\n" in shown
    assert "2 pages, 5 fields" in shown


def test_a_result_that_cannot_be_read_is_an_error_of_its_side(
    run_here: RunHere, files: Callable[..., list[str]], scripted: tuple[ScriptedVendor, str]
) -> None:
    vendor, config = scripted
    vendor.plan_next({0: "completed"}, fields=[{"name": 7}])
    vendor.plan_next({0: "completed"}, text="Total")
    done = run_here("compare", "old", "new", *files("a.pdf"), "--config", config)
    assert (done.returncode, done.stdout.splitlines()[0]) == (2, "a.pdf: only new")
    assert "old: DocumentField.from_dict: name: Input should be a valid string" in done.stdout


def test_equal_results_are_the_same(
    run_here: RunHere, files: Callable[..., list[str]], scripted: tuple[ScriptedVendor, str]
) -> None:
    vendor, config = scripted
    for _ in range(2):
        vendor.plan_next({0: "completed"}, text="Total")
    done = run_here("compare", "old", "new", *files("a.pdf"), "--config", config)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "a.pdf: same")


def test_a_wait_that_times_out_is_reported(
    run_here: RunHere, files: Callable[..., list[str]], scripted: tuple[ScriptedVendor, str]
) -> None:
    vendor, config = scripted
    vendor.plan_next({0: "completed"}, text="Total")
    vendor.plan_next({0: "processing"})
    done = run_here("compare", "old", "new", *files("a.pdf"), "--config", config, "--timeout", "60")
    assert done.returncode == 3
    assert "a.pdf: only old" in done.stdout
    assert "WaitTimeout" in done.stdout


def test_nothing_is_sent_for_a_missing_file_or_one_connection(run_here: RunHere, tmp_path: Path) -> None:
    missing = run_here("compare", "cloudconvert", "scan-documents", str(tmp_path / "none.pdf"))
    twice = run_here("compare", "cloudconvert", "cloudconvert", __file__)
    assert (missing.returncode, twice.returncode) == (2, 2)
    assert "there is no file" in missing.stderr
    assert "not with itself" in twice.stderr
