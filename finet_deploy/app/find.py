"""Where the built APK is: inside the package, or in the user's cache, by the hash of what it is built from."""

from __future__ import annotations

from pathlib import Path

from finet_deploy.app.build import MANIFEST_FILE, PACKAGE, _source_files, app_sources, source_key
from finet_deploy.app.parts import ABIS
from finet_deploy.errors import FinetDeployError
from finet_deploy.runner.folder import cache_folder

__all__ = ["app_folder"]

CARRIED = "apk"
KINDS = ("release", "debug")


def app_folder() -> Path:
    """The folder with the APK and its manifest. FinetDeployError when nobody built it from these sources."""
    carried = PACKAGE / CARRIED
    if (carried / MANIFEST_FILE).is_file():
        return carried
    sources = app_sources()
    if sources is not None:
        key = source_key(sources, _source_files(sources), ABIS)
        for kind in KINDS:
            folder = cache_folder() / "app" / f"{kind}-{key[:16]}"
            if (folder / MANIFEST_FILE).is_file():
                return folder
    raise FinetDeployError(
        "the app was not built from these sources",
        do="run `finet-deploy app build`, or name an APK with --apk",
    )
