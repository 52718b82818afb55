"""A user's program, type-checked strictly by `make type` and never run: the public API says what it returns."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from typing_extensions import assert_type

import finet_deploy
from finet_deploy import (
    bench,
    create_model,
    export,
    fuse,
    load_checkpoint,
    read_bundle,
    report,
    save_checkpoint,
    verify,
    verify_bundle,
)
from finet_deploy.api import BenchResult, Report, Silent
from finet_deploy.bench.plan import BenchRow
from finet_deploy.export import Bundle
from finet_deploy.verify import Certificate


class Loud(Silent):
    """A listener of the user's."""

    def note(self, text: str) -> None:
        raise SystemExit(text)


def whole_way(path: str) -> str:
    """Every public function once, with paths as strings and as paths."""
    model = load_checkpoint(path)
    assert_type(create_model("finet_small", num_groups=2, seed=0), nn.Module)
    assert_type(fuse(model), nn.Module)
    assert_type(verify(model), Certificate)
    assert_type(save_checkpoint(model, "copy.safetensors"), Path)
    bundle = export(model, Path("bundles/mine"), formats=["onnx"])
    assert_type(bundle, Bundle)
    assert_type(read_bundle(bundle.path), Bundle)
    assert_type(verify_bundle(bundle).passed, bool)
    result = bench({"mine": bundle.path, "other": "bundles/other"}, preset="demo", listener=Loud())
    assert_type(result, BenchResult)
    bench(["bundles/mine", BenchRow(bundle.path, "again")], device=["host"], runner="python")
    ratios = [row.ratio for comparison in result.comparisons for row in comparison.rows]
    tables = report(result.folder, format="csv", out="tables")
    assert_type(tables, Report)
    assert_type(finet_deploy.report([result.folder, "runs/two"]).text, str)
    return f"{tables.text}{ratios}"
