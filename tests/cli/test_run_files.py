"""How many source files `taskbridge run` enters for one document, from the command line down to the socket."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from taskbridge.emulator.export import config_toml
from taskbridge.testing import Emulator

ROOT: Final = Path(__file__).resolve().parents[2]
LIMIT: Final = 30  # files in all
COMMAND_LINE: Final = 10  # files of taskbridge/cli

# Runs the command in a process of its own, away from the emulator, and prints the files whose functions it entered.
COUNT: Final = """
import json, sys, threading
from taskbridge.cli import main

entered = set()

def profile(frame, event, _):
    if event == "call" and frame.f_code.co_flags & 1:  # CO_OPTIMIZED: a function, not the body of a module or class
        entered.add(frame.f_code.co_filename)

threading.setprofile(profile)
sys.setprofile(profile)
code = main(sys.argv[1:])
sys.setprofile(None)
print(json.dumps([code, sorted(entered)]))
"""


def entered_files(*words: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", COUNT, *words], capture_output=True, text=True, check=True, timeout=60)
    code, names = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    paths = [Path(name) for name in names if name.startswith(str(ROOT))]
    return sorted(
        str(path.relative_to(ROOT))
        for path in paths
        if path.relative_to(ROOT).parts[0] in {"taskbridge", "providers"} and "emulator" not in path.as_posix()
    )


@pytest.fixture
def files(own_vendors: Emulator, tmp_path: Path) -> list[str]:
    config, document = tmp_path / "taskbridge.toml", tmp_path / "a.pdf"
    config.write_text(config_toml(own_vendors).replace('provider = "', 'poll.interval = 0.05\nprovider = "'), "utf-8")
    document.write_bytes(b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n")
    words = ("run", "extract-text", str(document), "--to", str(tmp_path / "out"), "--connection", "cloudconvert")
    entered = entered_files(*words, "--config", str(config))
    assert (tmp_path / "out" / "a.pdf" / "a.txt").exists()
    return entered


def test_a_run_of_one_document_enters_few_files_of_the_command_line(files: list[str]) -> None:
    ours = [name for name in files if name.startswith("taskbridge/cli/")]
    assert len(ours) <= COMMAND_LINE, "\n".join(ours)


@pytest.mark.xfail(reason="submit, polls and downloads enter more than twenty files of the library")
def test_a_run_of_one_document_enters_few_files(files: list[str]) -> None:
    assert len(files) <= LIMIT, "\n".join(files)
