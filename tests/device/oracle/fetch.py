"""Fetch AOSP's adbd, mksh and toybox from Debian trixie into a cache folder: nothing is installed.

`python -m tests.device.oracle.fetch` prints the folder. It needs apt, dpkg-deb, Debian's archive keyring and the
network; no root. Mirror and keyring are the system's own; `FINET_DEBIAN_MIRROR` names another mirror. Run it before
the tests: they fetch nothing. Licences: Apache-2.0 (adb), MirOS (mksh), 0BSD (toybox); nothing of it is shipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.device.phone.userland import SUITE, rootfs

__all__ = ["main"]

PACKAGES = [
    *("adbd", "android-libbase", "android-libboringssl", "android-libcutils", "android-liblog"),  # the daemon
    *("libbrotli1", "libbsd0", "libc6", "libcap2", "libcrypt1", "libgcc-s1", "liblz4-1", "libmd0"),
    *("libprotobuf32t64", "libstdc++6", "libsystemd0", "libxxhash0", "libzstd1", "zlib1g"),
    *("mksh", "toybox"),  # the phone's userland
    *("adb", "android-libziparchive", "libusb-1.0-0", "libudev1"),  # the client of the same source
]
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def mirror() -> str:
    """The Debian mirror of this system's apt sources."""
    named = os.environ.get("FINET_DEBIAN_MIRROR")
    if named:
        return named
    found = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    for address in found:
        if address.rstrip("/").endswith("/debian"):
            return address
    sys.exit("no Debian mirror in apt's sources: name one in FINET_DEBIAN_MIRROR")


def apt(folder: Path, *arguments: str) -> None:
    """Run apt-get with a configuration of its own under `folder`."""
    command = ["apt-get", "-q", *arguments]
    try:
        subprocess.run(
            command,
            check=True,
            cwd=folder / "debs",
            env={**os.environ, "APT_CONFIG": str(folder / "apt.conf")},
            stdout=sys.stderr,
        )
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(command)}: exit status {error.returncode}")


def download(folder: Path) -> list[Path]:
    """The packages, checked by apt against Debian's signatures."""
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {SUITE} main\n")
    (folder / "apt.conf").write_text(
        f'Dir::State::Lists "{folder}/lists";\nDir::Cache "{folder}/cache";\n'
        f'Dir::Etc::SourceList "{folder}/sources.list";\nDir::Etc::SourceParts "/dev/null";\n'
        'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\nAcquire::Languages "none";\n'
        'Acquire::Retries "3";\nAPT::Sandbox::User "root";\n'
    )
    apt(folder, "update")
    apt(folder, "download", *PACKAGES)
    return sorted((folder / "debs").glob("*.deb"))


def unpack(packages: list[Path], target: Path) -> None:
    """Merge the packages into `target`, without their documentation, and note their versions."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (target / "usr" / name).mkdir(parents=True)
        (target / name).symlink_to(f"usr/{name}")
    for package in packages:
        archive = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True
        ).stdout
        subprocess.run(
            [
                "tar",
                "-x",
                "-C",
                target,
                "--keep-directory-symlink",
                "--no-same-owner",
                "--exclude=./usr/share/*",
            ],
            input=archive,
            check=True,
        )
    versions = [
        subprocess.run(["dpkg-deb", "-W", package], check=True, capture_output=True, text=True).stdout
        for package in packages
    ]
    (target / "packages.txt").write_text("".join(versions))
    (target / "usr/bin/sh").unlink(missing_ok=True)
    (target / "usr/bin/sh").symlink_to("../../system/bin/sh")
    shell = next((target / "usr/lib").glob("*-linux-musl/bin/mksh"), target / "usr/bin/mksh")
    (target / "shell").symlink_to("/" + str(shell.relative_to(target)))


def list_applets(target: Path) -> None:
    """Which commands toybox is, asked of itself."""
    loader = next((target / "usr/lib64").glob("ld-linux*.so.2"))
    libraries = next((target / "usr/lib").glob("*-linux-gnu"))
    names = subprocess.run(
        [loader.resolve(), "--library-path", libraries, target / "usr/bin/toybox"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    if "sha256sum" not in names:
        sys.exit(f"toybox lists no sha256sum: {names}")
    (target / "applets.txt").write_text("\n".join(names) + "\n")


def main() -> None:
    """Fetch and unpack once; afterwards only print where."""
    target = rootfs()
    if not (target / "applets.txt").is_file():
        for tool in ("apt-get", "dpkg-deb", "tar"):
            if shutil.which(tool) is None:
                sys.exit(f"{tool} is needed: run this on Debian")
        if not KEYRING.is_file():
            sys.exit(f"{KEYRING} is needed: apt-get install debian-archive-keyring")
        work = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.rmtree(work, ignore_errors=True)
        try:
            packages = download(work / "apt")
            unpack(packages, work / "root")
            list_applets(work / "root")
            if target.exists():
                shutil.rmtree(target)
            (work / "root").rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    print(target)


if __name__ == "__main__":
    main()
