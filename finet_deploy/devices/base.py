"""What a device is to a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from finet_deploy.bench.protocol import DeviceInfo, Record, Row, VisitRequest

__all__ = ["Device"]


class Device(Protocol):
    """A machine that can be probed and can run visits."""

    @property
    def runner(self) -> str:
        """The kind of program that makes its visits: `python`, `native` or `app`."""

    @property
    def runtimes(self) -> tuple[str, ...] | None:
        """The runtimes that its runner has; `None`: all of them."""

    def info(self) -> DeviceInfo:
        """What the device is."""

    def default_threads(self) -> int:
        """The threads of a runtime when nobody says otherwise."""

    def prepare(self, rows: Sequence[Row], folder: Path) -> None:
        """Bring what the rows need onto the device, once, before the first visit.

        The rows' bundle paths are relative to the run folder `folder`. Raises `FinetDeployError`.
        """

    def run_visit(self, request: VisitRequest) -> list[Record]:
        """Run one visit in a fresh process.

        The records end with `End` or `Invalid`: a visit that fails is a result, not an exception. Only what makes
        further visits pointless is raised (`FinetDeployError`), and `KeyboardInterrupt`, after which nothing is left
        running.
        """
