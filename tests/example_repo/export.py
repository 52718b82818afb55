"""How this repository exports: the checkpoint, as it is, in fp32 and in int8. Its bundles are committed."""

from __future__ import annotations

from pathlib import Path

import torch

from finet_deploy import export, load_checkpoint
from finet_deploy.images import natural_noise
from finet_deploy.quantize import calibration_of

HERE = Path(__file__).parent


def export_all(checkpoint: Path = HERE / "checkpoint.safetensors", bundles: Path = HERE / "bundles") -> None:
    model = load_checkpoint(checkpoint)
    export(model, bundles / "classifier", formats=("onnx",), overwrite=True)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.cat(
        [natural_noise(32, 32, generator) for _ in range(12)]
    )  # yours: photographs of your classes
    calibration = calibration_of(pictures, "natural noise")
    export(
        model,
        bundles / "classifier_int8",
        formats=("onnx",),
        dtype="int8",
        calibration=calibration,
        passes="none",
        overwrite=True,
    )


if __name__ == "__main__":
    export_all()
