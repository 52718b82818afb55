"""This machine, measured with the native runner instead of the Python one."""

from __future__ import annotations

from finet_deploy.devices.host import HostDevice
from finet_deploy.runner.folder import runner_command, runner_folder
from finet_deploy.runner.targets import NATIVE_RUNTIMES, host_target

__all__ = ["NativeHostRunner"]


class NativeHostRunner(HostDevice):
    """`HostDevice` with the native runner: a visit starts in milliseconds and holds no Python and no torch.

    Raises FinetDeployError when there is no runner folder for this machine.
    """

    def __init__(self) -> None:
        super().__init__(command=runner_command(runner_folder(host_target())))

    @property
    def runner(self) -> str:
        """The C++ one."""
        return "native"

    @property
    def runtimes(self) -> tuple[str, ...] | None:
        """Those that are linked into it, or opened by it."""
        return NATIVE_RUNTIMES
