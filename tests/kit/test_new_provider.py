"""`taskbridge new-provider`: the written provider works as it is, under any valid name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from taskbridge._config.registry import distribution_name
from taskbridge.errors import InvalidInput
from taskbridge.scaffold import DEPENDENCY, TEMPLATE, Names, new_provider

from .conftest import Plugin, project

pytestmark = pytest.mark.slow

TEMPLATE_FOLDER = Path(__file__).parents[2] / "taskbridge" / "scaffold" / "template"


def files_of(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_the_written_provider_passes_its_own_tests(on_the_path: Callable[[Path], Plugin], tmp_path: Path) -> None:
    folder = new_provider("paper-mill-2", tmp_path)
    summary = on_the_path(folder).test("-W", "error", "-p", "no:cacheprovider")
    assert " passed" in summary
    assert "failed" not in summary
    assert "skipped" not in summary


@pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed here")
def test_the_written_provider_passes_a_linter(tmp_path: Path) -> None:
    folder = new_provider("zed", tmp_path)
    line = (sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "120", "--select", "E,F,I,B,UP", ".")
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout


def test_under_its_own_name_the_template_is_written_unchanged(tmp_path: Path) -> None:
    template = {path: text.replace(DEPENDENCY, distribution_name()) for path, text in files_of(TEMPLATE_FOLDER).items()}
    assert files_of(new_provider(TEMPLATE.entry, tmp_path)) == template


def test_the_written_provider_depends_on_the_installed_distribution(tmp_path: Path) -> None:
    about = project(new_provider("zed", tmp_path))
    assert about["dependencies"] == [distribution_name()]
    assert f"{distribution_name()}[emulator]" in about["optional-dependencies"]["test"]


def test_no_name_of_the_template_remains(tmp_path: Path) -> None:
    written = files_of(new_provider("zed", tmp_path))
    assert {"pyproject.toml", "README.md", "taskbridge_zed/py.typed", "tests/test_zed.py"} <= written.keys()
    assert [path for path, text in written.items() if "acme" in f"{path}{text}".lower()] == []
    assert 'zed = "taskbridge_zed:Zed"' in written["pyproject.toml"]


def test_a_name_has_several_spellings() -> None:
    names = Names("paper-mill-2")
    assert (names.distribution, names.package) == ("taskbridge-paper-mill-2", "taskbridge_paper_mill_2")
    assert (names.title, names.kind) == ("Paper Mill 2", "PaperMill2")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Acme Docs", "'acme-docs' would do"),
        ("AcmeDocs", "'acme-docs' would do"),
        ("acme_docs", "'acme-docs' would do"),
        ("taskbridge-acme", "'acme' would do"),
        ("taskbridge", "name only the vendor"),
        ("", "is not a valid provider name"),
        ("9lives", "a letter first"),
        ("a--b", "'a-b' would do"),
        ("../up", "'up' would do"),
        ("é", "is not a valid provider name"),
        ("x" * 41, "40 characters at most"),
        ("class", "such as 'class-docs'"),
        ("none", "such as 'none-docs'"),
        ("task", "such as 'task-docs'"),
        ("taken", "is installed already"),
        ("two\nlines", "'two-lines' would do"),
    ],
)
def test_an_invalid_name_is_rejected_and_nothing_is_written(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        new_provider(name, tmp_path, frozenset({"taken"}))
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "taskbridge-zed").mkdir()
    with pytest.raises(InvalidInput, match="exists already"):
        new_provider("zed", tmp_path)
    assert list((tmp_path / "taskbridge-zed").iterdir()) == []
    with pytest.raises(InvalidInput, match="there is no folder"):
        new_provider("zed", tmp_path / "nowhere")


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = (sys.executable, "-m", "taskbridge", "new-provider", *arguments)
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=cwd)


def test_the_command_prints_the_next_three_steps(tmp_path: Path) -> None:
    done = command("zed", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, head, *steps = done.stdout.splitlines()
    assert first.startswith("wrote taskbridge-zed: ")
    assert head == "next:"
    assert [step.strip()[:2] for step in steps] == ["1.", "2.", "3."]
    assert "cd taskbridge-zed && pip install -e '.[test]' && python -m pytest" in steps[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cloudconvert"], "a provider 'cloudconvert' is installed already"),
        (["Zed"], "'zed' would do"),
        (["zed", "--to", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_the_command_reports_errors_in_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("taskbridge: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
