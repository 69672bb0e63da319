"""Targets of a download: folders, names, existing files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import taskbridge as tb

Maker = Callable[..., Any]


@pytest.mark.parametrize("vendor", ["cloudconvert", "scan-documents"])
def test_all_files_of_a_task_are_downloaded(vendor: str, both: Maker, tmp_path: Path) -> None:
    client = both(vendor)
    task = client.finished_task()
    paths = client.download(task.ref, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [file.name for file in task.result.files]
    assert [path.stat().st_size for path in paths] == [file.size for file in task.result.files]
    assert sorted((tmp_path / "new" / "folder").iterdir()) == sorted(paths)


def test_a_file_can_be_saved_in_a_folder_or_under_a_name(both: Maker, tmp_path: Path) -> None:
    client = both("scan-documents")
    file = client.finished_task().result.files[0]
    assert client.download(file, tmp_path) == tmp_path / "document.png"
    assert client.download(file, f"{tmp_path}/new/") == tmp_path / "new" / "document.png"
    assert client.download(file, tmp_path / "mine") == tmp_path / "mine"
    assert len({path.read_bytes() for path in (tmp_path / "document.png", tmp_path / "mine")}) == 1


def test_an_existing_file_is_kept_unless_overwrite_is_set(both: Maker, tmp_path: Path) -> None:
    client = both("cloudconvert")
    task = client.finished_task()
    name = task.result.files[0].name
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=name):
        client.download(task, tmp_path)
    with pytest.raises(FileExistsError, match=name):
        client.download(task.result.files[0], tmp_path / name)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    (path,) = client.download(task, tmp_path, overwrite=True)
    assert path.stat().st_size == task.result.files[0].size


def test_a_downloaded_file_has_default_permissions(both: Maker, tmp_path: Path) -> None:
    client = both("scan-documents")
    (path,) = client.download(client.finished_task(), tmp_path)
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("case", ["missing folder", "a folder", "a file for a folder"])
def test_an_impossible_target_is_refused_before_anything_is_sent(
    case: str, both: Maker, tmp_path: Path, own_vendors: Any
) -> None:
    client = both("scan-documents")
    task = client.finished_task()
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "document.png").mkdir(parents=True)
    what, to, error = {
        "missing folder": (task.result.files[0], tmp_path / "none" / "a.png", NotADirectoryError),
        "a folder": (task, tmp_path / "folder", IsADirectoryError),
        "a file for a folder": (task, tmp_path / "file", FileExistsError),
    }[case]
    with pytest.raises(error) as caught:
        client.download(what, to)
    assert caught.value.filename is not None
    assert own_vendors.count("scan-documents", "GET", "download") == 0


@pytest.mark.parametrize(
    "wrong",
    [{"to": 7}, {"to": b"folder"}, {"to": "x", "max_bytes": -1}],
    ids=["a number", "bytes", "a negative limit"],
)
def test_invalid_arguments_are_refused(wrong: dict[str, Any], both: Maker) -> None:
    with pytest.raises(tb.InvalidInput):
        both("scan-documents").download("task_1", **wrong)


def test_a_bridge_downloads_by_ref_and_a_file_through_its_connection(
    own_vendors: Any, tmp_path: Path, png: bytes
) -> None:
    config = tmp_path / "taskbridge.toml"
    lines = [f'{key} = "{value}"' for key, value in own_vendors.settings("scan-documents").items()]
    config.write_text("\n".join(["[connections.scans]", 'provider = "scan-documents"', *lines]))
    os.chmod(config, 0o600)  # noqa: PTH101  # it contains a key
    own_vendors.clock.speed = 2000
    with tb.Bridge.from_config(config) as bridge:
        task = bridge.wait(bridge.submit("scans", "convert", png, options={"target_format": "image/png"}))
        (path,) = bridge.download(task.ref, tmp_path / "out")
        assert task.result is not None
        file = task.result.files[0]
        with pytest.raises(tb.InvalidInput, match="bridge"):
            bridge.download(file, tmp_path)  # type: ignore[call-overload]
        assert bridge["scans"].download(file, tmp_path / "again.png").read_bytes() == path.read_bytes()
