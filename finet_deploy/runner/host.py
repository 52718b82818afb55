"""This machine, measured with the native runner instead of the Python one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finet_deploy.bench.protocol import Row
from finet_deploy.devices.host import HostDevice
from finet_deploy.errors import UsageError
from finet_deploy.runner.folder import runner_command, runner_folder
from finet_deploy.runner.targets import NATIVE_RUNTIMES, host_target

__all__ = ["NativeHostRunner"]


class NativeHostRunner(HostDevice):
    """`HostDevice` with the native runner: a visit starts in milliseconds and holds no Python and no torch.

    Raises FinetDeployError when there is no runner folder for this machine.
    """

    def __init__(self) -> None:
        super().__init__(command=runner_command(runner_folder(host_target())))

    def prepare(self, rows: Sequence[Row], folder: Path) -> None:
        """UsageError for rows of a runtime that the native runner does not have."""
        foreign = sorted({row.artifact.runtime for row in rows} - set(NATIVE_RUNTIMES))
        if foreign:
            raise UsageError(
                f"the native runner has no {', '.join(foreign)}",
                do=f"leave these rows out: --runtimes {','.join(NATIVE_RUNTIMES)}",
            )
        super().prepare(rows, folder)
