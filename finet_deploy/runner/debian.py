"""Which Debian package a system file comes from, and its licence text."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from finet_deploy.errors import FinetDeployError

__all__ = ["Package", "common_licence", "package_of"]

DOC = Path("/usr/share/doc")
COMMON_LICENCES = Path("/usr/share/common-licenses")


@dataclass(frozen=True)
class Package:
    """An installed package. copyright: the file with its licence."""

    name: str
    version: str
    sources: tuple[str, ...]  # `name=version` of the source packages: what the licences ask to be named
    copyright: Path


def package_of(file: Path) -> Package:
    """The package that `file` (no link) belongs to. FinetDeployError when it is no package's."""
    text = str(file)
    # Where /lib is a link to /usr/lib, the database may know either name.
    names = [text, text.removeprefix("/usr")] if text.startswith("/usr/lib") else [text, f"/usr{text}"]
    for name in names:
        found = _query(["dpkg-query", "--search", name])
        if found is not None:
            owner = found.splitlines()[0].partition(": ")[0].split(",")[0]
            break
    else:
        do = "build on Debian or Ubuntu, with the compiler that it packages"
        raise FinetDeployError("cannot tell the licence: the file is of no package", where=text, do=do)
    form = "${Version}\t${source:Package}=${source:Version}\t${Built-Using}"
    version, source, used = (_query(["dpkg-query", "--show", "--showformat", form, owner]) or "\t\t").split(
        "\t"
    )
    # Cross compilers' libraries are built out of other packages' sources: "glibc (= 2.36-8), ..."
    built = [part.replace(" (= ", "=").strip(" )") for part in used.split(",") if part.strip()]
    name = owner.partition(":")[0]
    return Package(name, version, (source, *built), DOC / name / "copyright")


def common_licence(name: str) -> Path:
    """The full text of a licence that copyright files refer to."""
    return COMMON_LICENCES / name


def _query(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 and done.stdout else None
