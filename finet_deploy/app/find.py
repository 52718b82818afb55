"""Where the built APK is: in the data package that was installed beside this one, or in the user's cache."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from finet_deploy import __version__
from finet_deploy.app.manifest import MANIFEST_FILE, read_manifest
from finet_deploy.app.sources import ABIS, app_key, app_sources, cached_app
from finet_deploy.errors import FinetDeployError

__all__ = ["DATA_PACKAGE", "app_folder", "built_app", "installed_app"]

DATA_PACKAGE = (
    "finet_deploy_app"  # `android_app/package` makes it: the APK is too large for the tool's own wheel
)
KINDS = ("release", "debug")
INSTALL_AGAIN = "install the finet-deploy-app of the same build again, or run `finet-deploy app build`"


def app_folder() -> Path:
    """The folder with the APK and its manifest: the installed one, else the built one.

    Neither is used unless it was made from the sources that are here. FinetDeployError when there is none, and says
    so when an installed one was passed over.
    """
    passed_over = None
    installed = installed_app()
    if installed is not None:
        passed_over = _foreign(installed)
        if passed_over is None:
            return installed
    built = built_app()
    if built is not None:
        return built
    if installed is not None:
        raise FinetDeployError(str(passed_over), where=str(installed), do=INSTALL_AGAIN)
    raise FinetDeployError(
        "the app is neither installed nor built from these sources",
        do="pip install finet-deploy-app (made by `make apk`), run `finet-deploy app build`, or name an APK with --apk",
    )


def installed_app() -> Path | None:
    """The folder of the data package, there or not whole; None where it is not installed. Nothing of it is run."""
    found = importlib.util.find_spec(DATA_PACKAGE)
    places = list(found.submodule_search_locations or ()) if found is not None else []
    return next((Path(place) for place in places if (Path(place) / MANIFEST_FILE).is_file()), None)


def built_app() -> Path | None:
    """The folder in the cache that was built from the sources that are here, for all ABIs rather than for one."""
    return next((folder for folder in _cached() if (folder / MANIFEST_FILE).is_file()), None)


def _cached() -> Iterator[Path]:
    sources = app_sources()
    if sources is None:
        return
    for abis in (ABIS, *((abi,) for abi in ABIS)):
        key = app_key(sources, abis)
        for kind in KINDS:
            yield cached_app(kind, abis, key)


def _foreign(folder: Path) -> str | None:
    """Why the APK of the data package does not belong to this tool, or None."""
    manifest, sources = read_manifest(folder, do=INSTALL_AGAIN), app_sources()
    if manifest.tool_version != __version__:
        return f"the installed app is of finet-deploy {manifest.tool_version}, this is {__version__}"
    if sources is not None and manifest.key != app_key(sources, manifest.abis):
        return "the installed app was built from other sources than those that are here"
    return None
