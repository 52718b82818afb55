"""What `finet-deploy app build` leaves in the cache, with an APK that only the simulated phone takes for one."""

from __future__ import annotations

from pathlib import Path

import msgspec

from finet_deploy import __version__
from finet_deploy.app.manifest import AppManifest, write_manifest
from finet_deploy.app.sources import ABIS, app_key, cached_app, require_sources
from finet_deploy.files import sha256_file
from tests.device.phone.app import make_apk


def pretend_built(
    kind: str = "debug",
    abis: tuple[str, ...] = ABIS,
    folder: Path | None = None,
    libraries: dict[str, bytes] | None = None,
    **changes: object,
) -> Path:
    """The APK, in the cache's folder for the sources that are here, or in `folder`. changes: of its manifest."""
    key = app_key(require_sources(), abis)
    folder = folder or cached_app(kind, abis, key)
    folder.mkdir(parents=True, exist_ok=True)
    apk = make_apk(folder / "finet-bench.apk", libraries=libraries or {})
    manifest = AppManifest(
        apk=apk.name,
        sha256=sha256_file(apk),
        bytes=apk.stat().st_size,
        unsigned_sha256="0" * 64,
        tool_version=__version__,
        signed_with=kind,
        abis=abis,
        key=key,
        runtimes={"onnxruntime": "1"},
        notes=(),
    )
    write_manifest(folder, msgspec.structs.replace(manifest, **changes))
    return apk
