"""Every network that ships by name passes its certificate in all three formats, files included."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from finet_deploy.bench.settings import load_suite
from finet_deploy.export import Bundle, export, read_bundle
from finet_deploy.images import default_images, evaluation_inputs, preprocessing_for
from finet_deploy.names import ALIASES, resolve_config
from finet_deploy.untrained import prepare_untrained
from finet_deploy.zoo import create_model
from tests.shared_bundles import table4_bundles

NETWORKS = [
    ("finet_small", {"se": True, "channels_per_group": 10}),
    ("finet_small", {"num_groups": 8, "affine": False}),
    ("finet_large", {"num_groups": 4, "se": False}),
    ("finet_large", {"num_groups": 4, "se": True}),
    ("resnet18_fbn", {}),
    ("resnet50_fbn", {"cifar": True, "num_classes": 100}),
    *((name, {}) for name in ALIASES),
]


SUITE = {resolve_config(row.model, **row.options): row.name for row in load_suite("table4").rows}


def exported(name: str, options: dict[str, Any], folder: Path, shared: pytest.TempPathFactory) -> Bundle:
    """Its bundle; the networks of table4 are exported once for all tests, by `bench`, in the same way."""
    plain = name in ALIASES and not ALIASES[name].options
    config = resolve_config(ALIASES[name].target if plain else name, **options)
    if config in SUITE:
        return read_bundle(table4_bundles(shared) / SUITE[config])
    model = create_model(name, seed=0, **options)
    preprocessing = preprocessing_for(model.model_config, model)
    pictures = default_images(24, preprocessing)
    prepare_untrained(model, pictures)
    return export(model, folder / "bundle", inputs=evaluation_inputs(pictures[:2]))


@pytest.mark.parametrize(("name", "options"), NETWORKS, ids=[f"{n}-{o}" for n, o in NETWORKS])
def test_the_fused_network_is_the_same_function_in_every_format(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str, options: dict[str, Any]
) -> None:
    if name in ALIASES and ALIASES[name].target.startswith("timm:") and not importlib.util.find_spec("timm"):
        pytest.skip("the timm extra is not installed")
    bundle = exported(name, options, tmp_path, tmp_path_factory)
    certificate = bundle.certificate()
    assert certificate.passed
    assert bundle.manifest.fuse_report["left"] == 0
    assert bundle.manifest.program_normalization_ops == 0
    for fmt in ("pte", "onnx", "ptl"):
        check = certificate.check(f"artifact/{fmt}")
        assert check.passed
        assert 0 < check.figures["max_error"] < 1e-5
        assert bundle.artifact(fmt).normalization_ops == 0
    if name.startswith("finet"):
        assert bundle.artifact("pte").delegates == 1
        assert bundle.artifact("pte").nodes_outside <= 1
