"""``python -m taskbridge``: the command line."""

import sys

from taskbridge.cli import main

if __name__ == "__main__":
    sys.exit(main())
