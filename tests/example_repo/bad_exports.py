"""Five ways in which exports go wrong, each as a script does it that means well. The guards must catch every one.

None of them goes through `finet-deploy export`, which would refuse: they put files of their own into a good bundle and
make the manifest agree, hashes too. What they leave is a bundle with a passed certificate, of other files.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from finet_deploy import fuse, load_checkpoint
from finet_deploy.nn import FBNConv2d

SHAPE = (1, 3, 32, 32)
FIRST_BLOCK = "stage2.0.conv1"


def unfused(bundle: Path, checkpoint: Path) -> None:
    """torch.onnx.export of the network as it was trained. It computes the same, and costs a multiple."""
    _replace(bundle, _exported(load_checkpoint(checkpoint)))


def wrong_statistics(bundle: Path, checkpoint: Path) -> None:
    """Statistics of one layer lost on the way (buffers that were not saved), then fused and exported."""
    model = load_checkpoint(checkpoint)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    norms[3].running_mean.zero_()
    norms[3].running_var.fill_(1.0)
    _replace(bundle, _exported(fuse(model)))


def swapped_groups(bundle: Path, checkpoint: Path) -> None:
    """A fuse written by hand that puts the first two groups of a block's FBN in the wrong order."""
    model = load_checkpoint(checkpoint)
    layer = model.get_submodule(FIRST_BLOCK)
    assert isinstance(layer, FBNConv2d)
    fused = fuse(model)
    weight = fused.get_submodule(FIRST_BLOCK).weight
    size = weight.shape[1] // layer.num_groups
    order = torch.arange(weight.shape[1])
    order[: 2 * size] = torch.cat([order[size : 2 * size], order[:size]])
    with torch.no_grad():
        weight.copy_(weight[:, order].clone())
    _replace(bundle, _exported(fused))


def int8_beyond_limit(bundle: Path, checkpoint: Path) -> None:
    """A compressor that keeps 6 of 8 bits of each weight: the scales are right, the values a little coarse."""
    proto = onnx.load(bundle / "model.onnx")
    for item in proto.graph.initializer:
        values = numpy_helper.to_array(item)
        if values.dtype == np.int8 and values.ndim > 1:
            coarse = (np.rint(values / 4) * 4).clip(-128, 127).astype(np.int8)
            item.CopyFrom(numpy_helper.from_array(coarse, item.name))
    _replace(bundle, proto.SerializeToString())


def flipped_byte(bundle: Path, checkpoint: Path) -> None:
    """A copy that went wrong: one bit, and nobody updates a hash."""
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 0x10
    (bundle / "model.onnx").write_bytes(data)


BAD = {
    "unfused": unfused,
    "wrong_statistics": wrong_statistics,
    "swapped_groups": swapped_groups,
    "int8_beyond_limit": int8_beyond_limit,
    "flipped_byte": flipped_byte,
}


def _exported(model: nn.Module) -> bytes:
    program = torch.onnx.export(
        copy.deepcopy(model),
        (torch.zeros(SHAPE),),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["input"],
        output_names=["output"],
    )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _replace(bundle: Path, data: bytes) -> None:
    """Another model.onnx, and a manifest that vouches for it."""
    (bundle / "model.onnx").write_bytes(data)
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    digest = hashlib.sha256(data).hexdigest()
    manifest["artifacts"]["onnx"] |= {"sha256": digest, "bytes": len(data)}
    path.write_text(json.dumps(manifest, indent=2) + "\n")
