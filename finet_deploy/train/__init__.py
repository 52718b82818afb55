"""Training: recipes as data, one loop, and a state that a run goes on from to the bit.

`finet_deploy.train.recipes` is light (no torch); everything else loads on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finet_deploy.train.distributed import Process as Process
    from finet_deploy.train.folder import TrainResult as TrainResult
    from finet_deploy.train.loop import train as train
    from finet_deploy.train.reports import EpochReport as EpochReport
    from finet_deploy.train.reports import Observer as Observer
    from finet_deploy.train.reports import Silent as Silent
    from finet_deploy.train.reports import Start as Start
    from finet_deploy.train.reports import StepReport as StepReport

_HOME = {
    "Process": "distributed",
    "TrainResult": "folder",
    "train": "loop",
    **dict.fromkeys(("EpochReport", "Observer", "Silent", "Start", "StepReport"), "reports"),
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
