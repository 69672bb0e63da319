"""What the pages show type-checks for a user: every Python block, against the wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest

from .test_code_blocks import ALL, ROOT

pytestmark = pytest.mark.slow

# Stubs that a user of these frameworks installs.
STUBS: Final = ("celery-stubs", "django-stubs", "pandas-stubs")


def programs() -> Mapping[str, str]:
    """Return the Python blocks: a file for each page and each file of an application, with the lines of the page."""
    files: dict[str, str] = {}
    for block in ALL:
        if block.language == "python" and block.reason is None:
            page = re.sub(r"\W", "_", str(block.page.relative_to(ROOT).with_suffix("")))
            name = f"{page}/{block.file}" if block.file else f"{page}.py"
            before = files.get(name, "")
            files[name] = before + "\n" * (block.line - 1 - before.count("\n")) + block.code
    return files


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which finds everything else in the present one."""
    folder = tmp_path_factory.mktemp("types")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    built = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    with ZipFile(folder / built.stdout.split()[-1]) as wheel:
        wheel.extractall(packages)
    (Path(packages) / "others.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    return python


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("programs")
    for name, text in programs().items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "typing" / "api.py", place / "api.py")  # the whole public interface
    (place / "wrong.py").write_text("import taskbridge as tb\ntb.connect('a').get('t1').status.nonsense\n")
    return place


def errors(*command: str | Path, cwd: Path, **variables: str) -> list[str]:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **variables}, check=False, capture_output=True, text=True, timeout=900
    )
    assert done.stderr == ""
    return [line.replace(f"{cwd}/", "").strip() for line in done.stdout.splitlines() if " error: " in line]


def test_the_blocks_pass_mypy(interpreter: Path, folder: Path) -> None:
    assert [name for name in STUBS if not any((Path(each) / name).exists() for each in site.getsitepackages())] == []
    found = errors(
        sys.executable, "-m", "mypy", "--strict", "--explicit-package-bases", "--python-executable", interpreter,
        "--cache-dir", folder / ".cache", ".", cwd=folder, MYPYPATH="docs_testing",
    )  # fmt: skip
    assert found == ['wrong.py:2: error: "TaskStatus" has no attribute "nonsense"  [attr-defined]']


def test_the_blocks_pass_pyright(interpreter: Path, folder: Path) -> None:
    settings = {"typeCheckingMode": "standard", "exclude": ["**/.*"], "executionEnvironments": [
        {"root": "docs_testing"}, {"root": "."},
    ]}  # fmt: skip
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    found = errors(sys.executable, "-m", "pyright", "--pythonpath", interpreter, cwd=folder)
    assert [re.sub(r":\d+:.*", "", line) for line in found] == ["wrong.py"], "\n".join(found)
