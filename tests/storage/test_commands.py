"""The command line with storages: inputs, a stage, and targets of downloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskbridge.cli import main
from taskbridge.emulator.export import config_toml
from taskbridge.testing import Emulator

from .conftest import PDF, PNG, Bucket

pytestmark = pytest.mark.slow


def test_run_and_download_use_storages(
    bucket: Bucket, own_vendors: Emulator, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path = tmp_path_factory.mktemp("commands")  # the vendor's result repeats the link, which is dead by then
    own_vendors.clock.speed = 500
    config = tmp_path / "taskbridge.toml"
    staged = f'stage = "{bucket.url}/stage"\npoll.interval = 0.05\nprovider = "smartdocumentor"'
    config.write_text(config_toml(own_vendors).replace('provider = "smartdocumentor"', staged), encoding="utf-8")
    config.chmod(0o600)
    url, document, out = bucket.put("inbox/page.png", PNG), tmp_path / "a.pdf", tmp_path / "out"
    document.write_bytes(PDF)

    def call(*words: str) -> str:
        code = main([*words, "--config", str(config)])
        printed = capsys.readouterr()
        return f"{code} {printed.out}{printed.err}"

    scans, contracts = ("--connection", "scan-documents"), ("--connection", "smartdocumentor")
    assert call("run", "extract-text", url, "--to", str(out / "scans"), *scans).startswith("0 ")
    assert [path.name for path in (out / "scans" / "page.png").iterdir()] != []
    assert call("run", "extract-text", str(document), "--to", str(out / "contracts"), *contracts).startswith("0 ")
    assert bucket.keys == ["inbox/page.png"]
    ref = f"scan-documents:{own_vendors.samples('scan-documents')['completed']}"
    assert call("download", ref, "--to", f"{bucket.url}/results").startswith(f"0 {bucket.url}/results/")
    assert len(bucket.keys) == 2
    assert "already exists; --force overwrites it" in call("download", ref, "--to", f"{bucket.url}/results")
    refused = call("run", "extract-text", url, "--to", f"{bucket.url}/out", *scans)
    assert "--to is a local folder" in refused
    assert not Path("s3:").exists()
