from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from taskbridge.testing import Emulator

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "docs" / "examples" / "extract_text.py"


class Documents(Protocol):
    url: str


# Connection -> the end of what the program prints.
EXPECTED = {
    "cloudconvert": "Text of invoice.png\n\n",
    "scan-documents": "This is the extracted text content\n",
    "smartdocumentor": "}\n",  # its export data is no text
    "expertai-extract": "test1\n",
}


def test_the_program_is_short_and_names_no_vendor() -> None:
    lines = PROGRAM.read_text().splitlines()
    assert len(lines) <= 40
    code = "\n".join(lines).partition('"""\n\nfrom')[2].lower()
    assert not any(word in code for word in ("cloudconvert", "scan", "smartdocumentor", "expert"))


@pytest.mark.parametrize("connection", EXPECTED)
def test_one_program_takes_a_document_through_every_vendor(
    connection: str, own_vendors: Emulator, documents: Documents, tmp_path: Path
) -> None:
    tables: list[str] = []
    for name in EXPECTED:
        settings = "".join(f'{key} = "{value}"\n' for key, value in own_vendors.settings(name).items())
        common = f'provider = "{name}"\nallow_private = true\npoll.interval = 0.05\n'
        tables.append(f"[connections.{name}]\n{common}{settings}")
    config = tmp_path / "taskbridge.toml"
    config.write_text("\n".join(tables))
    document = "invoice.pdf" if connection == "expertai-extract" else "invoice.png"
    run = subprocess.run(
        [sys.executable, PROGRAM, connection, f"{documents.url}/{document}"],
        env={"TASKBRIDGE_CONFIG": str(config), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith(EXPECTED[connection]), run.stdout
    assert f"{connection}:" in run.stderr
