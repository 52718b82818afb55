"""What the app is built from and with: releases of others, pinned by hash. Data in `libraries.json`.

An original of Maven Central takes the place of a republished file by its entry alone: `source` maven, `coordinate`
`group:artifact:version:aar`, no `archive`, `classes` `classes.jar`, `native` `jni/{abi}/NAME.so`, and the `sha256` that
a build with another one names. Then `python -m finet_deploy.app.runtimes` writes down which files it loads, and the
build's own checks tell what does not fit.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = ["LIBRARIES_FILE", "Library", "libraries"]

LIBRARIES_FILE = Path(__file__).resolve().with_name("libraries.json")

Use = Literal["app", "compile", "aapt2", "dx", "shrink"]


class Library(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One download. use: part of the app, what it is compiled against, or a tool.

    coordinate: `group:artifact:version:type` (maven) or `name@version` (npm). archive: the file inside the download
    that is meant; none: the download itself. classes: the jar in it whose classes go into the app, `.` for the file
    itself. declares: a jar whose classes are only compared with those of the app. native: libraries, by ABI.
    left_out: names of classes that either the native libraries or the app lack on purpose (see note).
    licence_files: texts in the download that go into the app beside it.
    runtime, format: which of ours it runs, and from which files.
    """

    name: str
    version: str
    source: Literal["maven", "npm"]
    coordinate: str
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    licence: str
    use: Use
    runtime: str | None = None
    format: str | None = None
    archive: str | None = None
    classes: str | None = None
    declares: str | None = None
    native: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    licence_files: tuple[str, ...] = ()
    note: str = ""

    @property
    def file_name(self) -> str:
        """A name of its own in the cache; it ends as the download does."""
        suffix = self.coordinate.rsplit(":", 1)[-1] if self.source == "maven" else "tgz"
        return f"{self.name}-{self.sha256[:16]}.{suffix}"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema_version: Literal[1]
    libraries: tuple[Library, ...]


@functools.cache
def _all() -> tuple[Library, ...]:
    return msgspec.json.decode(LIBRARIES_FILE.read_bytes(), type=_File).libraries


def libraries(*uses: Use) -> tuple[Library, ...]:
    """All libraries of these uses, in the order of the file; all of them when no use is named."""
    return tuple(library for library in _all() if not uses or library.use in uses)
