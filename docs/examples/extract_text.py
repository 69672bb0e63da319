"""Extract the text of a document at a URL, with the vendor of the named connection.

    python extract_text.py CONNECTION URL

The configuration decides which vendor that is. Scan Documents reads images, expert.ai Extract reads PDFs.
"""

from __future__ import annotations

import json
import sys

import taskbridge as tb


def main(connection: str, url: str) -> int:
    """Submit the document, wait for the task and print its result."""
    with tb.connect(connection=connection) as client:
        try:
            task = client.submit("extract-text", url)
        except tb.SubmitUncertain as error:
            found = client.recover(error)  # the vendor may have accepted it: never submit it again blindly
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
        print(f"result file: {file.name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
