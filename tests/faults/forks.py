"""Open a connection, fork, and let the children send requests together: each must get its own responses.

Usage: forks.py BASE_URL ROUNDS CHILDREN REQUESTS; prints how many responses belonged to another caller, or failed.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import taskbridge as tb
from taskbridge.errors import TaskbridgeError


def get_all(client: tb.Client, names: list[str]) -> int:
    """Get tasks; return how many of the responses are wrong."""
    return sum(not _is_own(client, name) for name in names)


def _is_own(client: tb.Client, name: str) -> bool:
    try:
        return client.get(name).message == name
    except TaskbridgeError:
        return False


def child(client: tb.Client, gate: int, names: list[str]) -> NoReturn:
    os.read(gate, 1)  # returns when the parent closes its end
    os._exit(get_all(client, names))


def main() -> None:
    url, *numbers = sys.argv[1:]
    rounds, children, requests = map(int, numbers)
    wrong = 0
    for turn in range(rounds):
        with tb.connect("expertai-extract", access_token="t", base_url=url) as client:
            wrong += get_all(client, [f"warm-{turn}"])
            gate, latch = os.pipe()
            pids: list[int] = []
            for number in range(children):
                pid = os.fork()
                if pid == 0:
                    os.close(latch)
                    child(client, gate, [f"q-{turn}-{number}-{n}" for n in range(requests)])
                pids.append(pid)
            os.close(gate)
            os.close(latch)
            wrong += sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)
            wrong += get_all(client, [f"after-{turn}"])
    sys.stdout.write(f"{wrong}\n")


if __name__ == "__main__":
    main()
