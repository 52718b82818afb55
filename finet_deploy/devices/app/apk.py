"""Which APK goes onto a phone."""

from __future__ import annotations

import contextlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from finet_deploy.app.find import app_folder
from finet_deploy.app.manifest import AppManifest, read_manifest
from finet_deploy.devices.app.names import APP_RUNTIMES, PACKAGE
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error, sha256_file

__all__ = ["Apk", "find_apk"]

MANIFEST = "AndroidManifest.xml"
MAX_MANIFEST_BYTES = 1 << 20
BUILD = "run `finet-deploy app build`, or name an APK with --apk"


@dataclass(frozen=True)
class Apk:
    """An APK of the app. version: its name, where it is known. runtimes: those that are in it."""

    path: Path
    sha256: str
    version: str | None = None
    runtimes: tuple[str, ...] = APP_RUNTIMES


def find_apk(given: Path | None = None) -> Apk:
    """The APK `given`, or the one that was built from these sources or came with the package.

    Raises FinetDeployError when there is none, or it is not this app's.
    """
    if given is not None:
        _check(given)
        sha256 = sha256_file(given)
        with contextlib.suppress(FinetDeployError):
            manifest = read_manifest(given.parent)
            if manifest.sha256 == sha256:
                return _described(given, manifest)
        return Apk(given, sha256)
    folder = app_folder()
    manifest = read_manifest(folder, do=BUILD)
    apk = folder / Path(manifest.apk).name
    _check(apk)
    if sha256_file(apk) != manifest.sha256:
        raise FinetDeployError("the APK is not the one that was built", where=str(apk), do=BUILD)
    return _described(apk, manifest)


def _described(apk: Path, manifest: AppManifest) -> Apk:
    known = tuple(name for name in APP_RUNTIMES if name in manifest.runtimes)
    return Apk(apk, manifest.sha256, manifest.tool_version, known or APP_RUNTIMES)


def _check(path: Path) -> None:
    """FinetDeployError unless it is a zip whose manifest names the app's package."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(MANIFEST) as stream:
            manifest = stream.read(MAX_MANIFEST_BYTES)
    except OSError as error:
        raise explain_os_error(error, "read", path) from error
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise FinetDeployError(f"no APK: {error}", where=str(path), do=BUILD) from error
    # Names in a binary manifest's string pool are UTF-8 or UTF-16.
    if not any(PACKAGE.encode(encoding) in manifest for encoding in ("utf-8", "utf-16-le")):
        raise FinetDeployError(f"an APK of another app than {PACKAGE}", where=str(path), do=BUILD)
