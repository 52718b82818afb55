"""The processes of a distributed run as forks of one: most of the time of a process is its start.

They find each other by the same variables as torchrun's. `python -m tests.ranks COUNT ARGUMENTS...` is the command
line so.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["ONE_THREAD", "ROOT", "fork_ranks", "launch"]

ROOT = Path(__file__).parents[1]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def launch(module: str, *arguments: object) -> str:
    """What `python -m module ARGUMENTS...` and its forks say on stderr; none of them may fail."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ONE_THREAD, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def fork_ranks(count: int, work: Callable[[], None]) -> int:
    """Does `work` in `count` processes; how many of them failed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    children = []
    for rank in range(count):
        children.append(os.fork())
        if not children[-1]:
            own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "RANK": rank}
            os.environ.update({name: str(value) for name, value in own.items()})
            work()
            sys.exit()
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    import torchvision.transforms.v2.functional  # noqa: F401 - what takes long to import

    from finet_deploy.__main__ import main
    from finet_deploy.commands import train  # noqa: F401

    count = int(sys.argv.pop(1))
    sys.exit(fork_ranks(count, main))
