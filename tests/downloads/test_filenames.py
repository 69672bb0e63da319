"""Third-party file names made safe."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge._engine.filenames import UniqueNames, file_name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("report.pdf", "report.pdf"),
        ("Rechnung für März.pdf", "Rechnung für März.pdf"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("C:\\Windows\\win.ini", "win.ini"),
        ("C:evil.txt", "C_evil.txt"),
        ("a.txt:stream", "a.txt_stream"),
        ("..", "document"),
        (".", "document"),
        ("", "document"),
        (None, "document"),
        ("   ", "document"),
        ("\x00\x01", "document"),
        (".bashrc", "bashrc"),
        ("name. . .", "name"),
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("NUL.tar.gz", "_NUL.tar.gz"),
        ("Com1", "_Com1"),
        ("LPT¹.txt", "_LPT¹.txt"),
        ("aux .pdf", "_aux .pdf"),
        ("console.log", "console.log"),
        ("a\r\nb.pdf", "a__b.pdf"),
        ("a\x1b[31m.pdf", "a_[31m.pdf"),
        ("invoice\u202efdp.exe", "invoice_fdp.exe"),
        ("a\u200bb\ufeff.pdf", "a_b_.pdf"),
        ("a\u2028b.pdf", "a_b.pdf"),
        ("a\ud800.pdf", "a_.pdf"),
        ("a\U000e0041.pdf", "a_.pdf"),
        ('what? "<yes>"|*.pdf', "what_ __yes____.pdf"),
        ("cafe\u0301.pdf", "café.pdf"),
    ],
)
def test_a_name_is_made_safe(given: str | None, name: str) -> None:
    assert file_name(given) == name


@pytest.mark.parametrize(
    ("given", "media_type", "name"),
    [
        ("Example Image", "image/png", "Example Image.png"),
        ("Report v1.2", "application/pdf; charset=binary", "Report v1.2.pdf"),
        ("scan.jpeg", "image/png", "scan.jpeg"),
        ("blob", "application/octet-stream", "blob"),
        ("blob", "x-unknown/type", "blob"),
        (None, "text/html", "document.html"),
    ],
)
def test_a_name_without_a_known_suffix_gets_one_from_the_media_type(
    given: str | None, media_type: str, name: str
) -> None:
    assert file_name(given, media_type) == name


def test_a_long_name_keeps_its_suffix() -> None:
    assert file_name("ä" * 5_000 + ".pdf") == "ä" * 98 + ".pdf"
    assert len(file_name("x" * 10_000 + "." + "y" * 10_000)) == 200


@given(st.text(st.characters(codec=None), max_size=400), st.sampled_from([None, "application/pdf", "image/png", "?"]))
def test_any_name_becomes_a_plain_name_in_the_folder(text: str, media_type: str | None) -> None:
    name = file_name(text, media_type)
    assert Path(name).name == name
    assert name not in ("", ".", "..")
    assert not set(name) & set('/\\:*?"<>|\0')
    assert 0 < len(name.encode()) <= 220
    assert all(unicodedata.category(c)[0] != "C" for c in name)
    assert not name.startswith((".", " "))
    assert os.path.normpath(name) == name
    assert file_name(name, media_type) == name


@given(st.lists(st.sampled_from(["a.pdf", "A.PDF", "a-2.pdf", "b", "ß.txt", "SS.txt"]), max_size=12))
def test_no_two_files_have_the_same_name(wanted: list[str]) -> None:
    names = UniqueNames()
    given = [names.take(each) for each in wanted]
    assert len({each.casefold() for each in given}) == len(wanted)


def test_the_second_file_of_a_name_gets_a_number() -> None:
    names = UniqueNames()
    assert [names.take(each) for each in ("a.pdf", "a.pdf", "A.pdf", "b", "b")] == [
        "a.pdf",
        "a-2.pdf",
        "A-3.pdf",
        "b",
        "b-2",
    ]
