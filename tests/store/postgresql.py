"""A PostgreSQL cluster of the tests' own, which they may stop and kill.

with cluster() as running:
    store = tb.Store(running.create_database())
    running.stop(immediate=True)
    running.start()
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep  # noqa: TID251  # another process starts, in real time
from typing import Final

import psycopg

USER: Final = "postgres"  # the account that Debian's package creates; `initdb` refuses root
PASSWORD: Final = "not-to-be-shown"
_START: Final = 30.0  # seconds


def missing() -> str:
    """Return why no cluster can be started here; empty if one can."""
    if _programs() is None:
        return "PostgreSQL is not installed"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL does not run as root, and there is no setpriv"
    return ""


class Cluster:
    """A cluster in a temporary folder, on a port of 127.0.0.1.

    Args:
        folder: Where it is.
        options: Its settings, as in ``postgresql.conf``.

    Attributes:
        port: Where it accepts connections.
        data: Its files.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        programs = _programs()
        assert programs is not None, missing()
        self._programs = programs
        self._folder = folder
        self.data = folder / "data"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        password = folder / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:
            for each in (folder, password):
                shutil.chown(each, USER, USER)
        words = ["initdb", "-D", str(self.data), "-U", USER, "-A", "scram-sha-256", "-N", "--pwfile", str(password)]
        subprocess.run(self._command(*words, "-E", "UTF8", "--locale", "C"), check=True, stdout=subprocess.DEVNULL)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(folder),
            "max_connections": "200",
            "log_line_prefix": "%d: ",
            "fsync": "off",  # a killed server loses nothing by that, only a machine without power does
            **options,
        }
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(lines)

    def start(self) -> None:
        """Start it, unless it runs, and wait until it accepts connections."""
        if self._process is None:
            command = self._command("postgres", "-D", str(self.data))
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = monotonic() + _START
        while not self.is_ready():
            assert self._process.poll() is None, self._log.read_text(errors="replace")
            assert monotonic() < end, "PostgreSQL did not start"
            sleep(0.02)

    def is_ready(self) -> bool:
        """Whether it accepts connections."""
        return self._is_ready(self.port)

    def _is_ready(self, port: int) -> bool:
        try:
            psycopg.connect(self.url(), port=port, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, *, immediate: bool = False) -> None:
        """Stop it; `immediate` ends it as a crash does, so that it recovers when it starts."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            process.wait(_START)

    @contextmanager
    def frozen(self) -> Generator[None]:
        """Let it hang until the block ends, as when its disk or its virtual machine does: nothing answers or closes."""
        assert self._process is not None
        server = self._process.pid
        os.kill(server, signal.SIGSTOP)  # first, so that it starts no more processes
        children = subprocess.run(["pgrep", "-P", str(server)], check=True, capture_output=True, text=True).stdout
        processes = [server, *map(int, children.split())]
        try:
            for process in processes[1:]:
                os.kill(process, signal.SIGSTOP)
            yield
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, with the password."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Create an empty database; return its URL."""
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def statements(self, database: str) -> int:
        """Return how many statements of a database were logged (``log_statement = 'all'``)."""
        lines = self._log.read_text(errors="replace").splitlines()
        return sum(line.startswith(f"{database}: ") and ("statement: " in line or "execute " in line) for line in lines)

    @contextmanager
    def pooler(self, mode: str) -> Generator[int]:
        """Run PgBouncer in a mode (``pool_mode``) before the cluster; yield its port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        users = self._folder / f"users-{mode}"
        users.write_text(f'"{USER}" "{PASSWORD}"\n')
        settings = self._folder / f"pgbouncer-{mode}.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nauth_type = scram-sha-256\nauth_file = {users}\npool_mode = {mode}\n"
            "unix_socket_dir =\n"
        )
        for each in (users, settings) if os.geteuid() == 0 else ():
            shutil.chown(each, USER, USER)
        program = shutil.which("pgbouncer")
        assert program is not None
        process = subprocess.Popen(
            self._command(program, str(settings)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            end = monotonic() + _START
            while not self._is_ready(port):
                assert process.poll() is None
                assert monotonic() < end, "PgBouncer did not start"
                sleep(0.02)
            yield port
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(_START)

    def _command(self, program: str, *words: str) -> list[str]:
        command = [str(self._programs / program), *words]
        if os.geteuid() != 0:
            return command
        # The server ends with the tests, however they end.
        become = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--pdeathsig", "QUIT"]
        return [*become, *command]


@contextmanager
def cluster(**options: str) -> Generator[Cluster]:
    """Create a cluster and start it; at the end it is stopped and removed."""
    with tempfile.TemporaryDirectory(prefix="taskbridge-postgresql-", dir="/tmp") as folder:
        created = Cluster(Path(folder), **options)
        try:
            created.start()
            yield created
        finally:
            created.stop(immediate=True)


def _programs() -> Path | None:
    """Return the folder of the newest server's programs."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = [each.parent for each in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda each: int(each.parent.name), default=None)
