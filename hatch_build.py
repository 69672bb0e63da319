"""Metadata that depends on where the project is published: its URLs and the links of the long description.

The environment variable ``PROJECT_URL`` has the address of the repository; .github/workflows/release.yml sets it. Links
of the README then lead to the files of the released version. Without the variable, the package has no URLs, and what
would be a link to a file of the repository is plain text, so no build has a link that leads nowhere.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK: Final = re.compile(r"\[([^\]\n]+)\]\((?![a-z]+:)([^)\s]+)\)")  # to a file of the repository
URLS: Final = {
    "Repository": "{home}",
    "Documentation": "{files}/docs/index.md",
    "Changelog": "{files}/CHANGELOG.md",
    "Issues": "{home}/issues",
}


class AddressHook(MetadataHookInterface):
    """Sets ``readme`` and ``urls``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the fields, in place."""
        home = os.environ.get("PROJECT_URL", "").rstrip("/")
        if home and not re.fullmatch(r"https://[^\s@?#]+", home):
            raise ValueError("PROJECT_URL must be an https address without user name, query and fragment")
        files = f"{home}/blob/v{metadata['version']}"
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        link = rf"[\1]({files}/\2)" if home else r"\1"
        metadata["readme"] = {"content-type": "text/markdown", "text": LINK.sub(link, text)}
        if home:
            metadata["urls"] = {name: url.format(home=home, files=files) for name, url in URLS.items()}
