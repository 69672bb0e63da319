"""A release: the same bytes each time, complete metadata, and instructions that install this project."""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .floors import NAME

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = (*sorted(ROOT.glob("*.md")), ROOT / "providers" / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
EXTRAS: Final = frozenset(
    tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
)
RELATIVE_LINK: Final = re.compile(r"\]\((?!https?://|#|mailto:)")
HOME: Final = "https://code.example/documents/taskbridge"

pytestmark = pytest.mark.slow


def build(source: Path, target: Path, kind: str, url: str = "") -> Path:
    """Build a wheel or an sdist."""
    code = f"from hatchling.build import build_{kind}; build_{kind}({str(target)!r})"
    variables = {**os.environ, "PROJECT_URL": url}
    variables.pop("SOURCE_DATE_EPOCH", None)
    target.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist", HOME)


def unpacked(sdist: Path, folder: Path) -> Path:
    """The tree of an sdist; its files are newer than those of the repository, and others may not read them."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    for path in tree.rglob("*"):
        if path.is_file():
            os.utime(path, (2_000_000_000, 2_000_000_000))
            path.chmod(path.stat().st_mode & 0o700)
    return tree


def test_the_same_sources_make_the_same_bytes(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("again")  # not tmp_path: the sources contain the fake keys of other tests
    tree = unpacked(sdist, place / "elsewhere")
    first = build(ROOT, place / "one", "wheel", HOME)
    assert build(tree, place / "two", "wheel").read_bytes() == first.read_bytes()
    assert build(tree, place / "three", "sdist").read_bytes() == sdist.read_bytes()


def metadata(sdist: Path) -> Message:
    with tarfile.open(sdist) as archive:
        found = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert found is not None
        return email.message_from_bytes(found.read())


def test_the_metadata_leads_to_the_released_files(sdist: Path) -> None:
    fields = metadata(sdist)
    files = f"{HOME}/blob/v{fields['Version']}"
    urls = dict(each.split(", ") for each in fields.get_all("Project-URL", []))
    assert urls == {
        "Repository": HOME,
        "Documentation": f"{files}/docs/index.md",
        "Changelog": f"{files}/CHANGELOG.md",
        "Issues": f"{HOME}/issues",
    }
    assert (fields["License-Expression"], fields["Author"]) == ("MIT", "the taskbridge authors")
    description = str(fields.get_payload())
    assert not RELATIVE_LINK.search(description)
    linked = re.findall(rf"\]\({re.escape(files)}/([^)#]+)", description)
    assert len(linked) > 20
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_without_an_address_the_description_has_no_link_to_a_file(tmp_path: Path) -> None:
    fields = metadata(build(ROOT, tmp_path / "dist", "sdist"))
    assert fields.get_all("Project-URL") is None
    assert not RELATIVE_LINK.search(str(fields.get_payload()))


def test_an_address_with_a_credential_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="PROJECT_URL must be an https address"):
        build(ROOT, tmp_path / "dist", "sdist", "https://user:word@code.example/x")


# The instructions for users.

LINE: Final = re.compile(r"(?:pip3? install|uv (?:pip install|add|tool install)|pipx install) +([^`#|&\n]+)")
CHECKOUT: Final = re.compile(r"(?:\.|/path/to/checkout)(?:\[([\w,]+)\])?")
OWN_PLUGIN: Final = re.compile(r"-e \.(?:\[test\])?|/path/to/checkout/integrations/[\w-]+")  # a folder of its own


def arguments() -> Iterator[tuple[Path, str]]:
    """Yield what each instruction installs, with its page."""
    for page in PAGES:
        for found in LINE.finditer(page.read_text(encoding="utf-8")):
            yield page, re.sub(r"[\"']", "", found[1]).strip()


def test_every_instruction_installs_this_project() -> None:
    seen: dict[Path, list[str]] = {}
    for page, argument in arguments():
        before = seen.setdefault(page, [])
        checkout = CHECKOUT.fullmatch(argument)
        if OWN_PLUGIN.fullmatch(argument):
            # A plugin requires this project, which pip would get from the index.
            assert before or "Install taskbridge from its checkout" in page.read_text(encoding="utf-8"), page
            continue
        if checkout:
            extras = set((checkout[1] or "").split(",")) - {""}
        else:
            requirement = Requirement(argument)
            assert canonicalize_name(requirement.name) == canonicalize_name(NAME), f"{page}: {argument}"
            # Nothing is released: without an address, the line has to be for an environment that has this project.
            assert requirement.url or page.name == "mistakes.md", f"{page}: {argument}"
            extras = requirement.extras
        assert extras <= EXTRAS, f"{page}: {argument}"
        before.append(argument)
    assert len(seen) >= 8


def test_pip_takes_this_project_for_a_checkout_and_for_its_name(wheel: Path) -> None:
    for argument, options in (
        ("{}[all]", ("--no-build-isolation",)),
        (f"{NAME}[curl]", ("--find-links", wheel.parent)),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--no-index",
             "--quiet", "--disable-pip-version-check", "--report", "-", *options, argument.format(ROOT)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "does not provide the extra" not in done.stderr
        (installed,) = json.loads(done.stdout)["install"]
        assert (installed["metadata"]["name"], installed["requested_extras"]) == (
            NAME,
            [argument.partition("[")[2][:-1]],
        )


# The workflow that publishes.


def test_the_workflow_publishes_by_identity_and_pins_its_actions() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    uses = re.findall(r"uses: (\S+)", text)
    assert [each for each in uses if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", each)] == []
    jobs = dict(re.findall(r"^  (\w+):\n((?:    .*\n|\n)+)", text.partition("\njobs:\n")[2], re.MULTILINE))
    assert [name for name, part in jobs.items() if "id-token: write" in part] == ["publish"]
    assert "attestations: true" in jobs["publish"]
    assert "checkout" not in jobs["publish"]  # no code of the repository runs where the identity is
    assert "secrets." not in text
    assert "password" not in text
    pythons = re.findall(r'"(3\.\d+)"', jobs["test"])
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    assert pythons == [each.rpartition(" ")[2] for each in classifiers if re.search(r":: 3\.\d+$", each)]
