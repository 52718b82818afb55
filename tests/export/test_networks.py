"""Every network that ships by name passes its certificate in all three formats, files included."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from finet_deploy.bench.settings import load_suite
from finet_deploy.export import Bundle, export, read_bundle
from finet_deploy.images import default_images, evaluation_inputs, preprocessing_for
from finet_deploy.names import ALIASES
from finet_deploy.untrained import prepare_untrained
from finet_deploy.zoo import create_model
from tests.shared_bundles import table4_bundles

NETWORKS = [
    ("finet_small", {"se": True}),
    ("finet_small", {"num_groups": 2, "affine": False}),
    ("finet_large", {"num_groups": 8}),
    ("finet_large", {"se": True, "channels_per_group": 50}),
    ("resnet18_fbn", {}),
    ("resnet50_fbn", {"cifar": True, "num_classes": 100}),
    *((name, {}) for name in ALIASES),
]


SUITE = {row.model: row.name for row in load_suite("table4").rows if not row.options}


def exported(name: str, options: dict[str, Any], folder: Path, shared: pytest.TempPathFactory) -> Bundle:
    """Its bundle; table4's peers are exported once for all tests, by `bench`, in the same way."""
    if name in ALIASES and not ALIASES[name].options and ALIASES[name].target in SUITE:
        return read_bundle(table4_bundles(shared) / SUITE[ALIASES[name].target])
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
