"""finet-deploy: fuse Finet's normalization, prove that the network is still the same, export it, measure it.

The public functions load on first use, so that `import finet_deploy` (and `finet-deploy --help`) never
imports torch.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finet_deploy.api.bench import bench as bench
    from finet_deploy.api.report import report as report
    from finet_deploy.checkpoint import load_checkpoint as load_checkpoint
    from finet_deploy.checkpoint import save_checkpoint as save_checkpoint
    from finet_deploy.export import export as export
    from finet_deploy.export import read_bundle as read_bundle
    from finet_deploy.export import verify_bundle as verify_bundle
    from finet_deploy.fuse import fuse as fuse
    from finet_deploy.verify import verify as verify
    from finet_deploy.zoo import create_model as create_model

__version__ = "0.1.0"
__all__ = [
    "bench",
    "create_model",
    "export",
    "fuse",
    "load_checkpoint",
    "read_bundle",
    "report",
    "save_checkpoint",
    "verify",
    "verify_bundle",
]

_HOME = {
    "create_model": "finet_deploy.zoo",
    "load_checkpoint": "finet_deploy.checkpoint",
    "save_checkpoint": "finet_deploy.checkpoint",
    "fuse": "finet_deploy.fuse",
    "verify": "finet_deploy.verify",
    "verify_bundle": "finet_deploy.export",
    "export": "finet_deploy.export",
    "read_bundle": "finet_deploy.export",
    "bench": "finet_deploy.api",
    "report": "finet_deploy.api",
}


class _LazyPackage(types.ModuleType):
    """This package, with its functions as properties.

    `finet_deploy.fuse` is the function and also the name of a sub-package. Importing a sub-package writes it
    into its parent's namespace, so with a plain `__getattr__` the answer would depend on what was imported
    before. A property wins over the namespace: `finet_deploy.fuse` is the function, always, and
    `from finet_deploy.fuse import ...` still reaches the sub-package.
    """

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOME})


def _lazy(name: str) -> property:
    def read(_: types.ModuleType) -> Any:
        return getattr(importlib.import_module(_HOME[name]), name)

    def ignore(_: types.ModuleType, value: object) -> None:
        """The import system offers the sub-package under this name: the function keeps it."""

    return property(read, ignore)


for _name in _HOME:
    setattr(_LazyPackage, _name, _lazy(_name))
sys.modules[__name__].__class__ = _LazyPackage
