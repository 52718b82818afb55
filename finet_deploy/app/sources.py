"""The app's sources: where they are, which of them a build is made from, and the hash that names what came of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from finet_deploy import __version__
from finet_deploy.errors import FinetDeployError
from finet_deploy.runner.folder import cache_folder

__all__ = [
    "ABIS",
    "MODULES",
    "RULES",
    "app_files",
    "app_key",
    "app_sources",
    "cached_app",
    "packed_sources",
    "require_sources",
    "source_key",
    "stand_in_sources",
]

PACKAGE = Path(__file__).resolve().parent
PACKED = PACKAGE / "android"  # in the wheel
ABIS = ("arm64-v8a", "x86_64")
MODULES = ("core", "engines", "app")
RULES = "proguard.pro"
# Of the engines, those that exist for a JVM and what they use.
JVM_ENGINES = ("KernelThreads.java", "OnnxRuntimeEngine.java", "OnnxRuntimeSession.java", "Refusal.java")


def app_sources() -> Path | None:
    """The app's sources: packed beside this module, or in the source tree; None when neither is there."""
    for folder in (PACKED, PACKAGE.parents[1] / "android_app"):
        if (folder / "app" / "AndroidManifest.xml").is_file():
            return folder
    return None


def require_sources() -> Path:
    """`app_sources`; FinetDeployError when they are not here."""
    sources = app_sources()
    if sources is None:
        raise FinetDeployError(
            "the app's sources are not here",
            where=str(PACKED),
            do="install finet-deploy again, or build in its source tree",
        )
    return sources


def app_files(sources: Path) -> list[Path]:
    """All that the APK is made from, in a fixed order."""
    found = [sources / "app" / "AndroidManifest.xml", sources / "app" / RULES]
    for folder in ("res", "assets"):
        found += [path for path in (sources / "app" / folder).rglob("*") if path.is_file()]
    for module in MODULES:
        found += [path for path in (sources / module / "src" / "main").rglob("*") if path.is_file()]
    return sorted(found)


def stand_in_sources(sources: Path) -> list[Path]:
    """All that the stand-in is made from, in a fixed order."""
    found = [path for name in ("core", "jvm") for path in (sources / name / "src" / "main").rglob("*")]
    engines = sources / "engines" / "src" / "main" / "java" / "org" / "finetdeploy" / "engines"
    found += [engines / name for name in JVM_ENGINES]
    return sorted(path for path in [*found, sources / "jvm" / "run.sh"] if path.is_file())


def packed_sources(sources: Path) -> list[Path]:
    """What the wheel carries, so that both can be built from it."""
    return sorted({*app_files(sources), *stand_in_sources(sources)})


def source_key(sources: Path, files: Sequence[Path], what: object) -> str:
    """Hash of all that a build is made from: sources, libraries, this package's own rules, and `what` is wanted."""
    digest = hashlib.sha256(repr((__version__, what)).encode())
    rules = [*PACKAGE.glob("*.py"), PACKAGE / "libraries.json"]
    for folder, paths in ((PACKAGE, sorted(rules)), (sources, files)):
        for file in paths:
            data = file.read_bytes()
            digest.update(f"{file.relative_to(folder).as_posix()} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def app_key(sources: Path, abis: Sequence[str]) -> str:
    """The hash of an APK for these ABIs."""
    return source_key(sources, app_files(sources), tuple(abis))


def cached_app(kind: str, abis: Sequence[str], key: str) -> Path:
    """Where the APK with this key is kept. kind: of the key that signed it, `debug` or `release`."""
    return cache_folder() / "app" / f"{kind}-{'-'.join(abis)}.{key[:16]}"
