"""Deploy passes: exact rewrites that make a network cheaper where it runs, each proved before it is used.

    applied = apply_passes(deploy, inputs, default_passes("pte"), core="cortex-a76")
    applied.model, applied.entries, applied.checks

A pass sees the network as a graph of ATen operators (`ir`), in float64, and says in words what it changed. The
certificate of a pass compares the graph before and after it in float64; weights are rounded to fp32 once, at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finet_deploy.passes.kernels import CORES, DEFAULT_CORE
from finet_deploy.passes.names import DEFAULTS, PASS_NAMES, default_passes, parse_passes

if TYPE_CHECKING:
    from finet_deploy.passes.run import PASSES as PASSES
    from finet_deploy.passes.run import Applied as Applied
    from finet_deploy.passes.run import Pass as Pass
    from finet_deploy.passes.run import PassEntry as PassEntry
    from finet_deploy.passes.run import apply_passes as apply_passes
    from finet_deploy.passes.run import apply_plans as apply_plans

__all__ = [
    "CORES",
    "DEFAULTS",
    "DEFAULT_CORE",
    "PASSES",
    "PASS_NAMES",
    "Applied",
    "Pass",
    "PassEntry",
    "apply_passes",
    "apply_plans",
    "default_passes",
    "parse_passes",
]


def __getattr__(name: str) -> Any:
    if name in ("PASSES", "Applied", "Pass", "PassEntry", "apply_passes", "apply_plans"):
        from finet_deploy.passes import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
