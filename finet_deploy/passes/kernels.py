"""What XNNPACK's fp32 matrix kernels cost on a core, in instructions: the yardstick of the passes that choose shapes.

A pointwise convolution over M pixels with K inputs and N outputs is cut into tiles of MR pixels and NR outputs. Which
tile runs is XNNPACK's rule (`xnn_use_nr2` in its `src/microkernel-utils.c`, XNNPACK as of ExecuTorch 1.5):

* N below 8, or with a remainder to 8 that is more than 1 % of N and that tiles of two outputs do not leave: 4 x 2;
* one pixel: 1 x 8;
* everything else: MR x 8, with the last rows of the last tile computed in vain.

A tile costs `start + step * K` instructions. Both were measured, not read off the sources: `data/kernels.json` is what
`python tests/benchmarks/kernel_costs.py` counted under emulation. A cost, not a speed.
"""

from __future__ import annotations

import functools
import importlib.resources
from typing import Any

import msgspec

from finet_deploy.errors import UsageError, suggest

__all__ = ["CORES", "DEFAULT_CORE", "Kernel", "Kernels", "copy_cost", "kernels"]

CORES = ("cortex-a53", "cortex-a55", "cortex-a72", "cortex-a76", "cortex-a78", "cortex-x1")
DEFAULT_CORE = "cortex-a76"
NR, NARROW_ROWS, NARROW_NR = 8, 4, 2
# Of slices and concatenations: a copy moves 16 or 32 bytes an instruction; an operator is set up for each.
COPY_PER_FLOAT, COPY_PER_RUN, OPERATOR_START = 0.2, 40, 2500


class Kernel(msgspec.Struct, frozen=True):
    """A tile of `rows` x `outputs` costs `start + step * K` instructions."""

    rows: int
    outputs: int
    start: float
    step: float

    def cost(self, pixels: int, inputs: int, outputs: int) -> float:
        """Instructions for M pixels, K inputs, N outputs."""
        tiles = -(-pixels // self.rows) * -(-outputs // self.outputs)
        return tiles * (self.start + self.step * inputs)


class Kernels(msgspec.Struct, frozen=True):
    """The three kernels of a core: for many pixels, for one, and for numbers of outputs that do not fill a tile."""

    wide: Kernel
    single: Kernel
    narrow: Kernel

    def chosen(self, pixels: int, outputs: int) -> Kernel:
        """The kernel that XNNPACK takes."""
        waste, narrow_waste = -outputs % NR, -outputs % NARROW_NR
        if outputs < NR or (narrow_waste < waste and waste * 100 > outputs):
            return self.narrow
        return self.single if pixels == 1 else self.wide

    def cost(self, pixels: int, inputs: int, outputs: int) -> float:
        """Instructions of a pointwise convolution over M pixels with K inputs and N outputs."""
        return self.chosen(pixels, outputs).cost(pixels, inputs, outputs)


def copy_cost(floats: int, runs: int) -> float:
    """Instructions of one copying operator: `floats` values in `runs` contiguous runs."""
    return OPERATOR_START + COPY_PER_RUN * runs + COPY_PER_FLOAT * floats


@functools.cache
def _table() -> dict[str, Kernels]:
    data = importlib.resources.files("finet_deploy.passes").joinpath("data/kernels.json").read_bytes()
    document: dict[str, Any] = msgspec.json.decode(data)
    return msgspec.convert(document["cores"], type=dict[str, Kernels])


def kernels(core: str) -> Kernels:
    """The kernels of a core; UsageError for one that was not measured."""
    if core not in CORES:
        raise UsageError(
            f"unknown core {core!r}", do=suggest(core, CORES) or f"use one of {', '.join(CORES)}"
        )
    return _table()[core]
