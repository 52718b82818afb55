"""Which cores a visit runs on: derived from what the kernel says of each core, never from a mask known by heart.

A core is big by the first of these rules that the phone gives the figures for:

1. `cpu_capacity`: at least half of the largest capacity;
2. core types of /proc/cpuinfo: not one of the in-order cores, where there are both kinds;
3. `cpuinfo_max_freq`: not of the slowest group, where there are several;
4. otherwise every core is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from finet_deploy.bench.protocol import Reading
from finet_deploy.devices.phone_state import Core
from finet_deploy.errors import UsageError

__all__ = ["big_cores", "choose_cores", "core_kinds", "describe_cores", "hex_mask"]

CAPACITY_SHARE = 0.5
ARM, QUALCOMM = 0x41, 0x51
# Cores that issue in order: Cortex-A53, A35, A55, A510, A520; Kryo 2xx, 3xx and 4xx Silver.
IN_ORDER = {(ARM, part) for part in (0xD03, 0xD04, 0xD05, 0xD46, 0xD80)} | {
    (QUALCOMM, part) for part in (0x801, 0x803, 0x805)
}


def big_cores(cores: Sequence[Core]) -> tuple[tuple[int, ...], str]:
    """Indices of the big cores among those that are online, and the rule that chose them in words."""
    cores = [core for core in cores if core.online]  # the figures of a core vanish while it is offline
    capacities = _values(cores, "capacity")
    if capacities:
        limit = CAPACITY_SHARE * max(capacities.values())
        rule = f"capacity at least {limit:g} of {max(capacities.values())}"
        return tuple(index for index, value in capacities.items() if value >= limit), rule
    kinds = {core.index: (core.implementer, core.part) in IN_ORDER for core in cores if core.part is not None}
    if len(kinds) == len(cores) and len(set(kinds.values())) == 2:
        return tuple(index for index, little in kinds.items() if not little), "core type, out-of-order"
    clocks = _values(cores, "max_mhz")
    if len(set(clocks.values())) > 1:
        slowest = min(clocks.values())
        return tuple(
            index for index, value in clocks.items() if value > slowest
        ), f"faster than {slowest:g} MHz"
    return tuple(core.index for core in cores), "all cores: nothing tells them apart"


def core_kinds(cores: Sequence[Core]) -> dict[str, tuple[int, ...]]:
    """`big` and `little` -> the cores of that kind that are online; empty where all of them are of one kind."""
    big = big_cores(cores)[0]
    little = tuple(core.index for core in cores if core.online and core.index not in big)
    return {"big": big, "little": little} if big and little else {}


def choose_cores(cores: Sequence[Core], threads: int) -> tuple[int, ...]:
    """As many cores as threads: the fastest that are online. UsageError when there are not as many.

    Among equal ones the higher numbers: core 0 serves most interrupts.
    """
    big = set(big_cores(cores)[0])
    online = [core for core in cores if core.online]
    if not 1 <= threads <= len(online):
        do = f"use 1 to {len(online)} threads"
        raise UsageError(f"{threads} threads, but the phone has {len(online)} cores online", do=do)

    def rank(core: Core) -> tuple[bool, float, float, int]:
        return core.index in big, core.capacity or 0, core.max_mhz or 0.0, core.index

    return tuple(sorted(core.index for core in sorted(online, key=rank, reverse=True)[:threads]))


def hex_mask(cores: Iterable[int]) -> str:
    """The mask as toybox's taskset takes it: hexadecimal without 0x."""
    mask = 0
    for index in cores:
        mask |= 1 << index
    if mask == 0:
        raise ValueError("no core in the mask")
    return f"{mask:x}"


def describe_cores(cores: Sequence[Core]) -> Reading[str]:
    """`2 x 2600 MHz (6-7) + 6 x 1800 MHz (0-5)`: the cores in groups, fastest first."""
    groups: dict[tuple[float, float], list[int]] = {}
    for core in cores:
        groups.setdefault((core.capacity or 0, core.max_mhz or 0.0), []).append(core.index)
    if not groups:
        return Reading(reason="the phone does not tell its cores")
    parts = []
    for (_, clock), members in sorted(groups.items(), reverse=True):
        speed = f" x {clock:g} MHz" if clock else " cores"
        parts.append(f"{len(members)}{speed} ({', '.join(map(str, members))})")
    return Reading(value=" + ".join(parts))


def _values(cores: Sequence[Core], field: str) -> dict[int, float]:
    """Core -> figure, or nothing when a core lacks it: half a rule is none."""
    found = {core.index: getattr(core, field) for core in cores if getattr(core, field) is not None}
    return found if len(found) == len(cores) else {}
