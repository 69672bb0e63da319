"""Extract the text of a document that lies at a URL, through whichever vendor the named connection uses.

    python extract_text.py CONNECTION URL

The connection says who the vendor is; nothing here does. Scan Documents reads images, expert.ai Extract reads PDFs.
"""

from __future__ import annotations

import json
import sys

import taskbridge as tb


def main(connection: str, url: str) -> int:
    """Submit, wait, and print what came of it."""
    with tb.connect(connection=connection) as client:
        try:
            task = client.submit("extract-text", url)
        except tb.SubmitUncertain as error:
            found = client.recover(error)  # the vendor may have taken it: look, never send again blindly
            if found is None:
                raise
            task = found
        print(f"{task.ref} is {task.status}", file=sys.stderr)
        result = client.result(client.wait(task, timeout=600))
    if result.text is not None:
        print(result.text)
    elif result.data is not None:
        print(json.dumps(result.data, indent=2))
    for file in result.files:
        print(f"made {file.name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
