"""Exported models: bundles of files for the runtimes, written whole or not at all, and read with distrust.

`README.md` beside this file is the contract of the bundle folder. Reading and re-verifying a bundle needs no torch
of ours; `export` and `count_macs` load it when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finet_deploy.export.bundle import Bundle, Golden, read_bundle
from finet_deploy.export.judge import CheckFailed, verify_bundle
from finet_deploy.export.schema import SCHEMA_VERSION, ArtifactEntry, Manifest
from finet_deploy.runtimes import parse_formats

if TYPE_CHECKING:
    from finet_deploy.export.exporter import export as export
    from finet_deploy.export.macs import count_macs as count_macs

__all__ = [
    "SCHEMA_VERSION",
    "ArtifactEntry",
    "Bundle",
    "CheckFailed",
    "Golden",
    "Manifest",
    "count_macs",
    "export",
    "parse_formats",
    "read_bundle",
    "verify_bundle",
]


def __getattr__(name: str) -> Any:
    if name == "export":
        from finet_deploy.export.exporter import export

        return export
    if name == "count_macs":
        from finet_deploy.export.macs import count_macs

        return count_macs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
