"""Process 1 of the emulated phone: mounts its file system, starts its daemon, reaps orphans, ends with the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.device.phone.app import java_folders
from tests.device.phone.namespaces import drop_privileges, enter_root, loopback_up, mount_phone
from tests.device.phone.options import OPTIONS_VARIABLE, Options
from tests.device.phone.personality import Personality
from tests.device.profiles import load_profile

__all__ = ["Serve", "main", "run_stage"]

# A daemon's work, until the test is gone: what it is to be, what it says about itself, the socket that it answers on.
Serve = Callable[[Options, Personality, socket.socket], Awaitable[None]]


def run_stage(serve: Serve, *, private_network: bool = False) -> None:
    """Mount, then the daemon's work in a child; options come as JSON in the environment."""
    options = Options.decode(os.environ[OPTIONS_VARIABLE])
    if os.stat("/proc/self/ns/pid").st_ino == options.machine_pids:
        sys.exit("not in a pid namespace of its own")
    also = {"apex/app": Path(options.app), **java_folders()} if options.app else {}
    folder, userland = Path(options.folder), Path(options.userland)
    root = mount_phone(folder, userland, data_bytes=options.data_bytes, also=also)
    worker = os.fork()
    if worker == 0:
        status = 1
        try:
            act(options, root, serve, private_network)
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


def act(options: Options, root: Path, serve: Serve, private_network: bool) -> None:
    """Enter the phone's root as a plain user; what needs this machine's files comes before that."""
    import encodings.idna  # noqa: F401 - loaded on first use otherwise, from files that are gone then

    profile = load_profile(options.profile)
    options.environment = options.child_environment(profile.qemu_cpu)
    personality = Personality(Path(options.folder), profile)
    listener = socket.socket(fileno=options.listen_fd)
    listener.setblocking(False)
    if private_network:
        loopback_up()
    enter_root(root)
    drop_privileges()
    os.umask(0)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options, personality, listener))  # type: ignore[arg-type]


def main() -> None:
    from tests.device.phone.daemon import serve

    run_stage(serve)


if __name__ == "__main__":
    main()
