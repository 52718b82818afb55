"""One benchmark a phone at a time: a lock on this machine, and one on the phone for those who come from elsewhere.

The lock here is the kernel's and goes with the process. The one on the phone is a folder (`mkdir` makes it once) with
its owner's name in it; it is taken over when its owner is certainly gone, or was silent for long.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from finet_deploy.devices.adb.connection import quote
from finet_deploy.devices.adb.errors import PhoneError, refusal, visible
from finet_deploy.devices.patience import Patience, best_effort, persist
from finet_deploy.devices.sections import Section, ask
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["PhoneBusy", "PhoneLock", "host_lock"]

LOCK = "lock"
LOCK_SECONDS = 15.0
SILENT_SECONDS = 3600  # longer than a phone may be away while a job of the longest preset runs there


class PhoneBusy(PhoneError):
    """Somebody else is using the phone."""

    remedy = "wait until that has ended, or end it"


@contextlib.contextmanager
def host_lock(phone: str) -> Iterator[None]:
    """No other process of this user here works with `phone` meanwhile. `PhoneBusy` when one does."""
    path = _lock_folder() / f"{hashlib.sha256(os.fsencode(phone)).hexdigest()[:32]}.lock"
    try:
        stream: IO[str] = path.open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise explain_os_error(error, "write", path) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            pid = visible(stream.read(20)) or "unknown"
            raise PhoneBusy(phone, f"process {pid} on this computer is using the phone") from error
        stream.seek(0)
        stream.truncate()
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def _lock_folder() -> Path:
    """Below the system's temporary folder, and ours alone: another user's file there would be a way to block us."""
    folder = Path(tempfile.gettempdir()) / f"finet-deploy-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise explain_os_error(error, "create a folder", folder) from error
    if found.st_uid != os.getuid() or not folder.is_dir() or folder.is_symlink():
        raise FinetDeployError("this folder belongs to another user", where=str(folder), do="remove it")
    return folder


class _Owner(msgspec.Struct, kw_only=True):
    token: str
    host: str
    pid: int
    started: str  # when the process began, by its kernel: process numbers recur


class PhoneLock:
    """The lock on the phone itself, in our folder there."""

    def __init__(self, connection: Connection, folder: str, *, patience: Patience) -> None:
        self._connection, self._patience = connection, patience
        self._folder = folder
        self._path = f"{folder}/{LOCK}"
        self._owner = _Owner(
            token=secrets.token_hex(8), host=_host(), pid=os.getpid(), started=_started(os.getpid()) or ""
        )

    def acquire(self, note: Callable[[str], None]) -> None:
        """Take it. `PhoneBusy` when somebody has it; a lock whose owner is gone is taken over, and `note` says so."""
        for _ in range(2):
            found = self._look(self._take_command())
            owner = _decode(found["owner"])
            if owner is not None and owner.token == self._owner.token:
                return
            gone = self._why_gone(owner, found)
            if gone is None:
                raise PhoneBusy(self._connection.name, self._describe(owner, found))
            note(f"took over the lock on the phone: {gone}")
            self._run(f"rm -rf {quote(self._path)}")
        raise PhoneBusy(self._connection.name, "another program took the phone's lock at the same moment")

    def refresh(self) -> None:
        """A sign of life; `PhoneBusy` when the lock is not ours any more."""
        found = self._look(self.sign_of_life)
        owner = _decode(found["owner"])
        if owner is None or owner.token != self._owner.token:
            raise PhoneBusy(
                self._connection.name, f"the phone was taken over: {self._describe(owner, found)}"
            )

    @property
    def sign_of_life(self) -> str:
        """A shell command that `refresh` does too, to go along with other commands; it never makes a lock."""
        return f"touch -c {quote(self._path)}/owner"

    def release(self, note: Callable[[str], None]) -> None:
        """Give it back; never raises a `PhoneError`, because what was done under it is done."""
        self._patience = Patience(attempts=1)  # a phone that is lost is not waited for again
        with best_effort(note, "giving the phone back"):
            owner = _decode(self._look("true")["owner"])
            if owner is not None and owner.token == self._owner.token:
                self._run(f"rm -rf {quote(self._path)}")

    def _take_command(self) -> str:
        path, owner = quote(self._path), quote(msgspec.json.encode(self._owner).decode())
        # mkdir first: of two at the same time one fails, and leaves the owner's name alone. Doing it twice is no harm.
        # A lock without its owner's name (the storage is full) would lock everybody out: whoever made it removes it.
        # adbd's umask is 0, and apps may pass through /data/local/tmp: the folder is for the shell user alone.
        folder = quote(self._folder)
        named = f"{{ echo {owner} > {path}/owner || {{ rm -rf {path}; false; }}; }}"
        return f"mkdir -p {folder} && chmod 700 {folder} && mkdir {path} && {named}"

    def _look(self, command: str) -> dict[str, Section]:
        path = quote(self._path)
        commands = {
            "do": command,
            "owner": f"cat {path}/owner",
            "exists": f"if [ -d {path} ]; then echo yes; fi",
            "touched": f"stat -c %Y {path}/owner",
            "now": "date +%s",
        }
        return persist(
            self._connection,
            lambda: ask(self._connection, commands, timeout=LOCK_SECONDS),
            self._patience,
            "locking the phone",
        )

    def _run(self, command: str) -> None:
        result = persist(
            self._connection, lambda: self._connection.shell(command), self._patience, "locking the phone"
        )
        if result.status != 0:
            raise refusal(self._connection.name, "while locking the phone", result.stderr)

    def _why_gone(self, owner: _Owner | None, found: dict[str, Section]) -> str | None:
        """Why the owner does not hold the lock any more; None while it may."""
        if b"yes" not in found["exists"].stdout:
            what = "while locking the phone: its lock cannot be made"
            raise refusal(self._connection.name, what, found["do"].reason)
        if owner is not None and owner.host == _host() and _started(owner.pid) != owner.started:
            return f"its owner, process {owner.pid} of this computer, has ended"
        silent = _silent_seconds(found)
        if silent is not None and silent > SILENT_SECONDS:
            return f"no sign of life for {silent} s"
        return None

    def _describe(self, owner: _Owner | None, found: dict[str, Section]) -> str:
        silent = _silent_seconds(found)
        ago = "" if silent is None else f", last sign of life {silent} s ago"
        who = "another program" if owner is None else f"process {owner.pid} on {visible(owner.host, 60)}"
        return f"{who} is using the phone{ago}"


def _decode(section: Section) -> _Owner | None:
    with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return msgspec.json.decode(section.stdout, type=_Owner)
    return None


def _silent_seconds(found: dict[str, Section]) -> int | None:
    try:
        return int(found["now"].text.strip()[:12]) - int(found["touched"].text.strip()[:12])
    except ValueError:
        return None


def _host() -> str:
    """This computer, told from others of the same name where the system has an id. No character needs an escape."""
    name = re.sub(r"[^A-Za-z0-9._-]", "?", platform.node())[:60]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()[:32]
        return f"{name} {hashlib.sha256(machine.encode()).hexdigest()[:8]}"
    return name


def _started(pid: int) -> str | None:
    """When process `pid` began; None when there is none, or the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return status.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError, ValueError):
        return None
    except PermissionError:
        pass
    return ""
