"""Packs the APK that was built from the sources beside it; without one there is no package."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INTO = "finet_deploy_app"
LICENCES = "assets/licenses/"  # in the APK


class PackApp(BuildHookInterface):
    """The APK, its manifest, and the licences once more as files: who looks for them opens no APK."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root).resolve().parents[1]
        sys.path.insert(0, str(root))
        from finet_deploy.app.find import built_app
        from finet_deploy.app.manifest import MANIFEST_FILE, read_manifest
        from finet_deploy.errors import FinetDeployError

        folder = built_app()
        if folder is None:
            raise FinetDeployError("the app was not built from these sources", do="finet-deploy app build")
        apk = folder / read_manifest(folder).apk
        packed = {apk: apk.name, folder / MANIFEST_FILE: MANIFEST_FILE}
        self._scratch = tempfile.TemporaryDirectory(prefix="finet-deploy-app-")
        with zipfile.ZipFile(apk) as archive:
            for name in archive.namelist():
                if name.startswith(LICENCES):
                    path = Path(self._scratch.name) / Path(name).name
                    path.write_bytes(archive.read(name))
                    packed[path] = f"licenses/{path.name}"
        build_data["force_include"].update({str(path): f"{INTO}/{to}" for path, to in packed.items()})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._scratch.cleanup()
