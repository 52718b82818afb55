"""The papers' recipes, as they stand but for their epochs, train from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finet_deploy import load_checkpoint
from finet_deploy.train.recipe_fields import field_specs
from finet_deploy.train.recipes import Recipe, load_recipe
from tests.cli import run_cli
from tests.data_sets import make_cifar, make_image_folder


def changed_fields(folder: Path, name: str, model: str | None = None) -> set[str]:
    used, recipe = load_recipe(folder / "recipe.json"), load_recipe(name, model)
    return {field for field in field_specs(Recipe) if getattr(used, field) != getattr(recipe, field)}


def test_the_papers_cifar_recipe_trains_with_only_its_epochs_cut(capsys, tmp_path):
    data, folder = make_cifar(tmp_path / "cifar", train=128, test=10), tmp_path / "run"
    arguments = ["--recipe", "paper-cifar", "--data", data, "--epochs", 1, "-o", folder, "--json"]
    status, out, err = run_cli(capsys, "train", *arguments)
    assert status == 0, err
    assert changed_fields(folder, "paper-cifar") == {"epochs"}
    assert (json.loads(out)["steps"], json.loads(out)["recipe"]["batch_size"]) == (1, 128)
    assert load_checkpoint(folder / "model.safetensors").model_config.title == "finet_large G=4 cifar"


SMALL = ["--image-size", "32", "--resize", "37"]  # a fiftieth of the work


@pytest.mark.parametrize(
    ("more", "cut"),
    [
        pytest.param(SMALL, {"image_size", "resize"}, id="32px"),
        pytest.param([], set(), id="224px", marks=pytest.mark.thorough),
    ],
)
def test_the_papers_imagenet_recipe_trains_a_thousand_classes_with_its_own_batch(tmp_path, more, cut):
    """One step of 512 images through finet_small; finet_large takes 12 GB and minutes: tests/gpu."""
    data = make_image_folder(tmp_path / "images", classes=1000, train=1, val=1)
    folder = tmp_path / "run"
    arguments = ["finet_small", "--recipe", "paper-imagenet", "--data", data, "--epochs", "1", "-o", folder]
    command = [
        sys.executable,
        "-m",
        "finet_deploy",
        "train",
        *arguments,
        *more,
        "--json",
    ]  # its memory goes with it
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert changed_fields(folder, "paper-imagenet") == {"epochs", "model"} | cut
    result = json.loads(process.stdout)
    assert (result["steps"], result["recipe"]["batch_size"]) == (1, 512)
    model = load_checkpoint(folder / "model.safetensors")
    assert model.model_config.title == "finet_small G=4 SE dropout=0.2"
    assert (
        model.weights_origin["preprocessing"]["resize"] == result["recipe"]["resize"] == (37 if cut else 256)
    )
