"""Runs plugins that are not installed: their folder and their metadata are put on the path of another process."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

GROUPS = ("taskbridge.providers", "taskbridge.emulators")


@dataclass(frozen=True)
class Plugin:
    """A distribution's folder, and an environment in which it counts as installed."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str) -> str:
        """Run the interpreter in the folder; return its output."""
        command = (sys.executable, *arguments)
        ran = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def test(self, *arguments: str) -> str:
        """Run its own tests with its own settings; return pytest's last line."""
        return self.run("-m", "pytest", "-q", *arguments).splitlines()[-1]


def project(folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return about


@pytest.fixture
def on_the_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Plugin]:
    """Writes the metadata that an installation would write."""

    def put(folder: Path) -> Plugin:
        about, site = project(folder), tmp_path_factory.mktemp("site")
        info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
        info.mkdir()
        head = f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
        (info / "METADATA").write_text(head, encoding="utf-8")
        points = [f"[{g}]\n" + "".join(f"{k} = {v}\n" for k, v in about["entry-points"][g].items()) for g in GROUPS]
        (info / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
        path = os.pathsep.join((str(site), str(folder)))
        return Plugin(folder, {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"})

    return put
