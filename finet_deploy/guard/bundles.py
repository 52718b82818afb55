"""A bundle under guard: its parts, each read when a check first needs it, and only with the right hash."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from finet_deploy.export.bundle import Bundle, Golden, check_file, listed_files, read_manifest
from finet_deploy.export.operators import Operators
from finet_deploy.export.schema import Manifest
from finet_deploy.guard.policy import Policy
from finet_deploy.verify import Certificate

__all__ = ["GuardedBundle"]


@dataclass(frozen=True)
class GuardedBundle:
    """Its folder and what is demanded of it. Every property raises FinetDeployError for a damaged file."""

    path: Path
    policy: Policy

    @functools.cached_property
    def manifest(self) -> Manifest:
        """The manifest; no other file was looked at."""
        return read_manifest(self.path)

    @functools.cached_property
    def bundle(self) -> Bundle:
        """The folder as a bundle, whose files may still be damaged."""
        return Bundle(self.path, self.manifest)

    @functools.cached_property
    def certificate(self) -> Certificate:
        """The export's certificate."""
        self.require(self.manifest.certificate.file)
        return self.bundle.certificate()

    @functools.cached_property
    def golden(self) -> Golden:
        """The golden tensors."""
        self.require(self.manifest.golden.file)
        return self.bundle.golden()

    @functools.cached_property
    def operators(self) -> Operators | None:
        """The way from the files' operators to modules; None in a bundle without it."""
        if self.manifest.operators is None:
            return None
        self.require(self.manifest.operators.file)
        return self.bundle.operators()

    def artifact(self, fmt: str) -> Path:
        """The file of a format, whose hash is right."""
        self.require(self.manifest.artifacts[fmt].file)
        return self.bundle.artifact_path(fmt)

    def require(self, file: str) -> None:
        """FinetDeployError when the file is missing, or not the one that the manifest lists."""
        for entry in listed_files(self.manifest):
            if entry.file == file:
                check_file(self.path, entry)
