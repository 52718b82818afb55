"""Fusing: fold fine-grained and ordinary batch normalization into convolutions and linear layers, exactly.

    fused = fuse(model)                 # a copy; `model` stays as it is
    fused.fuse_report.kept              # what could not be folded, and why
    count_normalization(fused)          # {} when nothing is left

How: `fold` holds the arithmetic (fp64, pure), `trace` and `graph` the call graph that proves which folds are legal,
`plan` decides, `engine` substitutes modules in a copy. Nothing is folded on the strength of the module tree alone.
"""

from __future__ import annotations

from finet_deploy.fuse.check import check_fusible
from finet_deploy.fuse.engine import fuse
from finet_deploy.fuse.kinds import count_normalization
from finet_deploy.fuse.report import Folded, FuseReport, Kept

__all__ = ["Folded", "FuseReport", "Kept", "check_fusible", "count_normalization", "fuse"]
