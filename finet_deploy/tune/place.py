"""Where a search is made: a device, or an emulated core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finet_deploy.devices.android import AndroidDevice
from finet_deploy.devices.base import Device
from finet_deploy.errors import UsageError
from finet_deploy.runner.emulate import CORES
from finet_deploy.runner.targets import NATIVE_RUNTIMES
from finet_deploy.tune.model import Candidate
from finet_deploy.tune.space import shape_cores, thread_counts

__all__ = ["Place"]

ARM = 0x41
SLOW_KIND = "little"  # the fast ones are what a device takes by itself


@dataclass(frozen=True)
class Place:
    """One of the two is not None. device: measured. core: its instructions are counted under emulation, one thread."""

    device: Device | None = None
    core: str | None = None

    @property
    def name(self) -> str:
        """As the user named it."""
        return self.core or (self.device.info().name if self.device else "")

    @property
    def emulated(self) -> bool:
        """Whether its figures are no speeds."""
        return self.device is None or self.device.info().emulated

    @property
    def runtimes(self) -> tuple[str, ...] | None:
        """Those that it has; None: all."""
        return NATIVE_RUNTIMES if self.device is None else self.device.runtimes

    def thread_counts(self, wanted: Sequence[int] | None) -> tuple[int, ...]:
        """What to try, the default's first. UsageError for what is wanted and not there."""
        if self.device is None:
            if wanted is not None and tuple(wanted) != (1,):
                raise UsageError("--threads on an emulated core", do="a count is of one thread: leave it out")
            return (1,)
        cpus, default = self.device.info().cpu_count, self.device.default_threads()
        if wanted is None:
            return thread_counts(cpus, default)
        for threads in wanted:
            if not 1 <= threads <= cpus:
                raise UsageError(f"--threads {threads}", do=f"use 1 to {cpus}: {self.name} has as many CPUs")
        return tuple(dict.fromkeys([default, *wanted] if default in wanted else wanted))

    def kinds(self) -> dict[str, int]:
        """Kinds of cores to try beside the device's own choice, and how many there are of each."""
        if not isinstance(self.device, AndroidDevice):
            return {}
        return {kind: len(c) for kind, c in self.device.core_kinds().items() if kind == SLOW_KIND}

    def bind(self, candidates: Sequence[Candidate]) -> None:
        """Tell the device which candidates run on which kind."""
        if isinstance(self.device, AndroidDevice):
            self.device.bind({item.id: item.cores for item in candidates if item.cores is not None})

    def shapes(self) -> tuple[str, ...]:
        """Cores for whose kernels passes may choose shapes, beside the default's."""
        if self.core is not None:
            return shape_cores([self.core])
        if not isinstance(self.device, AndroidDevice):
            return shape_cores([])
        parts = {core.part for core in self.device.facts.cores.value or () if core.implementer == ARM}
        return shape_cores([name for name, core in CORES.items() if core.part in parts])
