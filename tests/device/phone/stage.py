"""Process 1 of the emulated phone: mounts its file system, starts its daemon, reaps orphans, ends with the daemon."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.device.phone.namespaces import mount_phone
from tests.device.phone.options import OPTIONS_VARIABLE, Options

__all__ = ["main", "run_stage"]


def run_stage(work: Callable[[Options, Path], None]) -> None:
    """Mount, then `work(options, root)` in a child; options come as JSON in the environment."""
    options = Options.decode(os.environ[OPTIONS_VARIABLE])
    if os.stat("/proc/self/ns/pid").st_ino == options.machine_pids:
        sys.exit("not in a pid namespace of its own")
    root = mount_phone(Path(options.folder), Path(options.userland), data_bytes=options.data_bytes)
    worker = os.fork()
    if worker == 0:
        status = 1
        try:
            work(options, root)
            status = 0
        except BaseException:  # noqa: BLE001 - the log is all that is left of it
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(options.control_fd)
    while True:
        ended, status = os.wait()
        if ended == worker:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def main() -> None:
    from tests.device.phone.daemon import run_daemon

    run_stage(run_daemon)


if __name__ == "__main__":
    main()
