"""The `finet-deploy` command: exit 0 done, 1 failed check or failed work, 2 usage, 130 Ctrl-C, 143 SIGTERM."""

from __future__ import annotations

import gc
import signal
import sys
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143
# Allocations before Python's collector looks for cycles, and how often it looks at what is older. Its own numbers are
# for small programs: an export, which keeps millions of objects to its end, spends a third of its time there.
COLLECTOR = (100_000, 10, 5)


class _Terminated(KeyboardInterrupt):
    """SIGTERM takes the same way out as Ctrl-C, so that the same clean-up runs."""


def _on_sigterm(_signal: int, _frame: FrameType | None) -> None:
    raise _Terminated


def main() -> None:
    """Console entry point. Even the imports are covered: Ctrl-C never prints a traceback."""
    try:
        signal.signal(signal.SIGTERM, _on_sigterm)
        gc.set_threshold(*COLLECTOR)
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
