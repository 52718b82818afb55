"""What XNNPACK's fp32 matrix kernels cost on each core: the table behind `finet_deploy/passes/kernels.py`.

    python tests/benchmarks/kernel_costs.py [--core cortex-a76] [-o finet_deploy/passes/data/kernels.json]

Chains of one and of three equal pointwise convolutions are exported and counted under emulation; half their difference
is one convolution, whatever surrounds it. Two sizes give a kernel's start and its step per input; images of one row,
wider and wider, give its number of pixels. Counts, not speeds.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import tempfile
from pathlib import Path

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finet_deploy.export import export
from finet_deploy.files import atomic_write_bytes
from finet_deploy.passes.kernels import CORES, NARROW_NR, NARROW_ROWS, NR, Kernel, Kernels
from finet_deploy.runner.cost import measure_cost

SIDE = 12  # 144 pixels: a whole number of tiles of 2, 3, 4, 6 and 8
WIDE, NARROW, ROW = (
    (96, 192),
    (100, 196),
    64,
)  # 100 and 196 leave half a tile, so that tiles of two outputs run


class Chain(nn.Module):
    """(1, 3, H, W) -> (1, C): `length` pointwise convolutions of C channels, each with a ReLU."""

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, channels, 1)
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(length))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        for conv in self.convs:
            x = F.relu(conv(x))
        return x.mean((2, 3), keepdim=True).flatten(1)


def bundles(folder: Path) -> list[tuple[Path, str]]:
    """All chains, as bundles with labels `channels x height x width x length`."""
    sizes = [(channels, SIDE, SIDE) for channels in (*WIDE, *NARROW)]
    sizes += [(channels, 1, 1) for channels in WIDE] + [(ROW, 1, width) for width in range(2, 10)]
    made = []
    for (channels, H, W), length in itertools.product(sizes, (1, 3)):
        label = f"{channels}x{H}x{W}x{length}"
        generator = torch.Generator().manual_seed(1)
        inputs = {name: torch.randn(1, 3, H, W, generator=generator) for name in ("first", "second")}
        model = Chain(channels, length).eval()
        export(model, folder / label, formats=("pte",), passes="none", inputs=inputs, name=label)
        made.append((folder / label, label))
    return made


def kernels_of(core: str, made: list[tuple[Path, str]]) -> Kernels:
    """Start and step of the three kernels of `core`, from the counts."""
    counts = {row.label: row.instructions for row in measure_cost(made, cores=[core]).rows}

    def one(channels: int, H: int, W: int) -> float:
        return (counts[f"{channels}x{H}x{W}x3"] - counts[f"{channels}x{H}x{W}x1"]) / 2

    def fitted(sizes: tuple[int, int], H: int, W: int, rows: int, outputs: int) -> Kernel:
        small, large = (one(size, H, W) / (-(-H * W // rows) * -(-size // outputs)) for size in sizes)
        step = (large - small) / (sizes[1] - sizes[0])
        return Kernel(rows, outputs, round(small - step * sizes[0], 3), round(step, 4))

    rows = next(width - 1 for width in range(3, 10) if one(ROW, 1, width) > 1.2 * one(ROW, 1, 2))
    return Kernels(
        wide=fitted(WIDE, SIDE, SIDE, rows, NR),
        single=fitted(WIDE, 1, 1, 1, NR),
        narrow=fitted(NARROW, SIDE, SIDE, NARROW_ROWS, NARROW_NR),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--core", action="append", dest="cores", choices=CORES)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        count = functools.partial(kernels_of, made=bundles(Path(name)))
        cores = {core: count(core) for core in options.cores or CORES}
    document = {
        "emulated": True,
        "note": "instructions per tile: start + step * inputs; made by tests/benchmarks/kernel_costs.py",
        "cores": {core: msgspec.to_builtins(table) for core, table in cores.items()},
    }
    data = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
    print(data.decode())
    if options.output is not None:
        atomic_write_bytes(options.output, data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
