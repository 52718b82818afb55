"""What the emulated phones say about themselves. One JSON file a phone; see `README.md` of the folder above.

The files are made by hand from published figures (cores, clocks, part numbers, memory) and from the formats of other
projects' samples. None was recorded on a phone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Cluster", "Profile", "load_profile", "profile_names"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind that share a clock. Frequencies in kHz; `capacity` is Linux's, 1024 for the fastest core."""

    cores: tuple[int, ...]
    implementer: int
    part: int
    variant: int
    revision: int
    capacity: int
    governor: str
    frequencies: tuple[int, ...]

    @property
    def midr(self) -> int:
        """The main id register, as `regs/identification/midr_el1` shows it."""
        return self.implementer << 24 | self.variant << 20 | 0xF << 16 | self.part << 4 | self.revision


@dataclass(frozen=True)
class Profile:
    """One phone. `qemu_cpu` is the CPU model of qemu-user that has its instructions."""

    name: str
    title: str
    qemu_cpu: str
    kernel: str
    memory_kb: int
    available_kb: int
    clusters: tuple[Cluster, ...]
    cpu_features: str
    properties: dict[str, str]
    battery: dict[str, Any]
    sensors: tuple[
        tuple[str, int, float], ...
    ]  # name, type (0 CPU, 1 GPU, 2 battery, 3 skin ...), °C at rest

    @property
    def cores(self) -> list[int]:
        return sorted(core for cluster in self.clusters for core in cluster.cores)

    def cluster_of(self, core: int) -> Cluster:
        return next(cluster for cluster in self.clusters if core in cluster.cores)


def profile_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load_profile(name: str) -> Profile:
    """The profile `name`. Raises ValueError for an unknown one."""
    if name not in profile_names():
        raise ValueError(f"no profile {name!r}; there are {', '.join(profile_names())}")
    data = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    clusters = tuple(
        Cluster(
            cores=tuple(item["cores"]),
            implementer=int(item["implementer"], 16),
            part=int(item["part"], 16),
            variant=int(item["variant"], 16),
            revision=item["revision"],
            capacity=item["capacity"],
            governor=item["governor"],
            frequencies=tuple(item["frequencies"]),
        )
        for item in data.pop("clusters")
    )
    sensors = tuple((sensor, kind, value) for sensor, kind, value in data.pop("sensors"))
    return Profile(name=name, clusters=clusters, sensors=sensors, **data)
