"""SQLite's locks belong to a process: what else the process does with the file must not end them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    print(*(ref for ref, in database.execute("SELECT ref FROM taskbridge_watch ORDER BY ref")))
database.close()
"""

TAKE = """
import sys, taskbridge as tb
from taskbridge.store.ownership import Ownership
store = tb.Store(sys.argv[1])
print(Ownership(store.database, "acme").take())
"""

SECOND_STORE = f"""
import subprocess, sys, taskbridge as tb
from taskbridge.store.ownership import Ownership
path = sys.argv[1]
def run(program):
    return subprocess.run([sys.executable, "-c", program, path], check=True, capture_output=True, text=True).stdout
store = tb.Store(path)
store.watch("acme:a")
owner = Ownership(store.database, "acme")
assert owner.take()
tb.Store(path).close()
assert not Ownership(store.database, "acme").take()
assert run({TAKE!r}) == "False\\n"
run({READ!r})
store.watch("acme:b")
assert run({READ!r}) == "acme:a acme:b\\n"
"""

FORK = f"""
import os, subprocess, sys, taskbridge as tb
from taskbridge.store.ownership import Ownership
path = sys.argv[1]
store = tb.Store(path)
store.watch("acme:a")
owner = Ownership(store.database, "acme")
assert owner.take()
closed, closes = os.pipe()
child = os.fork()
if child == 0:
    assert not owner.take()  # its parent owns the connection
    store.watch("acme:b")
    os.close(closes)
    os.read(closed, 1)  # until the parent has closed the file
    store.watch("acme:c")
    assert owner.take()
    os._exit(0)
store.watch("acme:d")
store.close()
owner.release()
subprocess.run([sys.executable, "-c", {READ!r}, path], check=True)
os.close(closes)
assert os.waitpid(child, 0)[1] == 0
"""


def run(program: str, path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_second_store_of_the_same_file_ends_no_lock_of_the_first(tmp_path: Path) -> None:
    run(SECOND_STORE, tmp_path / "a.db")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_has_connections_and_locks_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    run(FORK, path)
    assert run(READ, path) == "acme:a acme:b acme:c acme:d\n"
