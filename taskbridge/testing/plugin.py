"""The pytest plugin: fixtures for tests of applications. Loaded by pytest itself; costs nothing where it is not used.

* ``taskbridge_clock``: time that passes at once, for all clients that are made in the test.
* ``taskbridge_emulator``: runs emulated vendors, and leads configured connections to them.
* ``taskbridge_script``: a vendor whose tasks follow a script.
* ``taskbridge_recording``: real traffic, recorded once and replayed from then on.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from taskbridge.emulator import Plan
    from taskbridge.emulator.shell import Emulator
    from taskbridge.testing.clock import VirtualClock
    from taskbridge.testing.recording import RecordingTransport, ReplayTransport
    from taskbridge.testing.scripted import ScriptedVendor

__all__ = ["EmulatorFactory", "pytest_addoption"]

_MODES: Final = ("replay", "record", "auto")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of `taskbridge_recording`."""
    parser.getgroup("taskbridge").addoption(
        "--taskbridge-record",
        choices=_MODES,
        default="replay",
        help="what tests with taskbridge_recording do: replay what was recorded (default), record it anew from the "
        "vendors, or auto: record what is missing and replay the rest",
    )


@pytest.fixture
def taskbridge_clock() -> Iterator[VirtualClock]:
    """Time that passes at once: every client that is made in this test lives in it, and nobody really waits.

    It begins at the present. Emulators that ``taskbridge_emulator`` runs in the same test live in it too.
    """
    from taskbridge._config.defaults import (
        current_defaults,  # noqa: PLC0415  # the same
        override_defaults,  # noqa: PLC0415  # the same
    )
    from taskbridge.provider.clock import SystemClock  # noqa: PLC0415  # only where it is used
    from taskbridge.testing.clock import VirtualClock  # noqa: PLC0415  # the same
    from taskbridge.testing.virtual_connections import RealTransports  # noqa: PLC0415  # the same

    clock = VirtualClock(now=SystemClock().now())
    with override_defaults(clock=clock, transports=current_defaults().transports or RealTransports()):
        yield clock


class _Configuration:
    """The connections that a test's fixtures made, as the configuration that is found.

    Args:
        place: A folder for the file.
        patch: Sets the environment.
    """

    def __init__(self, place: Path, patch: pytest.MonkeyPatch) -> None:
        self._path = place / "taskbridge.toml"
        self.patch = patch
        self._tables: dict[str, Mapping[str, str]] = {}

    def add(self, tables: Mapping[str, Mapping[str, str]]) -> None:
        """Add connections; the first of all is the default."""
        self._tables |= tables
        lines = [f"default = {json.dumps(next(iter(self._tables)))}"]
        for name, table in self._tables.items():
            lines += ["", f"[connections.{name}]"]
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        self._path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.patch.setenv("TASKBRIDGE_CONFIG", str(self._path))


@pytest.fixture
def _taskbridge_configuration(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> _Configuration:
    return _Configuration(tmp_path_factory.mktemp("taskbridge"), monkeypatch)


class EmulatorFactory:
    """Runs emulated vendors for one test; what ``taskbridge_emulator`` gives.

    Args:
        clock: The virtual time of the test; None where there is none.
        configuration: Takes the connections.
    """

    def __init__(self, clock: VirtualClock | None, configuration: _Configuration) -> None:
        self._clock = clock
        self._configuration = configuration
        self._stack = ExitStack()

    def __call__(
        self,
        *vendors: str,
        connections: Mapping[str, str] | None = None,
        speed: float = 50.0,
        seed: int = 0,
        plan: Plan | None = None,
    ) -> Emulator:
        """Run vendors until the end of the test.

        Args:
            vendors: Their names; none means those of ``connections``, else all that are installed.
            connections: Name of a connection -> vendor. These connections lead here, whatever the application's
                configuration says of them; and where the application names no file itself, they are all that it has.
            speed: Vendor seconds per real second; says nothing in a test with ``taskbridge_clock``.
            seed: The same seed gives the same ids.
            plan: How long tasks take and how they end, where their documents' names ask for nothing.
        """
        from taskbridge.emulator.shell import Emulator  # noqa: PLC0415  # an extra

        wanted = dict(connections or {})
        names = dict.fromkeys([*vendors, *wanted.values()])
        emulator = self._stack.enter_context(Emulator(*names, speed=speed, seed=seed, plan=plan, clock=self._clock))
        if wanted:
            tables = {name: {"provider": vendor, **emulator.settings(vendor)} for name, vendor in wanted.items()}
            self._configuration.add(tables)
        for name, vendor in wanted.items():
            for variable, value in emulator.environment(name, vendor).items():
                self._configuration.patch.setenv(variable, value)
        return emulator

    def close(self) -> None:
        """Stop all that run."""
        self._stack.close()


@pytest.fixture
def taskbridge_emulator(
    request: pytest.FixtureRequest, _taskbridge_configuration: _Configuration
) -> Iterator[EmulatorFactory]:
    """Runs emulated vendors: ``taskbridge_emulator("cloudconvert")``, or with ``connections={"invoices": …}``."""
    timed = "taskbridge_clock" in request.fixturenames
    clock: VirtualClock | None = request.getfixturevalue("taskbridge_clock") if timed else None
    factory = EmulatorFactory(clock, _taskbridge_configuration)
    yield factory
    factory.close()


@pytest.fixture
def taskbridge_script(
    taskbridge_clock: VirtualClock, _taskbridge_configuration: _Configuration
) -> Iterator[Callable[..., ScriptedVendor]]:
    """Makes a vendor whose tasks follow a script, in virtual time: ``taskbridge_script("invoices")``.

    The connections named lead to it, where the application names no configuration file itself.
    """
    from taskbridge._config.defaults import current_defaults  # noqa: PLC0415  # only where it is used
    from taskbridge.testing.scripted import ScriptedVendor  # noqa: PLC0415  # the same

    with ScriptedVendor(clock=taskbridge_clock, inner=current_defaults().transports) as vendor:

        def make(*connections: str) -> ScriptedVendor:
            _taskbridge_configuration.add({name: {"provider": "scripted"} for name in connections or ("scripted",)})
            return vendor

        yield make


@pytest.fixture
def taskbridge_recording(request: pytest.FixtureRequest) -> Iterator[RecordingTransport | ReplayTransport]:
    """Real traffic of this test's clients, from ``recordings/MODULE/TEST.jsonl`` beside it.

    A replay sends nothing and takes no time: it runs in virtual time from the moment of the recording on.
    """
    from taskbridge._config.defaults import override_defaults  # noqa: PLC0415  # only where it is used
    from taskbridge.testing.recording import RecordingTransport, ReplayTransport  # noqa: PLC0415  # the same

    path = _recording_path(request)
    mode = request.config.getoption("--taskbridge-record")
    if mode == "record" or (mode == "auto" and not path.exists()):
        recording = RecordingTransport(path)
        with override_defaults(transports=recording):
            yield recording
        return
    if not path.exists():
        pytest.fail(f"there is no recording {path}; make it with --taskbridge-record=auto", pytrace=False)
    replay = ReplayTransport(path)
    clock: VirtualClock = request.getfixturevalue("taskbridge_clock")
    if replay.began is not None:
        clock.step_wall((replay.began - clock.now()).total_seconds())
    with override_defaults(transports=replay):
        yield replay


def _recording_path(request: pytest.FixtureRequest) -> Path:
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in request.node.name)
    return request.path.parent / "recordings" / request.path.stem / f"{name}.jsonl"
