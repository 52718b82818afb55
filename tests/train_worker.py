"""Training runs in fp64, where rounding cannot hide a difference: PROCESSES FOLDER CHANGES [FOLDER CHANGES ...].

CHANGES: the recipe's, as JSON. In fp32, the first steps of an untrained network turn differences of 1e-7 into 1e-2.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from finet_deploy.train import Process, train
from tests.ranks import fork_ranks
from tests.train_runs import VALIDATED, tiny_recipe, tiny_sets


def run_all() -> None:
    process = Process.from_environment("cpu")
    for number, (folder, changes) in enumerate(zip(sys.argv[2::2], sys.argv[3::2])):
        own = replace(process, restart_count=number)  # keys of its own in the store
        train(tiny_recipe(**json.loads(changes)), *SETS, Path(folder), process=own)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    SETS = tiny_sets(val=VALIDATED)
    sys.exit(fork_ranks(int(sys.argv[1]), run_all))
