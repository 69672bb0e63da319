"""The wheel that users install, in a clean environment, with a third party's plugin."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from taskbridge.testing import Emulator

from .floors import NAME

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.name for path in (ROOT / "providers").glob("taskbridge_*") if path.is_dir())
BUILTIN = ["cloudconvert", "expertai-extract", "scan-documents", "smartdocumentor"]

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path | None = None) -> str:
    ran = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{command[0]} failed:\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def uv() -> str | None:
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.exists() else shutil.which("uv")


def has(module: str) -> bool:
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def build(source: Path, target: Path) -> Path:
    """Build a wheel with hatchling, uv or pip, whichever is installed."""
    if has("hatchling.build"):
        code = f"from hatchling.build import build_wheel; build_wheel({str(target)!r})"
        run(sys.executable, "-c", code, cwd=source)
    elif (tool := uv()) is not None:
        run(tool, "build", "--wheel", "--out-dir", target, source)
    else:
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, source)
    [wheel] = target.glob("*.whl")
    return wheel


def environment(folder: Path) -> Path:
    """Create an empty virtual environment; return its interpreter."""
    tool = uv()
    if tool is not None:
        run(tool, "venv", "--quiet", "--python", sys.executable, folder)
    else:
        run(sys.executable, "-m", "venv", folder)
    return folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def install(python: Path, *what: str | Path) -> None:
    tool = uv()
    if tool is not None:
        run(tool, "pip", "install", "--quiet", "--python", python, *what)
    else:
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of a clean environment with the wheel installed."""
    interpreter = environment(tmp_path_factory.mktemp("user") / "venv")
    install(interpreter, wheel)
    return interpreter


def test_the_wheel_contains_every_package_with_its_types(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    for package in ("taskbridge", *FOLDERS):
        assert f"{package}/__init__.py" in names
        assert f"{package}/py.typed" in names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"taskbridge", *FOLDERS}
    assert not any("__pycache__" in name for name in names)


def test_the_wheel_contains_the_license_and_the_entry_points(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        points = archive.read(next(name for name in names if name.endswith("/entry_points.txt"))).decode()
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    for name in BUILTIN:
        assert points.count(f"{name} = taskbridge_") == 2  # a provider and an emulator


def test_a_clean_environment_lists_every_provider(python: Path, tmp_path: Path) -> None:
    code = "import taskbridge as tb; print(*[(i.name, i.problem, i.builtin) for i in tb.providers()], sep='\\n')"
    listed = run(python, "-I", "-c", code, cwd=tmp_path).splitlines()
    assert listed == [str((name, None, True)) for name in BUILTIN]


def test_a_clean_environment_says_which_extra_is_missing(python: Path, tmp_path: Path) -> None:
    for code, extra in (
        ("import taskbridge as tb; tb.connect('cloudconvert', api_key='k', transport='curl')", f"{NAME}[curl]"),
        (
            "from taskbridge.testing import Emulator",
            f"needs starlette; install it with: pip install '{NAME}[emulator]'",
        ),
        ("import taskbridge.otel", f"{NAME}[otel]"),
        ("import taskbridge as tb; tb.Store('a.db')", f"{NAME}[store]"),
    ):
        ran = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert ran.returncode == 1
        assert extra in ran.stderr


def test_modules_run_isolated_from_the_tree(python: Path) -> None:
    code = "import taskbridge, taskbridge_cloudconvert; print(taskbridge.__file__, taskbridge_cloudconvert.__file__)"
    found = run(python, "-I", "-c", code, cwd=ROOT).split()
    assert all(Path(each).is_relative_to(python.parents[1]) for each in found)
    listing = run(python, "-Im", "pip", "--version", cwd=ROOT) if uv() is None else "no pip with uv"
    assert listing


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third party's plugin, built by following `providers/README.md`."""
    recipe = (ROOT / "providers" / "README.md").read_text(encoding="utf-8")
    project = re.search(r"```toml\n(.*?)```", recipe, re.DOTALL)
    assert project is not None
    source = tmp_path_factory.mktemp("acme")
    template = ROOT / "providers" / "taskbridge_scan_documents"
    folder = source / "taskbridge_acme"
    shutil.copytree(template, folder, ignore=shutil.ignore_patterns("emulator*", "__pycache__"))
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        text = text.replace("ScanDocuments", "Acme").replace('name = "scan-documents"', 'name = "acme"')
        path.write_text(text.replace('title = "Scan Documents"', 'title = "Acme"'), encoding="utf-8")
    lines = [line.removeprefix("   ") for line in project[1].splitlines()]
    (source / "pyproject.toml").write_text("\n".join(lines), encoding="utf-8")
    assert len([line for line in lines if line]) <= 12
    return build(source, tmp_path_factory.mktemp("acme-dist"))


USER = """
import json, sys
import taskbridge as tb
listed = [(i.name, i.distribution, i.builtin, i.problem) for i in tb.providers() if i.name == "acme"]
settings, task_id = json.loads(sys.argv[1]), sys.argv[2]
with tb.connect("acme", **settings) as client:
    task = client.wait(task_id)
    result = client.result(task)
print(json.dumps([listed, task.provider, task.ref, task.status, len(result.files)]))
"""


def test_a_third_partys_plugin_works_beside_the_wheel(python: Path, plugin: Path, tmp_path: Path) -> None:
    install(python, plugin)
    with Emulator("scan-documents") as emulator:
        task_id = emulator.samples()["completed"]
        output = run(python, "-I", "-c", USER, json.dumps(emulator.settings()), task_id, cwd=tmp_path)
    assert json.loads(output) == [
        [["acme", "taskbridge-acme", False, None]],
        "acme",
        f"acme:{task_id}",
        "completed",
        1,
    ]


def test_a_new_provider_passes_its_tests_in_a_clean_environment(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("author")
    interpreter = environment(place / "venv")
    install(interpreter, f"{NAME}[cli] @ {wheel.as_uri()}")
    output = run(interpreter, "-Im", "taskbridge", "new-provider", "paper-mill", cwd=place)
    assert output.startswith("wrote taskbridge-paper-mill: ")
    folder = place / "taskbridge-paper-mill"
    install(interpreter, "--editable", f"{folder}[test]")
    passed = run(interpreter, "-m", "pytest", "-q", cwd=folder).splitlines()[-1]
    assert " passed" in passed
    assert "skipped" not in passed
    listed = run(interpreter, "-Im", "taskbridge", "providers", "--json", cwd=place)
    assert '"name": "paper-mill"' in listed or '"paper-mill"' in listed
