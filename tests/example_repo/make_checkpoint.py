"""Stands for training: a small Finet with statistics, but UNTRAINED weights, so that the example needs no data."""

from __future__ import annotations

from pathlib import Path

from finet_deploy import create_model, save_checkpoint
from finet_deploy.images import default_images, preprocessing_for
from finet_deploy.untrained import prepare_untrained

CHECKPOINT = Path(__file__).parent / "checkpoint.safetensors"


def make_checkpoint(path: Path = CHECKPOINT) -> Path:
    model = create_model("finet_small", num_groups=4, num_classes=10, cifar=True, seed=7)
    preprocessing = preprocessing_for(model.model_config, model)
    prepare_untrained(model, default_images(8, preprocessing), seed=7)
    return save_checkpoint(model.eval(), path, preprocessing=preprocessing)


if __name__ == "__main__":
    make_checkpoint()
