"""The folder that becomes an emulated phone's file system."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from tests.device.phone.app import build_app_places
from tests.device.phone.personality import Personality
from tests.device.phone.userland import rootfs
from tests.device.profiles import Profile, render

__all__ = ["RootfsMissing", "build_phone", "remove_phone"]

SCRIPTS = Path(__file__).parent / "scripts"
# Ours: in the place of toybox's, or what only Android has.
SCRIPTED = ("getprop", "dumpsys", "settings", "taskset", "uname")
SCRIPTED += ("pm", "am", "logcat", "getconf", "visit_service", "update_app")
PASSWD = "root:x:0:0:root:/:/system/bin/sh\nshell:x:2000:2000:shell:/:/system/bin/sh\n"
GROUP = "root:x:0:\nshell:x:2000:\n"


class RootfsMissing(RuntimeError):
    """The phone's userland was not fetched."""


def build_phone(folder: Path, profile: Profile) -> Personality:
    """Lay out a phone below `folder`, which exists and is empty. Raises `RootfsMissing`."""
    source = rootfs()
    if not (source / "applets.txt").is_file():
        raise RootfsMissing(f"no {source}: run `python -m tests.device.oracle.fetch` first")
    root = folder / "root"
    for name in ("usr", "system/bin", "system/etc", "etc", "proc", "dev", "sys", "data", "personality/props"):
        (root / name).mkdir(parents=True)
    for name in ("mounted", "proc", "data/local/tmp"):
        (folder / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    build_app_places(folder)
    commands(root, source)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    personality = describe(folder, profile)
    for name in ("data", "data/local"):
        (folder / name).chmod(0o551)
    (folder / "data/local/tmp").chmod(0o771)
    return personality


def commands(root: Path, source: Path) -> None:
    """Shell, toybox, and our scripts for what only Android has."""
    bin_folder = root / "system/bin"
    (bin_folder / "sh").symlink_to(os.readlink(source / "shell"))
    (bin_folder / "toybox").symlink_to("/usr/bin/toybox")
    for applet in (source / "applets.txt").read_text().split():
        if applet not in SCRIPTED and applet != "sh":
            (bin_folder / applet).symlink_to("/usr/bin/toybox")
    for name in SCRIPTED:
        shutil.copyfile(SCRIPTS / name, bin_folder / name)
        (bin_folder / name).chmod(0o755)


def describe(folder: Path, profile: Profile) -> Personality:
    """The profile's properties, services, /sys and /proc."""
    root = folder / "root"
    for name in ("dumpsys", "settings/global", "settings/system"):
        (root / "personality" / name).mkdir(parents=True)
    (root / "personality/kernel").write_text(profile.kernel + "\n")
    (root / "personality/settings/system/screen_off_timeout").write_text("60000\n")
    for path, text in render.cpu_files(profile).items():
        place = root / "sys/devices/system/cpu" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        if place.name == "cpuinfo_cur_freq":
            place.chmod(0)  # root only, on phones
    zones = root / "sys/class/thermal/thermal_zone0"
    zones.mkdir(parents=True)
    (zones / "type").write_text("cpu-0-0\n")
    (zones / "temp").write_text("38100\n")
    zones.chmod(0)  # SELinux denies it to the shell
    (root / "sys/class/thermal").chmod(0)
    personality = Personality(folder, profile)
    for name, value in profile.properties.items():
        personality.set_property(name, value)
    personality.refresh()
    return personality


def remove_phone(folder: Path) -> None:
    """Delete the folder, also what cannot be read or written."""

    def repair(path: str) -> None:
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, stat.S_IRWXU)
                repair(entry.path)

    os.chmod(folder, stat.S_IRWXU)
    repair(str(folder))
    shutil.rmtree(folder)
