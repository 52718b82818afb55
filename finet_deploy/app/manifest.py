"""What a build says of its APK, in a file beside it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import atomic_write_bytes, read_bounded
from finet_deploy.json_files import encode_json

__all__ = ["MANIFEST_FILE", "AppManifest", "read_manifest", "write_manifest"]

MANIFEST_FILE = "app.json"
MAX_BYTES = 1 << 20


class AppManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What lies beside the APK. unsigned_sha256: of the APK before it was signed: two builds give the same.

    key: hash of what it was built from, see `sources.py`. runtimes: name -> version.
    """

    schema_version: int = 1
    apk: str
    sha256: str
    bytes: int
    unsigned_sha256: str
    tool_version: str
    signed_with: str
    abis: tuple[str, ...]
    key: str
    runtimes: dict[str, str]
    notes: tuple[str, ...]


def read_manifest(folder: Path, *, do: str = "run `finet-deploy app build`") -> AppManifest:
    """The manifest in `folder`. FinetDeployError, with `do` as what helps, when there is none."""
    try:
        return msgspec.json.decode(read_bounded(folder / MANIFEST_FILE, MAX_BYTES), type=AppManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FinetDeployError(f"no manifest of an APK: {error}", where=str(folder), do=do) from error


def write_manifest(folder: Path, manifest: AppManifest) -> None:
    """Into `folder`, beside the APK."""
    data = encode_json(manifest)
    atomic_write_bytes(folder / MANIFEST_FILE, data)
