"""What can be compared without timing anything: size, delegation, certificate, and ARM cost that was counted before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from finet_deploy.bench.protocol import Row
from finet_deploy.bench.summary import fusion_label
from finet_deploy.json_files import read_json
from finet_deploy.runner.cost import CostRow, CostTable

__all__ = ["Fact", "facts_of", "read_costs"]

MAX_COST_BYTES = 32 << 20
CERTIFICATE, SIZE, COST = "certificate", "file bytes", "ARM instructions"


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One property of a row's bundle on both sides. factor: new / base where both are numbers above 0.

    kind: what `--fail-on` calls it, None for a property that is shown and never fails. worse: whether it is, by any
    amount. emulated: counted under emulation, so a cost and no speed.
    """

    name: str
    base: str | float | None
    new: str | float | None
    kind: str | None = None
    worse: bool = False
    emulated: bool = False

    @property
    def changed(self) -> bool:
        """Whether the sides differ in it."""
        return self.base != self.new

    @property
    def factor(self) -> float | None:
        """new / base of two numbers above 0."""
        if isinstance(self.base, str) or isinstance(self.new, str) or not self.base or not self.new:
            return None
        return self.new / self.base


def read_costs(paths: Sequence[Path]) -> list[CostRow]:
    """The rows of `cost.json` files, as `finet-deploy cost -o` writes them. FinetDeployError for another file."""
    rows: list[CostRow] = []
    for path in paths:
        found = path / "cost.json" if path.is_dir() else path
        do = "name the cost.json that `finet-deploy cost -o DIR` wrote"
        table = read_json(found, CostTable, max_bytes=MAX_COST_BYTES, what="not a table of costs", do=do)
        rows.extend(table.rows)
    return rows


def facts_of(
    base: Row, new: Row, base_costs: Sequence[CostRow], new_costs: Sequence[CostRow]
) -> tuple[Fact, ...]:
    """The properties that these two rows carry. Costs are found by the file's hash."""
    return tuple(_facts(base, new)) + tuple(_costs(base, new, base_costs, new_costs))


def _facts(base: Row, new: Row) -> Iterator[Fact]:
    old, now = base.artifact, new.artifact
    verdicts = ["passed" if row.certificate_passed else "FAILED" for row in (base, new)]
    yield Fact(
        name=CERTIFICATE,
        base=verdicts[0],
        new=verdicts[1],
        kind=CERTIFICATE,
        worse=not new.certificate_passed,
    )
    yield Fact(name=SIZE, base=old.bytes, new=now.bytes, kind="size", worse=now.bytes > old.bytes)
    yield Fact(name="fusion", base=fusion_label(base), new=fusion_label(new))
    yield Fact(name="precision", base=old.dtype, new=now.dtype)
    yield Fact(name="parameters", base=base.params, new=new.params)
    yield Fact(name="multiply-adds", base=base.macs, new=new.macs)
    yield Fact(
        name="delegates", base=old.delegates, new=now.delegates, kind="delegation",
        worse=None not in (old.delegates, now.delegates) and (now.delegates or 0) > (old.delegates or 0),
    )  # fmt: skip
    yield Fact(
        name="delegated share", base=old.delegated_share, new=now.delegated_share, kind="delegation",
        worse=None not in (old.delegated_share, now.delegated_share)
        and (now.delegated_share or 0) < (old.delegated_share or 0),
    )  # fmt: skip
    yield Fact(name="operations outside delegates", base=old.nodes_outside, new=now.nodes_outside)
    yield Fact(name="normalization operations", base=old.normalization_ops, new=now.normalization_ops)
    yield Fact(name="notices", base="; ".join(old.notices) or "none", new="; ".join(now.notices) or "none")


def _costs(
    base: Row, new: Row, base_costs: Sequence[CostRow], new_costs: Sequence[CostRow]
) -> Iterator[Fact]:
    theirs = {cost.core: cost for cost in new_costs if _is_of(cost, new)}
    for core, cost in {cost.core: cost for cost in base_costs if _is_of(cost, base)}.items():
        if core in theirs:
            yield Fact(
                name=f"{COST} on {core} (emulated)",
                base=cost.instructions,
                new=theirs[core].instructions,
                kind="cost",
                worse=theirs[core].instructions > cost.instructions,
                emulated=True,
            )


def _is_of(cost: CostRow, row: Row) -> bool:
    return cost.artifact_sha256 == row.artifact.sha256 and cost.runtime == row.artifact.runtime
