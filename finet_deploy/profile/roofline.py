"""What a core can do at best, as the runner measured it, and what that means for an operator."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from finet_deploy.errors import FinetDeployError
from finet_deploy.json_files import BadJson, decode_json

__all__ = ["CoreBest", "bound_seconds", "decode_core_best"]

Rate = Annotated[float, Meta(gt=0)]


class Stream(msgspec.Struct, frozen=True):
    """Bytes read and written per second by a loop over arrays that take `bytes` together."""

    bytes: Annotated[int, Meta(gt=0)]
    bytes_per_second: Rate


class CoreBest(msgspec.Struct, frozen=True):
    """One measurement. macs_per_second: fp32 multiply-adds of a matrix product out of the nearest cache."""

    schema_version: Literal[1]
    vectors: str
    threads: int
    macs_per_second: Rate
    streams: Annotated[tuple[Stream, ...], Meta(min_length=1)]

    def bytes_per_second(self, moved: int) -> float:
        """For what moves this many bytes: the rate of the smallest measured working set that holds them.

        A larger set's rate is never above a smaller one's: where it was measured so, that was noise.
        """
        held = [item for item in self.streams if item.bytes >= moved] or [self.streams[-1]]
        return max(item.bytes_per_second for item in held)


def decode_core_best(data: bytes, where: str) -> CoreBest:
    """FinetDeployError, naming `where`, when the data is no such measurement."""
    try:
        best: CoreBest = decode_json(data, CoreBest)
    except BadJson as error:
        do = "build the runner again"
        raise FinetDeployError(f"not a measurement of the core: {error}", where=where, do=do) from error
    return best


def bound_seconds(
    best: CoreBest, macs: int | None, moved: int | None
) -> tuple[float, Literal["compute", "bandwidth"]] | None:
    """The shortest time in which the core could do it, and what sets it; None when nothing is known of it.

    The roofline model (Williams, Waterman, Patterson 2009): arithmetic and traffic overlap, the slower one counts.
    """
    compute = (macs or 0) / best.macs_per_second
    traffic = (moved or 0) / best.bytes_per_second(moved or 0)
    if not compute and not traffic:
        return None
    return (compute, "compute") if compute >= traffic else (traffic, "bandwidth")
