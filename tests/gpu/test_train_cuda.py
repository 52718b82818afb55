"""The Finet paper's ImageNet recipe as it stands: one step of finet_large takes 12 GB, and minutes without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finet_deploy.checkpoint import load_checkpoint
from tests.data_sets import make_image_folder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none"
    ),
]


def test_the_papers_imagenet_recipe_trains_finet_large_with_only_its_epochs_cut(tmp_path: Path) -> None:
    data = make_image_folder(tmp_path / "images", classes=1000, train=1, val=1)
    arguments = [
        "--recipe",
        "paper-imagenet",
        "--data",
        data,
        "--epochs",
        "1",
        "-o",
        tmp_path / "run",
        "--json",
    ]
    command = [sys.executable, "-m", "finet_deploy", "train", *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert (result["steps"], result["recipe"]["batch_size"], result["recipe"]["model"]) == (
        1,
        512,
        "finet_large",
    )
    model = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert model.model_config.title == "finet_large G=4 SE dropout=0.2"
