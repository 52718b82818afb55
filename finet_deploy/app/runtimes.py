"""Which files the app's runtimes load, read out of the libraries themselves; kept in `runtimes/android.json`.

PyTorch Mobile: the versions of its bytecode stand in a header of its AAR, the operators' schemas in its library.
ExecuTorch: identifiers of the formats and names of the kernels stand in its library. ONNX Runtime is the same release
on a JVM, where our files are run. After a change of `libraries.json`: `python -m finet_deploy.app.runtimes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from finet_deploy.app.elf import NativeLibrary, read_native
from finet_deploy.app.fetch import fetch
from finet_deploy.app.libraries import libraries
from finet_deploy.app.parts import Archive
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import atomic_write_bytes
from finet_deploy.runtimes.android import ANDROID_FILE, Loads

__all__ = ["main", "read_runtimes"]

VERSIONS_HEADER = "headers/caffe2/serialize/versions.h"
ABI = "x86_64"  # both are built from one source; in this one fewer texts share their ends
_BYTECODE = re.compile(r"k(Min|Max)SupportedBytecodeVersion = (0x[0-9A-Fa-f]+|\d+)L;")
_SCHEMA = re.compile(r"^(?:aten::)?([A-Za-z_]\w*(?:\.\w+)?)\(([^()]*(?:\([^()]*\)[^()]*)*)\) -> \S.*$")
_KERNEL = re.compile(r"^(?:aten|dim_order_ops|executorch_prim|quantized_decomposed)::\w+(?:\.\w+)?$")
# ExecuTorch: program, its extended header; XNNPACK's payload and its header.
_BACKEND = re.compile(
    r"^(?:XH0\d)?(\w+Backend)$"
)  # a mark is compared without an end, and runs into the text behind it
_IDENTIFIERS = re.compile(rb"ET1\d|eh0\d|XN0\d|XH0\d")


def read_runtimes(files: Mapping[str, Path]) -> tuple[Loads, ...]:
    """The same out of the fetched libraries (name -> file). FinetDeployError when one does not hold what it should."""
    by_name = {library.name: library for library in libraries()}
    archives = {name: Archive(by_name[name], file) for name, file in files.items()}
    lite, torch = archives["pytorch_android_lite"], archives["executorch-android"]
    onnx = by_name["onnxruntime-android"]
    header = lite.read(VERSIONS_HEADER).decode("utf-8", "replace")
    found = {end.lower(): int(number, 0) for end, number in _BYTECODE.findall(header)}
    schemas = _schemas(_library(lite, "libpytorch_jni_lite.so"))
    executorch = _library(torch, "libexecutorch.so")
    marks = sorted({match.decode() for match in _IDENTIFIERS.findall(executorch.constants)})
    kernels = sorted(text for text in executorch.texts if _KERNEL.match(text))
    backends = sorted({match[1] for match in map(_BACKEND.match, executorch.texts) if match})
    if (
        set(found) != {"min", "max"}
        or len(schemas) < 1000
        or len(kernels) < 100
        or len(marks) < 4
        or not backends
    ):
        raise FinetDeployError(
            "the libraries do not tell what they load", do="check finet_deploy/app/runtimes.py"
        )
    return (
        Loads(
            library=torch.library.name,
            version=torch.library.version,
            format="pte",
            identifiers=tuple(marks),
            backends=tuple(backends),
            operators=dict.fromkeys(kernels),
            source="constants of libexecutorch.so: format identifiers, names of backends and kernels",
        ),
        Loads(
            library=onnx.name,
            version=onnx.version,
            format="onnx",
            source="the same release runs our files on a JVM",
        ),
        Loads(
            library=lite.library.name,
            version=lite.library.version,
            format="ptl",
            bytecode=(found["min"], found["max"]),
            operators=dict(sorted(schemas.items())),
            source=f"{VERSIONS_HEADER} in the AAR; operator schemas in libpytorch_jni_lite.so",
        ),
    )


def _library(archive: Archive, name: str) -> NativeLibrary:
    return read_native(name, archive.native(ABI)[name])


def _schemas(library: NativeLibrary) -> dict[str, int | None]:
    """Operator -> number of its arguments, `*` aside."""
    found: dict[str, int | None] = {}
    for text in library.texts:
        match = _SCHEMA.match(text)
        if match is not None:
            arguments = [part.strip() for part in _split(match.group(2)) if part.strip() not in ("", "*")]
            name = f"aten::{match.group(1)}"  # some are there in more than one form
            found[name] = max(len(arguments), found.get(name) or 0)
    return found


def _split(arguments: str) -> list[str]:
    """At the commas outside of brackets."""
    parts, depth = [""], 0
    for char in arguments:
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def main() -> None:
    """Write what the libraries say into `runtimes/android.json`."""
    found = msgspec.json.encode(read_runtimes(fetch(libraries(), lambda step: None)))
    atomic_write_bytes(ANDROID_FILE, msgspec.json.format(found, indent=1) + b"\n")


if __name__ == "__main__":
    main()
