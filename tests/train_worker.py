"""One process of a training run in fp64, where rounding cannot hide a difference: FOLDER and the recipe's changes.

Run by `torchrun` or alone. In fp32, the first steps of an untrained network turn differences of 1e-7 into 1e-2.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from finet_deploy.train import Process, train
from tests.train_runs import tiny_recipe, tiny_sets

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    process = Process.from_environment("cpu")
    train(tiny_recipe(**json.loads(sys.argv[2])), *tiny_sets(val=359), Path(sys.argv[1]), process=process)
