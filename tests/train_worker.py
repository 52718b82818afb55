"""One process of training runs in fp64, where rounding cannot hide a difference: FOLDER CHANGES, of each run in turn.

Run by `torchrun` or alone. CHANGES: the recipe's, as JSON. In fp32, the first steps of an untrained network turn
differences of 1e-7 into 1e-2.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from finet_deploy.train import Process, train
from tests.train_runs import tiny_recipe, tiny_sets

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    process = Process.from_environment("cpu")
    for number, (folder, changes) in enumerate(zip(sys.argv[1::2], sys.argv[2::2])):
        own = replace(process, restart_count=number)  # keys of its own in torchrun's store
        train(tiny_recipe(**json.loads(changes)), *tiny_sets(val=359), Path(folder), process=own)
