"""Rows' files in the app's folder. adb cannot write there on every phone: they go by way of our own folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from finet_deploy.devices.adb.connection import quote
from finet_deploy.devices.adb.errors import PhoneError, refusal
from finet_deploy.devices.app.names import APP_FILES
from finet_deploy.devices.patience import Patience, persist
from finet_deploy.devices.push import PushProgress, RemoteFile, hashes, sync

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["bring_to_app"]

COPY_SECONDS = 120.0
WRONG_HASH = 9  # exit status of our own command below


def bring_to_app(
    connection: Connection,
    folder: str,
    files: Sequence[RemoteFile],
    *,
    patience: Patience,
    progress: PushProgress | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> int:
    """Make every file be below the app's folder, by its SHA-256. The number of files that had to be sent.

    `adb push` changes the owner of what it wrote, which some phones refuse in an app's folder: files are pushed to
    `folder`, our own, and copied from there. Raises `PhoneError`.
    """
    files = list({file.path: file for file in files}.values())
    present = hashes(connection, APP_FILES, files, patience)
    missing = [file for file in files if present[file.path] != file.sha256]
    if not missing:
        return 0
    sync(connection, folder, missing, patience=patience, progress=progress, note=note)
    for file in missing:
        _copy(connection, folder, file, patience)
    return len(missing)


def _copy(connection: Connection, folder: str, file: RemoteFile, patience: Patience) -> None:
    """May be done twice: where the answer to the first time was lost, the file is under its name already."""
    source, target = quote(f"{folder}/{file.path}"), PurePosixPath(APP_FILES) / file.path
    part, placed, parent = quote(f"{target}.part"), quote(str(target)), quote(str(target.parent))
    command = (
        f"mkdir -p {parent} || exit 1; chmod 777 {parent} 2>/dev/null; [ -e {source} ] || exit 0; "
        f'cp {source} {part} || exit 1; h=$(sha256sum < {part}); case "$h" in {file.sha256}*) ;; '
        f"*) rm -f {part}; exit {WRONG_HASH};; esac; chmod 666 {part} 2>/dev/null; "
        f"mv -f {part} {placed} && rm -f {source}"
    )
    doing = f"copying {file.local.name} into the app's folder"
    result = persist(connection, lambda: connection.shell(command, timeout=COPY_SECONDS), patience, doing)
    if result.status == WRONG_HASH:
        what = f"while {doing}: the copy differs"
        raise PhoneError(connection.name, what, do="check the phone's storage")
    if result.status != 0:
        raise refusal(connection.name, f"while {doing}", result.stderr or result.stdout)
