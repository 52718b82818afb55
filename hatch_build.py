"""What the wheel carries besides the package: the native runner's sources, runners built from those very sources, and
the Android app's sources, for `finet-deploy app build`. (The built app is a package of its own: `android_app/package`.)

`make wheel` puts built runners into `finet_deploy/runner/data`. Without them a wheel is made all the same, and this
says so: whoever installs it needs a compiler, for `finet-deploy runner build`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES, SOURCES_PACKED = "android_app/native", "finet_deploy/runner/native"
APP, APP_PACKED = "android_app", "finet_deploy/app/android"
DATA = "finet_deploy/runner/data"


class PackRunners(BuildHookInterface):
    """Names each file of a runner: what else lies in its folder stays out, and a stale runner makes no wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        build_data["force_include"][str(root / SOURCES)] = SOURCES_PACKED
        for path in app_sources(root):
            build_data["force_include"][str(root / APP / path)] = f"{APP_PACKED}/{path.as_posix()}"
        folder = root / DATA
        if not folder.is_dir():
            self.app.display_warning("no native runner is packed: `make wheel` builds them first")
            return
        for path in runner_files(root, folder):
            build_data["force_include"][str(path)] = path.relative_to(root).as_posix()


def app_sources(root: Path) -> list[Path]:
    """What the app and its stand-in are built from, below its folder."""
    sys.path.insert(0, str(root))
    from finet_deploy.app.sources import packed_sources

    return [path.relative_to(root / APP) for path in packed_sources(root / APP)]


def runner_files(root: Path, folder: Path) -> list[Path]:
    """The files of every target's runner. Raises FinetDeployError for one that is missing, damaged or stale."""
    sys.path.insert(0, str(root))
    from finet_deploy.errors import FinetDeployError
    from finet_deploy.runner.folder import native_sources, source_key
    from finet_deploy.runner.manifest import MANIFEST_FILE, check_folder
    from finet_deploy.runner.targets import TARGETS

    sources = native_sources()
    files = []
    for name in TARGETS:
        manifest = check_folder(folder / name, do="make wheel")
        if sources is None or manifest.key != source_key(name, sources):
            where = str(folder / name)
            raise FinetDeployError("the runner was built from other sources", where=where, do="make wheel")
        files += [folder / name / path for path in (*(file.path for file in manifest.files), MANIFEST_FILE)]
    return sorted(files)
