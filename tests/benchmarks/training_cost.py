"""What a training step of FBN costs in memory and time: plain BN, the grouped form and the moment form, by G.

    python tests/benchmarks/training_cost.py [--quick] [--networks finet_large,resnet50_fbn] [--groups 1,2,4,8,16,Cin]
        [--rounds N] [--steps N] [--threads 2] [--device cpu] [--out results/training]

Bytes saved for backward: distinct storages that autograd keeps from the forward pass, parameters and the input batch's
labels not counted; exact. Where a variant would keep more than --memory-limit-mib, the bytes are counted on shapes
alone (fake tensors) and it is not timed. Step: forward, cross-entropy, backward and SGD with momentum. All variants of
a network are visited once a round, in rotated order; a visit builds the network anew, takes one step to warm up and
times --steps. Ratios are taken within a round, at the same G; intervals are bootstrapped over rounds. `bn again` is
plain BN a second time: the noise floor. `Cin`: one input a group.

Writes cost_NETWORK.json (every sample), .csv and .md, each network when it is done. Exit 1 when a target is missed;
--quick only says so.
"""

from __future__ import annotations

import argparse
import csv
import gc
import io
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from finet_deploy.bench.statistics import Estimate, median_estimate, noise_floor, paired_ratio
from finet_deploy.devices.probes import host_info, host_state
from finet_deploy.files import atomic_write_text
from finet_deploy.nn.fbn import FBNConv2d, set_impl
from finet_deploy.report.markdown import render_table
from finet_deploy.zoo import create_model

ALL = "Cin"
MIB = 2**20
VARIANTS = ("bn", "grouped", "moments")
AGAIN = "bn again"


@dataclass(frozen=True)
class Network:
    title: str
    batch: int
    size: int  # pixels
    cifar: bool
    num_classes: int
    rounds: int
    steps: int  # timed in one visit


NETWORKS = {
    "finet_large": Network("Finet-large", 16, 224, False, 1000, rounds=11, steps=3),
    "resnet50_fbn": Network("ResNet50, CIFAR form", 32, 32, True, 10, rounds=3, steps=1),  # seconds a step
}


@dataclass
class Row:
    """One variant of one network at one G; samples: seconds a step by round."""

    network: str
    groups: str
    variant: str
    saved_bytes: int = 0
    counted: str = "run"  # or "shapes"
    peak_cuda_bytes: int | None = None
    samples: dict[int, list[float]] = field(default_factory=dict)

    def seconds(self) -> dict[int, float]:
        return {number: statistics.median(values) for number, values in self.samples.items()}


def plain_bn(model: nn.Module) -> nn.Module:
    """Every FBN layer becomes an ordinary convolution of the same widths and a batch norm, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, FBNConv2d):
                conv = nn.Conv2d(
                    child.in_channels,
                    child.out_channels,
                    child.conv.kernel_size,  # type: ignore[arg-type]
                    child.conv.stride,  # type: ignore[arg-type]
                    child.conv.padding,  # type: ignore[arg-type]
                    bias=False,
                )
                norm = nn.BatchNorm2d(child.out_channels, affine=child.bn.affine)
                setattr(module, name, nn.Sequential(conv, norm))
    return model


def build(row: Row) -> nn.Module:
    net = NETWORKS[row.network]
    split: dict[str, Any] = (
        {"channels_per_group": 1} if row.groups == ALL else {"num_groups": int(row.groups)}
    )
    model = create_model(row.network, cifar=net.cifar, num_classes=net.num_classes, seed=0, **split)
    if row.variant.startswith("bn"):
        return plain_bn(model).train()
    set_impl(model, "grouped" if row.variant == "grouped" else "moments")
    return model.train()


def inputs(net: Network, batch: int, device: str) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch, 3, net.size, net.size, device=device)
    return x, torch.arange(batch, device=device) % net.num_classes


def saved_bytes(model: nn.Module, x: Tensor, labels: Tensor) -> int:
    """Bytes of the distinct storages that the graph keeps, parameters not counted."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    own.add(labels.untyped_storage()._cdata)
    kept: dict[int, tuple[int, Tensor]] = {}  # the tensors too: a freed storage's address may come again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        nn.functional.cross_entropy(model(x), labels)
    return sum(size for size, _ in kept.values())


def count(row: Row, batch: int, limit_bytes: int) -> None:
    """Fill in the row's bytes: on shapes first, then in a real run if that fits."""
    net = NETWORKS[row.network]
    with FakeTensorMode():
        row.saved_bytes = saved_bytes(build(row), *inputs(net, batch, "cpu"))
    row.counted = "shapes"
    if row.saved_bytes <= limit_bytes:
        row.saved_bytes = saved_bytes(build(row), *inputs(net, batch, "cpu"))
        row.counted = "run"


def visit(row: Row, number: int, batch: int, steps: int, device: str) -> None:
    model = build(row).to(device)
    x, labels = inputs(NETWORKS[row.network], batch, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    cuda = device != "cpu"
    for index in range(steps + 1):
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        before = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
            row.peak_cuda_bytes = torch.cuda.max_memory_allocated()
        if index:  # the first one warms up
            row.samples.setdefault(number, []).append(time.perf_counter() - before)
    del model, optimizer
    gc.collect()


def measure(network: str, options: argparse.Namespace) -> list[Row]:
    net = NETWORKS[network]
    batch = options.batch or net.batch
    rows = [Row(network, groups, variant) for groups in options.groups.split(",") for variant in VARIANTS]
    for row in rows:
        count(row, batch, options.memory_limit_mib * MIB)
        print(f"{network} G={row.groups} {row.variant}: {row.saved_bytes / 1e6:.1f} MB ({row.counted})")
    first = next(row for row in rows if row.variant == "bn")
    rows.append(Row(network, first.groups, AGAIN, first.saved_bytes, first.counted))
    timed = [row for row in rows if row.counted == "run"]
    rounds = options.rounds or net.rounds
    for number in range(rounds):
        turn = number % len(timed)
        for row in timed[turn:] + timed[:turn]:
            visit(row, number, batch, options.steps or net.steps, options.device)
        print(f"{network}: round {number + 1} of {rounds}", flush=True)
    return rows


def ratio_to(row: Row, rows: list[Row], variant: str) -> Estimate | None:
    """Seconds of this row over those of `variant` at the same G, by round."""
    base = find(rows, row.network, row.groups, variant)
    return None if base is None else paired_ratio(row.seconds(), base.seconds())


def find(rows: list[Row], network: str, groups: str, variant: str) -> Row | None:
    keys = (network, groups, variant)
    return next((row for row in rows if (row.network, row.groups, row.variant) == keys), None)


def summary(row: Row, rows: list[Row]) -> dict[str, Any]:
    base = find(rows, row.network, row.groups, "bn")
    assert base is not None  # every G has its BN row
    values: dict[str, Any] = {"network": row.network, "groups": row.groups, "variant": row.variant}
    values |= {"saved_bytes": row.saved_bytes, "counted": row.counted}
    values["saved_ratio_to_bn"] = row.saved_bytes / base.saved_bytes
    values["peak_cuda_bytes"] = row.peak_cuda_bytes
    seconds = list(row.seconds().values())
    estimates = {
        "seconds": median_estimate(seconds) if seconds else None,
        "ratio_to_bn": ratio_to(row, rows, "bn"),
        "ratio_to_moments": ratio_to(row, rows, "moments"),
    }
    for name, estimate in estimates.items():
        values[name] = None if estimate is None else estimate.value
        values[f"{name}_low"] = None if estimate is None else estimate.low
        values[f"{name}_high"] = None if estimate is None else estimate.high
    return values


def targets(rows: list[Row]) -> list[tuple[str, float, str, float, bool]]:
    """What is promised, and what was found: (claim, value, relation, limit, met)."""
    found: list[tuple[str, float | None, str, float]] = []
    for row in rows:
        base = find(rows, row.network, row.groups, "bn")
        assert base is not None
        if row.variant == "moments" and row.network == "finet_large":
            ratio = row.saved_bytes / base.saved_bytes
            found.append((f"Finet-large, G = {row.groups}: bytes of moments / BN", ratio, "<=", 0.80))
        if row.variant == "moments" and (row.network, row.groups) == ("resnet50_fbn", "4"):
            ratio = row.saved_bytes / base.saved_bytes
            found.append(("ResNet50, CIFAR form, G = 4: bytes of moments / BN", ratio, "<=", 1.1))
    for groups, variant, base_variant, relation, limit in (
        ("4", "moments", "bn", "<=", 1.10),
        ("4", "grouped", "moments", ">=", 1.8),
        ("8", "grouped", "moments", ">=", 3.0),
    ):
        timed = find(rows, "finet_large", groups, variant)
        estimate = None if timed is None else ratio_to(timed, rows, base_variant)
        claim = f"Finet-large, G = {groups}: step of {variant} / {base_variant}"
        found.append((claim, None if estimate is None else estimate.value, relation, limit))
    return [
        (claim, value, relation, limit, value <= limit if relation == "<=" else value >= limit)
        for claim, value, relation, limit in found
        if value is not None
    ]


def shown(values: dict[str, Any], name: str) -> str:
    if values[name] is None:
        return "–"
    if values[f"{name}_low"] is None:
        return f"{values[name]:.3f}"
    return f"{values[name]:.3f} [{values[f'{name}_low']:.3f}, {values[f'{name}_high']:.3f}]"


def markdown(rows: list[Row], facts: dict[str, Any]) -> str:
    lines = ["# What a training step of FBN costs", ""]
    lines += [f"* {name}: {value}" for name, value in facts["described"].items()]
    columns = ["G", "form", "saved for backward, MB", "/ BN", "step, s", "/ BN at the same G", "/ moments"]
    cuda = facts["device"] != "cpu"
    for network in dict.fromkeys(row.network for row in rows):
        net, own = NETWORKS[network], [row for row in rows if row.network == network]
        lines += ["", f"## {net.title}, batch {facts['batch'] or net.batch}, {net.size} px", ""]
        table = []
        for row in own:
            values = summary(row, rows)
            mark = "" if row.counted == "run" else " (from shapes: too large to run)"
            cells = [row.groups, row.variant, f"{row.saved_bytes / 1e6:.1f}{mark}"]
            cells += [f"{values['saved_ratio_to_bn']:.3f}", shown(values, "seconds")]
            cells += [shown(values, "ratio_to_bn"), shown(values, "ratio_to_moments")]
            table.append(cells + ([f"{(row.peak_cuda_bytes or 0) / 1e6:.1f}"] if cuda else []))
        lines.append(render_table(columns + (["peak CUDA memory, MB"] if cuda else []), table))
        again = next(row for row in own if row.variant == AGAIN)
        floor = noise_floor(ratio_to(again, rows, "bn"))
        known = "not known (one round)" if floor is None else f"a factor of {floor:.3f}"
        lines += ["", f"Noise floor (plain BN against itself): {known}."]
    lines += ["", "## Targets", ""]
    for claim, value, relation, limit, met in targets(rows):
        lines.append(f"* {'met' if met else 'MISSED'}: {claim} = {value:.3f} ({relation} {limit:g})")
    return "\n".join(lines) + "\n"


def described(network: str, options: argparse.Namespace) -> dict[str, Any]:
    host, net = host_info(), NETWORKS[network]
    where = "host CPU" if options.device == "cpu" else torch.cuda.get_device_name()
    return {
        "device": options.device,
        "batch": options.batch,
        "machine": msgspec.to_builtins(host),
        "state_at_end": msgspec.to_builtins(host_state()),
        "described": {
            "measured on": f"{where} ({host.cpu_model.value}, {host.cpu_count} CPUs), not a phone",
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "rounds": f"{options.rounds or net.rounds}, "
            f"{options.steps or net.steps} timed steps in each visit, fp32",
            "intervals": "95 %, bootstrap over rounds; a ratio is taken within each round",
        },
    }


def write(network: str, rows: list[Row], facts: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    summaries = [summary(row, rows) for row in rows]
    content = {"schema_version": 1, **facts, "rows": [asdict(row) for row in rows], "summary": summaries}
    atomic_write_text(folder / f"cost_{network}.json", json.dumps(content, indent=1) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(summaries[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(summaries)
    atomic_write_text(folder / f"cost_{network}.csv", text.getvalue())
    atomic_write_text(folder / f"cost_{network}.md", markdown(rows, facts))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", default=",".join(NETWORKS), help="default: %(default)s")
    parser.add_argument("--groups", default=f"1,2,4,8,16,{ALL}", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, help="default: 11 (Finet-large), 3 (ResNet50)")
    parser.add_argument(
        "--steps", type=int, help="timed steps a visit; default: 3 (Finet-large), 1 (ResNet50)"
    )
    parser.add_argument("--batch", type=int, help="images a step; default: 16 (Finet-large), 32 (ResNet50)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--memory-limit-mib", type=int, default=4096, help="do not run what keeps more")
    parser.add_argument("--out", type=Path, default=Path("results/training"))
    parser.add_argument("--quick", action="store_true", help="Finet-large at G = 4, 8; 3 rounds of one step")
    options = parser.parse_args()
    if options.quick:
        options.networks, options.groups, options.rounds, options.steps = "finet_large", "4,8", 3, 1
    unknown = set(options.networks.split(",")) - NETWORKS.keys()
    if unknown:
        parser.error(f"unknown networks: {', '.join(sorted(unknown))}; known: {', '.join(NETWORKS)}")
    if any(number is not None and number < 1 for number in (options.rounds, options.steps)):
        parser.error("--rounds and --steps must be positive")
    return options


def main() -> int:
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    missed = False
    for network in options.networks.split(","):
        rows = measure(network, options)
        facts = described(network, options)
        write(network, rows, facts, options.out)
        print(markdown(rows, facts))
        missed = missed or any(not met for *_, met in targets(rows))
    return 1 if missed and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
