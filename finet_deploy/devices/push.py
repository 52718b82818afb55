"""Files onto a phone: to a temporary name, hashed there, renamed. What is there already is not sent again."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from finet_deploy.devices.adb.connection import quote
from finet_deploy.devices.adb.errors import PhoneError, PhoneRefused, refusal, visible
from finet_deploy.devices.patience import Patience, best_effort, persist
from finet_deploy.devices.sections import ask
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error, sha256_file

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["PushProgress", "RemoteFile", "hashes", "remote_file", "remove_folder", "sync"]

TEMPORARY = ".incoming"
HASHES_PER_TRIP = 40
HASH_SECONDS = 120.0
REMOVE_SECONDS = 15.0
WRONG_HASH = 9  # exit status of our own command below

# Told while a file is sent: its name, its bytes so far, its size.
PushProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RemoteFile:
    """A file that must be on the phone: `path` is relative to the folder there, `mode` its permissions."""

    local: Path
    path: str
    sha256: str
    size: int
    mode: int = 0o644


def remote_file(local: Path, path: str, *, mode: int = 0o644, sha256: str | None = None) -> RemoteFile:
    """A file of this machine and its place on the phone. FinetDeployError when it cannot be read."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise FinetDeployError(f"path {path!r} leaves the phone's folder", where=str(local), do="rename it")
    try:
        size = local.stat().st_size
    except OSError as error:
        raise explain_os_error(error, "read", local) from error
    return RemoteFile(local, path, sha256 or sha256_file(local), size, mode)


def sync(
    connection: Connection,
    folder: str,
    files: Sequence[RemoteFile],
    *,
    patience: Patience,
    progress: PushProgress | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> int:
    """Make every file be below `folder` on the phone, by its SHA-256. The number of files that had to be sent.

    Raises `PhoneError`; a file is under its name only when it is whole.
    """
    files = list({file.path: file for file in files}.values())
    temporary = f"{folder}/{TEMPORARY}"
    command = f"rm -rf {quote(temporary)}; mkdir -p {quote(temporary)} && chmod 700 {quote(folder)}"
    _run(connection, command, patience, "preparing the phone's folder")
    present = hashes(connection, folder, files, patience)
    missing = [file for file in files if present[file.path] != file.sha256]
    for file in missing:
        _send(connection, folder, file, patience, progress, note)
    return len(missing)


def remove_folder(connection: Connection, folder: str, *, patience: Patience) -> None:
    """Remove `folder` and all in it from the phone."""
    if len(PurePosixPath(folder).parts) < 4 or ".." in PurePosixPath(folder).parts:
        raise ValueError(f"{folder!r} is no folder of ours")
    _run(connection, f"rm -rf {quote(folder)}", patience, "removing our folder from the phone", timeout=120.0)


def hashes(
    connection: Connection, folder: str, files: Sequence[RemoteFile], patience: Patience
) -> dict[str, str | None]:
    """path -> SHA-256 of what is on the phone under this name; None when nothing is."""
    found: dict[str, str | None] = {}
    for first in range(0, len(files), HASHES_PER_TRIP):
        batch = files[first : first + HASHES_PER_TRIP]
        # From standard input: then no name is in the output, and none can be mistaken for a hash.
        commands = {f"f{n}": f"sha256sum < {quote(f'{folder}/{file.path}')}" for n, file in enumerate(batch)}
        commands["tool"] = "sha256sum < /dev/null"
        answers = persist(
            connection,
            lambda: ask(connection, commands, timeout=HASH_SECONDS),  # noqa: B023
            patience,
            "comparing the files on the phone",
        )
        if answers["tool"].status != 0:
            what, do = "no sha256sum on the phone", "use a phone with Android 8 or later"
            raise PhoneRefused(connection.name, what, answers["tool"].reason, do=do)
        for n, file in enumerate(batch):
            words = answers[f"f{n}"].stdout.split()
            found[file.path] = words[0].decode("ascii", "replace") if words else None
    return found


def _send(
    connection: Connection,
    folder: str,
    file: RemoteFile,
    patience: Patience,
    progress: PushProgress | None,
    note: Callable[[str], None],
) -> None:
    """Send one file. A copy with another hash is sent once more: memory or a link may have turned a bit."""
    name = file.local.name

    def told(sent: int) -> None:
        if progress is not None:
            progress(name, sent, file.size)

    doing = f"pushing {visible(name, 80)}"
    found = ""
    for _ in range(2):
        temporary = f"{folder}/{TEMPORARY}/{file.sha256[:16]}-{secrets.token_hex(4)}"
        try:
            push = functools.partial(connection.push, file.local, temporary, mode=0o644, progress=told)
            persist(connection, push, patience, doing)
            found = _place(connection, folder, temporary, file, patience)
        except BaseException:  # also Ctrl-C: no half file stays
            with best_effort(note, "removing a half file"):
                connection.shell(f"rm -f {quote(temporary)}", timeout=REMOVE_SECONDS)
            raise
        if found == file.sha256:
            return
        with best_effort(note, "removing a file that differs"):
            connection.shell(f"rm -f {quote(temporary, f'{folder}/{file.path}')}")
    raise PhoneError(
        connection.name,
        f"while {doing}: the copy on the phone has SHA-256 {visible(found, 16)}, the file {file.sha256[:16]}, twice",
        do="check the cable and the phone's storage",
    )


def _place(connection: Connection, folder: str, temporary: str, file: RemoteFile, patience: Patience) -> str:
    """Hash the copy on the phone and give it its name when the hash is right. Returns the hash.

    May be done twice: where the answer to the first time was lost, the file is under its name already.
    """
    target = PurePosixPath(folder) / file.path
    copy, placed = quote(temporary), quote(str(target))
    command = (
        f'f={copy}; [ -e {copy} ] || f={placed}; h=$(sha256sum < "$f") || exit 1; echo "$h"; '
        f'case "$h" in {file.sha256}*) ;; *) rm -f {copy}; exit {WRONG_HASH};; esac; '
        f'[ "$f" = {placed} ] && exit 0; mkdir -p {quote(str(target.parent))} '
        f"&& chmod {file.mode:o} {copy} && mv -f {copy} {placed}"
    )
    doing = f"checking {visible(file.local.name, 80)} on the phone"
    result = persist(connection, lambda: connection.shell(command, timeout=HASH_SECONDS), patience, doing)
    if result.status not in (0, WRONG_HASH):
        reason = result.stderr or result.stdout
        raise refusal(connection.name, f"while {doing}: exit status {result.status}", reason)
    words = result.stdout.split()
    return words[0].decode("ascii", "replace") if words else ""


def _run(
    connection: Connection, command: str, patience: Patience, doing: str, *, timeout: float = 60.0
) -> None:
    result = persist(connection, lambda: connection.shell(command, timeout=timeout), patience, doing)
    if result.status != 0:
        reason = result.stderr or result.stdout
        raise refusal(connection.name, f"while {doing}: exit status {result.status}", reason)
