"""Starting and stopping an emulated phone from a test: what the simulator and the real adbd have in common."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.device.phone.app import PhoneApp
from tests.device.phone.build import build_phone, remove_phone
from tests.device.phone.control import Control
from tests.device.phone.daemon import listen
from tests.device.phone.faults import Fault
from tests.device.phone.namespaces import namespace_command, why_no_namespaces
from tests.device.phone.options import OPTIONS_VARIABLE, Options
from tests.device.phone.userland import rootfs
from tests.device.profiles import load_profile

__all__ = ["Sandbox", "why_not"]

REPOSITORY = Path(__file__).parents[3]
START_S = 60.0


def why_not() -> str | None:
    """Why no phone can be emulated here, or None: for `pytest.mark.skipif`."""
    if not (rootfs() / "applets.txt").is_file():
        return "the phone's userland is missing: python -m tests.device.oracle.fetch"
    return why_no_namespaces()


class Sandbox:
    """A phone in namespaces of its own; reached on `127.0.0.1:port`. A context manager.

    root: the phone's root as this machine sees it (`path` translates); personality: what tests may change.
    """

    module = "tests.device.phone.stage"
    network = False

    def __init__(
        self, profile: str = "snapdragon855", *, faults: list[Fault] | None = None, **options: Any
    ) -> None:
        self.options = Options(profile=profile, **options)
        self.profile = load_profile(profile)
        self.faults = faults or []
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Any:
        self.folder = Path(tempfile.mkdtemp(prefix="phone-"))
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        self.personality = build_phone(self.folder, self.profile)
        self.app = PhoneApp(self.folder, self.personality)
        self.root = self.folder / "root"
        ours, theirs = socket.socketpair()
        with theirs, listen(self.options.port, self.options.mss) as listener:
            self.options.folder, self.options.userland = str(self.folder), str(rootfs().resolve())
            self.options.machine_pids = os.stat("/proc/self/ns/pid").st_ino
            self.options.control_fd, self.options.listen_fd = theirs.fileno(), listener.fileno()
            self.port = listener.getsockname()[1]
            command = [sys.executable, "-m", self.module]
            with open(self.folder / "log", "wb") as log:
                self.process = subprocess.Popen(
                    namespace_command(command, network=self.network),
                    cwd=REPOSITORY,
                    env={**os.environ, OPTIONS_VARIABLE: self.options.encode()},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(theirs.fileno(), listener.fileno()),
                    start_new_session=True,
                )
        self.control = Control(ours, timeout=START_S)
        try:
            self.control.receive()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the phone did not start: {self.log()[-2000:]}") from error
        for fault in self.faults:
            self.set_fault(fault)

    def stop(self) -> None:
        if self.process is not None:
            # SIGKILL: unshare ignores SIGTERM. Its child, process 1 of the phone, takes everything else along.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
        if hasattr(self, "control"):
            self.control.close()
        if hasattr(self, "personality"):
            self.personality.close()
            del self.personality
        with contextlib.suppress(FileNotFoundError):
            remove_phone(self.folder)

    # for tests

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def path(self, remote: str) -> Path:
        """Where this machine has the phone's file. Not with `data_bytes`: /data/local/tmp is in memory then."""
        inside = remote.lstrip("/")
        return self.folder / inside if inside.split("/")[0] == "data" else self.root / inside

    def set_fault(self, fault: Fault | str, **values: Any) -> None:
        """Lie in wait for the next service that `when` matches; without `when` for the next connection."""
        chosen = Fault(fault, **values) if isinstance(fault, str) else fault
        self.control.ask("fault", **chosen.as_dict())

    def strike(self, fault: Fault | str, **values: Any) -> None:
        """Now: a fault of the link on every open connection, or kill, reboot, overheat."""
        chosen = Fault(fault, **values) if isinstance(fault, str) else fault
        self.control.ask("strike", **chosen.as_dict())

    def clear_faults(self) -> None:
        self.control.ask("clear")

    def state(self) -> dict[str, Any]:
        """violations, services, transfers, connections, offered_keys, armed, processes."""
        return self.control.ask("state")

    def processes(self) -> list[str]:
        """Command lines of what runs on the phone, its daemon left out."""
        return self.control.ask("processes")

    def reboot(self, down_s: float = 1.0) -> None:
        self.strike("reboot", value=down_s)


def has_adb() -> bool:
    return shutil.which("adb") is not None
