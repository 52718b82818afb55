"""MimicNorm against BN on its six CIFAR networks: bytes saved for backward, and the time of a training step.

    OMP_NUM_THREADS=1 python tests/benchmarks/mimic_memory.py [--batch 16] [--rounds 10] [-o results/training]

Bytes are exact (see saved_bytes.py) and stand beside what the reference implementation measures. Steps (forward,
backward, SGD with momentum, and MimicNorm's projection) alternate between the two networks in one process, ABBA, so
that drift hits both alike; the ratio is the median over rounds with its bootstrap interval. Memory is not the
process's: the paper's own figures are, and vary by several percent between runs. Exit 1 when bytes differ from the
reference by more than 1 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from finet_deploy.bench.statistics import median_estimate
from finet_deploy.nn.mimicnorm import project_weight_mean_
from finet_deploy.zoo import create_model
from tests.benchmarks.saved_bytes import saved_bytes

# MiB an image at batch 16, 32 px, measured on Kid-key/MimicNorm at d64fb51: BN, MimicNorm.
REFERENCE = {
    "vgg11": (1.62, 1.04),
    "vgg16": (2.58, 1.52),
    "resnet18": (4.49, 3.08),
    "resnet50": (24.36, 18.11),
    "squeezenet": (4.27, 2.88),
    "shufflenetv2": (5.01, 3.69),
}
CLASSES = 100
LIMIT = 0.01


class Step:
    """One training step of one network, to be called again and again."""

    def __init__(self, name: str, norm: str, images: Tensor, labels: Tensor) -> None:
        self.model = create_model(name, norm=norm, cifar=True, num_classes=CLASSES, seed=0)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
        self.images, self.labels = images, labels

    def seconds(self) -> float:
        before = time.perf_counter()
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(self.images), self.labels).backward()
        self.optimizer.step()
        project_weight_mean_(self.model)
        return time.perf_counter() - before


def measure(name: str, images: Tensor, labels: Tensor, rounds: int) -> dict[str, Any]:
    """One row of the table: MiB an image and the steps' seconds, of both networks."""
    steps = {norm: Step(name, norm, images, labels) for norm in ("bn", "mimic")}
    mib = {n: saved_bytes(step.model, images, labels) / len(images) / 2**20 for n, step in steps.items()}
    samples: dict[str, list[float]] = {"bn": [], "mimic": []}
    for step in steps.values():
        step.seconds()  # warm-up
    for index in range(rounds):
        for norm in ("bn", "mimic") if index % 2 else ("mimic", "bn"):
            samples[norm].append(steps[norm].seconds())
    row: dict[str, Any] = {"network": name, "rounds": rounds}
    for norm, reference in zip(("bn", "mimic"), REFERENCE[name]):
        row |= {f"{norm}_mib": mib[norm], f"{norm}_reference_mib": reference}
        row |= {f"{norm}_step_s": samples[norm]}
    row["saving_percent"] = 100 * (1 - mib["mimic"] / mib["bn"])
    row["reference_saving_percent"] = 100 * (1 - REFERENCE[name][1] / REFERENCE[name][0])
    if rounds:
        ratio = median_estimate([m / b for m, b in zip(samples["mimic"], samples["bn"])])
        row |= {"step_ratio": ratio.value, "step_ratio_low": ratio.low, "step_ratio_high": ratio.high}
    return row


def tables(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """What a reader wants of the rows, rounded; the JSON file keeps every sample."""
    found = []
    for row in rows:
        line: dict[str, Any] = {"network": row["network"]}
        for norm, title in (("bn", "BN"), ("mimic", "MimicNorm")):
            line[f"{title}, MiB an image"] = f"{row[f'{norm}_mib']:.2f}"
            line[f"{title}, reference"] = f"{row[f'{norm}_reference_mib']:.2f}"
        line["saving, %"] = f"{row['saving_percent']:.1f}"
        line["reference, %"] = f"{row['reference_saving_percent']:.1f}"
        if "step_ratio" in row:
            line["step time, MimicNorm / BN"] = f"{row['step_ratio']:.2f}"
            line["95 % interval"] = f"{row['step_ratio_low']:.2f} to {row['step_ratio_high']:.2f}"
        found.append(line)
    return pd.DataFrame(found)


def write(rows: list[dict[str, Any]], batch: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    setting = {"batch": batch, "input": [3, 32, 32], "classes": CLASSES, "threads": torch.get_num_threads()}
    record = {**setting, "torch": torch.__version__, "device": "cpu", "rows": rows}
    (folder / "mimic_memory.json").write_text(json.dumps(record, indent=1) + "\n")
    table = tables(rows)
    table.to_csv(folder / "mimic_memory.csv", index=False)
    header = [list(table.columns), ["---"] + ["---:"] * (len(table.columns) - 1)]
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in [*header, *table.values.tolist()]]
    text = (
        f"Bytes saved for backward, exact; batch {batch}, 32 px, {CLASSES} classes, torch {torch.__version__}, CPU,"
        f" {setting['threads']} thread(s). Reference: Kid-key/MimicNorm at d64fb51. Step times are of one"
        " interleaved run.\n\n"
    )
    (folder / "mimic_memory.md").write_text(text + "\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10, help="of steps; 0 measures the bytes alone")
    parser.add_argument("--networks", nargs="+", choices=REFERENCE, default=list(REFERENCE))
    parser.add_argument("-o", "--output", type=Path, default=Path("results/training"))
    options = parser.parse_args()
    if options.rounds == 1 or options.rounds < 0:
        parser.error("an interval needs two rounds or more")
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(options.batch, 3, 32, 32, generator=generator)
    labels = torch.randint(0, CLASSES, (options.batch,), generator=generator)
    rows = []
    for name in options.networks:
        rows.append(measure(name, images, labels, options.rounds))
        print(tables(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
    write(rows, options.batch, options.output)
    off = [
        row["network"]
        for row in rows
        for norm in ("bn", "mimic")
        if abs(row[f"{norm}_mib"] / row[f"{norm}_reference_mib"] - 1) > LIMIT
    ]
    if off and options.batch == 16:
        print(f"more than 1 % from the reference: {', '.join(dict.fromkeys(off))}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
