"""`finet-deploy bench` against a simulated phone, struck by one fault at one moment. The command runs in a process of
its own, as a person's would; what it asks of the phone is watched, so that a fault strikes in the phase that it should.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

# Each command is a fork of this process: what it needs is here before.
import finet_deploy.api.bench
import finet_deploy.api.devices
import finet_deploy.commands.bench  # noqa: F401
from finet_deploy.devices.adb import open_connection
from finet_deploy.devices.patience import Patience
from finet_deploy.devices.rest import RestRule
from finet_deploy.report.page import templates
from tests.device.fault_scene import Scene

__all__ = ["Bench", "Done", "Moment"]

for name in templates().list_templates(extensions=["html"]):
    templates().get_template(name)

LIMIT_S = 90.0  # of one command; what takes longer hangs
HASTE = Patience(
    attempts=2,
    pause_seconds=0.05,
    away_seconds=1.0,
    boot_seconds=5.0,
    poll_seconds=0.05,
    poll_max_seconds=0.2,
)
REST = RestRule(deadline_seconds=0.2, poll_seconds=0.05)


@dataclass(frozen=True)
class Moment:
    """When a fault strikes: with the first `call` (open, shell, push, pull) whose text `pattern` is found in.

    job: of the so-many-th job of the command (1 proves the row, 2 is the first visit). phase: in which the runner then
    stands.
    """

    call: str
    pattern: str = ""
    job: int | None = None
    phase: str | None = None


@dataclass(frozen=True)
class Done:
    """How a command ended. status: None for one that hung. struck: the fault's moment came."""

    status: int | None
    out: str
    err: str
    struck: bool


@dataclass
class Watched:
    """A connection that knows when to strike. patient: seconds that a command of the phone's shell has, at most."""

    inner: Any
    scene: Scene
    moment: Moment | None
    strike: Callable[[], None]
    patient: float = 60.0
    jobs: list[str] = field(default_factory=list)
    looks: int = 0
    struck: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def shell(self, command: str, *, timeout: float = 30.0, **options: Any) -> Any:
        with self._moment("shell", command):
            limit = self.patient if self.struck else 60.0
            return self.inner.shell(command, timeout=min(timeout, limit), **options)

    def push(self, local: Path, remote: str, **options: Any) -> None:
        if remote.endswith("/request.json") and remote not in self.jobs:
            self.jobs.append(remote)
            if self.moment is not None and self.moment.phase and self.moment.job == len(self.jobs):
                self.scene.hold(self.moment.phase)
        with self._moment("push", remote):
            self.inner.push(local, remote, **options)

    def pull(self, remote: str, local: Path, **options: Any) -> None:
        with self._moment("pull", remote):
            self.inner.pull(remote, local, **options)

    @contextlib.contextmanager
    def _moment(self, call: str, text: str) -> Iterator[None]:
        moment = self.moment
        if (
            moment is None
            or self.struck
            or call != moment.call
            or not re.search(moment.pattern, text)
            or (moment.job is not None and moment.job != len(self.jobs))
        ):
            yield
            return
        if moment.phase is not None:
            self.scene.wait_for_phase(moment.phase)
            self.looks += 1
            if self.looks == 1:  # the command knows the phase, too, when it is struck
                yield
                return
        self.struck = True
        self.strike()
        try:
            yield
        finally:
            self.scene.let_go()


@dataclass(frozen=True)
class Bench:
    """`finet-deploy bench --resume RUN` on the scene's phone, and what strikes it.

    patient: seconds that a silent phone has after it was struck. reach: seconds to connect. lasting: the fault stays,
    so the time of a running job is over when it strikes: nobody waits for it.
    """

    scene: Scene
    run: Path
    moment: Moment | None = None
    strike: Callable[[], None] = lambda: None
    patient: float = 60.0
    reach: float = 10.0
    lasting: bool = False

    def __call__(self) -> Done:
        """In a process of its own: only then is the lock of a command that has ended known as such."""
        paths = {name: self.scene.folder / name for name in ("out", "err", "struck")}
        paths["struck"].unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            status = 99
            try:
                self._redirect(paths)
                status = self._act(paths["struck"])
            except BaseException:  # noqa: BLE001 - what the interpreter would print
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        ended = wait_for_child(child)
        out, err = (paths[name].read_text(errors="replace") for name in ("out", "err"))
        return Done(ended, out, err, paths["struck"].exists())

    def _redirect(self, paths: dict[str, Path]) -> None:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(paths[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        faulthandler.dump_traceback_later(LIMIT_S - 10, file=sys.stderr)
        os.environ["HOME"] = str(self.scene.folder)
        if self.scene.client is not None:
            os.environ.update(self.scene.client.environment)

    def _act(self, marker: Path) -> int:
        """The command, with haste."""
        import finet_deploy.devices.adb as adb
        from finet_deploy.__main__ import main
        from finet_deploy.devices import android, job_script, proof, remote_job

        def struck() -> None:
            marker.touch()
            if self.lasting:
                remote_job.GRACE_SECONDS = -1000.0
            self.strike()

        def opened(spec: str, **given: Any) -> Watched:
            if self.moment is not None and self.moment.call == "open":
                struck()
            times = {"timeout": self.reach, "authorize": 1.0, "idle": self.patient}
            inner = open_connection(spec, **times, **given)
            return Watched(inner, self.scene, self.moment, struck, self.patient)

        adb.open_connection = opened
        android.Patience = lambda: HASTE
        android.RestRule = lambda: REST
        android.runner_folder = lambda target: self.scene.runner
        job_script.WATCHDOG_STEP_SECONDS = 1
        proof.CHECK_SETTINGS = msgspec.structs.replace(proof.CHECK_SETTINGS, visit_timeout_seconds=40.0)
        sys.argv = ["finet-deploy", "bench", "--device", self.scene.spec, "--resume", str(self.run)]
        try:
            main()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 1
        return 98


def wait_for_child(pid: int) -> int | None:
    """The exit status; None for a process that had to be killed."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.01)
