"""What the faults of the matrix strike: a phone, directly or through an adb server, and runs that are half done."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from finet_deploy.bench.protocol import Job
from finet_deploy.bench.records import JOB_FILE, RECORDS_FILE, read_run
from finet_deploy.bench.validity import visit_problem
from finet_deploy.devices.adb import open_connection
from finet_deploy.devices.android import AndroidDevice
from tests.bench_fakes import SETTINGS, make_job
from tests.device.android_setup import make_rows
from tests.device.fault_runner import CONTROL, larger, shell_runner
from tests.device.phone import Phone
from tests.device.phone.wire import command, wait_for
from tests.device.test_adb_client_script import Client

__all__ = ["Scene"]

FOLDER = "/data/local/tmp/finet-deploy"
REACH_S = 30.0  # for the runner to come to a phase


class Scene:
    """A phone, a run that is half done, and commands against it, directly or through the adb server of `client`.

    `folder` is the test's.
    """

    def __init__(self, folder: Path, phone: Phone, client: Client | None = None) -> None:
        self.folder, self.phone, self.client = folder, phone, client
        self.spec = f"tcp:{phone.address}" if client is None else phone.address
        if client is not None:
            client.connect(phone)
        self.rows = [larger(make_rows(folder)[0], folder / "run")]
        bundle = folder / "run" / self.rows[0].bundle
        self.control = phone.path(CONTROL)
        parent = self.control.parent
        mode = parent.stat().st_mode
        parent.chmod(0o755)
        self.control.mkdir()
        self.control.chmod(0o777)
        parent.chmod(mode)
        self.runner = shell_runner(folder / "runner", self.rows[0], bundle)
        self.number = 0
        self.job: Job | None = None
        self.first = b""

    # the phone

    def hold(self, phase: str) -> None:
        """The next runner to come to this phase stays in it."""
        (self.control / "now").unlink(missing_ok=True)
        (self.control / f"hold.{phase}").touch()

    def wait_for_phase(self, phase: str) -> None:
        now = self.control / "now"
        wait_for(lambda: now.exists() and now.read_text().split()[0] == phase, limit_s=REACH_S)

    def stay(self) -> None:
        """The runner that is held now stays for a minute, whoever is let go."""
        if list(self.control.glob("hold.*")):
            pid = (self.control / "now").read_text().split()[1]
            (self.control / f"stay.{pid}").touch()

    def let_go(self) -> None:
        for path in self.control.glob("hold.*"):
            path.unlink()

    def fill(self) -> None:
        """No byte more fits onto the phone."""
        command(self.phone.port, b"cat /dev/zero > /data/local/tmp/fill")

    def heal(self) -> None:
        """No fault is left, and the phone is well."""
        self.phone.clear_faults()
        self.phone.personality.cool()
        self.let_go()
        command(self.phone.port, b"rm -f /data/local/tmp/fill")
        if self.client is not None:
            self.client.connect(self.phone)

    def close(self) -> None:
        if self.client is not None:
            self.client.close()

    def ends_quiet(self) -> bool:
        """Whether what runs on the phone ends within a step of the watchdog, whose sleep has no name of ours."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self.phone.processes())
            return True
        return False

    def left(self) -> bytes:
        """What is in our folder and should not outlive a command: its lock, its jobs, half files."""
        found = command(self.phone.port, f"cd {FOLDER} && ls -d lock jobs/* .incoming/*".encode())[1]
        return b" ".join(found.split())

    def forget_file(self) -> None:
        """One of the files that were pushed is gone: it has to be pushed again."""
        command(self.phone.port, f"rm {FOLDER}/files/*.onnx".encode())

    # runs

    def know(self) -> None:
        """Ask the phone what it is: a job names it."""
        with AndroidDevice(open_connection(f"tcp:{self.phone.address}")) as device:
            info = msgspec.structs.replace(device.info(), name=self.spec)
        settings = msgspec.structs.replace(SETTINGS, rounds=3, visit_timeout_seconds=40.0)
        self.job = make_job(self.rows, settings, device=info)

    def new_run(self, *, rounds: int, finished: tuple[int, ...]) -> Path:
        """A run folder in which these rounds are finished, as `first`, the records of a round, has it."""
        self.number += 1
        run = self.folder / f"run-{self.number}"
        run.mkdir()
        assert self.job is not None
        settings = msgspec.structs.replace(self.job.settings, rounds=rounds)
        visits = self.job.visits[:rounds]
        job = msgspec.structs.replace(self.job, settings=settings, visits=visits)
        (run / JOB_FILE).write_bytes(msgspec.json.encode(job))
        with (run / RECORDS_FILE).open("wb") as stream:
            for index in finished:
                stream.write(self.first.replace(b'"visit":0,', b'"visit":%d,' % index))
        return run

    def problems(self, run: Path) -> dict[int, str | None]:
        """Of each finished visit: why it does not count."""
        found = read_run(run)
        return {index: visit_problem(result, self.rows[0]) for index, result in found.visits.items()}
