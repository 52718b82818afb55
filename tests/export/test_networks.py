"""Every network that ships by name passes its certificate in every format, files included."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from finet_deploy.bench.settings import load_suite
from finet_deploy.export import Bundle, read_bundle
from finet_deploy.names import ALIASES, resolve_config
from finet_deploy.runtimes import FORMATS
from finet_deploy.zoo import create_model
from tests.shared_bundles import export_small, export_whole, table4_bundles

ALL = tuple(FORMATS)
# Of what table4 has no network of, each in one format.
OWN = [
    ("finet_small", {"se": True, "channels_per_group": 10}, ("onnx",)),
    ("finet_small", {"num_groups": 8, "affine": False}, ("pte",)),
    ("resnet18_fbn", {}, ("ptl",)),
]
TABLE4 = load_suite("table4").rows
# The same with another width: only in the thorough test.
SIBLINGS = [
    name
    for name, alias in ALIASES.items()
    if resolve_config(name if alias.options else alias.target)
    not in [resolve_config(row.model, **row.options) for row in TABLE4]
]


def certified(bundle: Bundle, formats: tuple[str, ...], *, finet: bool) -> None:
    certificate = bundle.certificate()
    assert certificate.passed
    assert bundle.manifest.fuse_report["left"] == 0
    assert bundle.manifest.program_normalization_ops == 0
    assert bundle.formats == formats
    for fmt in formats:
        check = certificate.check(f"artifact/{fmt}")
        assert check.passed
        assert 0 < check.figures["max_error"] < 1e-5
        assert bundle.artifact(fmt).normalization_ops == 0
    if finet and "pte" in formats:
        assert bundle.artifact("pte").delegates == 1
        assert bundle.artifact("pte").nodes_outside <= 1


def needs_timm(target: str) -> None:
    if target.startswith("timm:") and not importlib.util.find_spec("timm"):
        pytest.skip("the timm extra is not installed")


@pytest.mark.parametrize("row", TABLE4, ids=[row.name for row in TABLE4])
def test_a_network_of_table4_is_the_same_function_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, row: Any
) -> None:
    needs_timm(row.model)
    bundle = read_bundle(table4_bundles(tmp_path_factory) / row.name)
    certified(bundle, ALL, finet=row.model.startswith("finet"))


@pytest.mark.parametrize(("name", "options", "formats"), OWN, ids=[f"{n}-{o}" for n, o, _ in OWN])
def test_a_network_of_ours_is_the_same_function_in_its_files(
    tmp_path: Path, name: str, options: dict[str, Any], formats: tuple[str, ...]
) -> None:
    bundle = export_small(create_model(name, seed=0, **options), tmp_path / "bundle", formats=formats)
    certified(bundle, formats, finet=name.startswith("finet"))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((row.model, row.options) for row in TABLE4),
        *((name, options) for name, options, _ in OWN),
        ("resnet50_fbn", {}),
        ("resnet50_fbn", {"cifar": True, "num_classes": 100}),
        *((name, {}) for name in SIBLINGS),
    ],
    ids=str,
)
def test_each_network_is_the_same_function_in_every_format_at_its_own_size(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    needs_timm(ALIASES[name].target if name in ALIASES else name)
    bundle = export_whole(create_model(name, seed=0, **options), tmp_path / "bundle")
    certified(bundle, ALL, finet=name.startswith("finet"))
