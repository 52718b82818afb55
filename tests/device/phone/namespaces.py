"""Linux namespaces, without being root: who may run what, and what the phone sees of this machine."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path

__all__ = [
    "drop_privileges",
    "enter_root",
    "loopback_up",
    "mount_phone",
    "namespace_command",
    "why_no_namespaces",
]

SHELL_UID = 2000
MS_BIND, MS_REC = 4096, 16384
MOUNT_ATTR_RDONLY, AT_FDCWD, AT_RECURSIVE, SYS_MOUNT_SETATTR = 1, -100, 0x8000, 442
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
CAPABILITY_VERSION_3 = 0x20080522
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
BOUND_PROC = {
    "cpuinfo": "cpuinfo",
    "meminfo": "meminfo",
    "version": "version",
    "uptime": "uptime",
    "stat": "stat",
    "loadavg": "loadavg",
    "boot_id": "sys/kernel/random/boot_id",
}
QEMU = "qemu-aarch64-static"
# The kernel hands ELF files of aarch64 to qemu; F opens qemu now, so that the phone's root needs none.
BINFMT = (
    r":qa64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{qemu}:F"
)
REGISTER = (
    'mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && printf %s "$0" > /proc/sys/fs/binfmt_misc/register'
    ' || echo "aarch64 programs cannot run: no binfmt_misc in a user namespace (Linux 6.7)" >&2; exec "$@"'
)

libc = ctypes.CDLL(None, use_errno=True)


def namespace_command(command: list[str], *, network: bool) -> list[str]:
    """`command` as process 1 of private user, mount, pid, ipc and uts namespaces, uid 2000 with every capability in
    them; with `network` in a private network too. aarch64 programs run through qemu-user where it is installed."""
    spaces = ["--mount", "--pid", "--ipc", "--uts", *(["--net"] if network else [])]
    inner = ["unshare", "--user", f"--map-user={SHELL_UID}", f"--map-group={SHELL_UID}", "--keep-caps"]
    inner += [*spaces, "--fork", "--kill-child", *command]
    qemu = shutil.which(QEMU)
    if qemu is None:
        return inner
    return [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        REGISTER,
        BINFMT.format(qemu=qemu),
        *inner,
    ]


def why_no_namespaces() -> str | None:
    """Why the phone cannot run here, or None."""
    if shutil.which("unshare") is None:
        return "no unshare (util-linux)"
    tried = subprocess.run(
        namespace_command(["true"], network=True), capture_output=True, text=True, timeout=60, check=False
    )
    return None if tried.returncode == 0 else f"no user namespaces: {tried.stderr.strip()}"


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: Path | str, target: Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    result = libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    check(result, f"mount {source} on {target}")


def bind(source: Path, target: Path) -> None:
    mount(source, target, flags=MS_BIND | MS_REC)


def read_only(target: Path) -> None:
    """Make a mount and all below it read-only; its other flags stay, which an unprivileged remount may not drop."""
    attributes = struct.pack("<4Q", MOUNT_ATTR_RDONLY, 0, 0, 0)
    result = libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(target), AT_RECURSIVE, attributes, len(attributes)
    )
    check(result, f"read-only {target}")


def mount_phone(
    folder: Path, userland: Path, *, data_bytes: int | None, also: dict[str, Path] | None = None
) -> Path:
    """Mount the phone laid out in `folder`: its root. `data_bytes`: the size of /data/local/tmp, kept in memory. also:
    folders of this machine by their place in the phone, to be read.

    The root is mounted beside `folder/root`, which stays writable for whoever plays the phone's kernel.
    """
    root = folder / "mounted"
    bind(folder / "root", root)
    bind(userland / "usr", root / "usr")
    for place, source in (also or {}).items():
        bind(source, root / place)
    read_only(root)
    mount("proc", root / "proc", "proc")
    for name, place in BOUND_PROC.items():
        bind(folder / "proc" / name, root / "proc" / place)
        read_only(root / "proc" / place)
    mount("tmpfs", root / "dev", "tmpfs", data="mode=0755")
    for name in DEVICES:
        (root / "dev" / name).touch()
        bind(Path("/dev") / name, root / "dev" / name)
    (root / "dev/pts").mkdir()
    mount("devpts", root / "dev/pts", "devpts", data="newinstance,ptmxmode=0666,mode=0620")
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    (root / "dev/fd").symlink_to("/proc/self/fd")
    bind(folder / "data", root / "data")
    if data_bytes is not None:
        mount("tmpfs", root / "data/local/tmp", "tmpfs", data=f"size={data_bytes},mode=0771")
    socket.sethostname("localhost")
    return root


def enter_root(root: Path) -> None:
    os.chroot(root)
    os.chdir("/")


def drop_privileges() -> None:
    """From here on a plain user: no capability, and none through an exec."""
    check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear ambient capabilities")
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    header = struct.pack("<Ii", CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, bytes(24)), "drop capabilities")


def loopback_up() -> None:
    """`ip link set lo up` in a new network namespace."""
    SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh", b"lo", 0).ljust(40, b"\0")
        (flags,) = struct.unpack_from("h", fcntl.ioctl(control, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP).ljust(40, b"\0"))
