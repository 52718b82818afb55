"""The `finet-deploy` command: exit 0 done, 1 failed check or failed work, 2 usage, 130 Ctrl-C, 143 SIGTERM."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import signal
import sys
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143
# Allocations before Python's collector looks for cycles, and how often it looks at what is older. Its own numbers are
# for small programs: an export, which keeps millions of objects to its end, spends a third of its time there.
COLLECTOR = (100_000, 10, 5)
# glibc's mallopt: up to which size a block comes from the heap, and how much of the heap may lie idle. By itself it
# takes every tensor's memory from the system and gives it back at once: a quarter of a forward's time is fresh pages.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
IDLE_BYTES, BLOCK_BYTES = 1 << 30, 1 << 28


class _Terminated(KeyboardInterrupt):
    """SIGTERM takes the same way out as Ctrl-C, so that the same clean-up runs."""


def _on_sigterm(_signal: int, _frame: FrameType | None) -> None:
    raise _Terminated


def keep_memory() -> None:
    """Let this process (no other: what a runtime is measured in stays as it is) use freed memory again."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other C libraries have no such function
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, IDLE_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES)


def main() -> None:
    """Console entry point. Even the imports are covered: Ctrl-C never prints a traceback."""
    try:
        signal.signal(signal.SIGTERM, _on_sigterm)
        gc.set_threshold(*COLLECTOR)
        keep_memory()
        from finet_deploy.cli import run

        status = run(sys.argv[1:])
    except _Terminated:
        status = _say_stopped("terminated", TERMINATED)
    except KeyboardInterrupt:
        status = _say_stopped("interrupted", INTERRUPTED)
    sys.exit(status)


def _say_stopped(word: str, status: int) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not cut the way out short
    print(f"finet-deploy: {word}; nothing half-written was left behind", file=sys.stderr)  # noqa: T201
    return status


if __name__ == "__main__":
    main()
