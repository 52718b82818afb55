"""Manifest and resources: aapt2."""

from __future__ import annotations

import platform
import stat
from pathlib import Path

from finet_deploy.app.java import MIN_SDK, zip_entries
from finet_deploy.app.parts import Archive
from finet_deploy.app.tools import android_build_tools, run
from finet_deploy.errors import FinetDeployError

__all__ = ["TARGET_SDK", "aapt2_program", "link_resources"]

TARGET_SDK = 35
PREBUILT = "prebuilt/linux/aapt2"


def aapt2_program(archive: Archive, scratch: Path) -> Path:
    """aapt2 out of a library (Linux on x86_64), elsewhere that of `$ANDROID_HOME`."""
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        program = scratch / "aapt2"
        program.write_bytes(archive.read(PREBUILT))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return program
    build_tools = android_build_tools()
    if build_tools is None or not (build_tools / "aapt2").is_file():
        raise FinetDeployError(
            f"no aapt2 for {platform.system()} on {platform.machine()}",
            do="set ANDROID_HOME to an Android SDK",
        )
    return build_tools / "aapt2"


def link_resources(
    aapt2: Path, app: Path, framework: Path, version: tuple[int, str], scratch: Path
) -> tuple[dict[str, bytes], Path]:
    """(files of the APK: manifest, resources; folder with R.java). version: code and name."""
    compiled, linked, java = scratch / "resources.zip", scratch / "resources.apk", scratch / "r"
    run([aapt2, "compile", "--dir", app / "res", "-o", compiled], "compile the resources")
    command: list[str | Path] = [aapt2, "link", "-o", linked, "-I", framework, "--java", java]
    command += ["--manifest", app / "AndroidManifest.xml", "--no-version-vectors"]
    command += ["--min-sdk-version", str(MIN_SDK), "--target-sdk-version", str(TARGET_SDK)]
    command += ["--version-code", str(version[0]), "--version-name", version[1], compiled]
    run(command, "link the resources")
    return zip_entries(linked.read_bytes()), java
