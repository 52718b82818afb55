"""The app on the simulated phone, from the test's side: what befalls it, and what became of it.

The app's own code runs in it, on this machine's Java, which lies beside it under /apex. Formats of `pm`, `am`,
`logcat` and `dumpsys` follow AOSP's sources and other projects' samples; none was recorded on a phone. What is not
played: the app's own user id (it runs as the shell), SELinux, Doze, the system's dialogs.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tests.device.phone.personality import Personality

__all__ = ["FATES", "PhoneApp", "java_folders", "make_apk"]

PACKAGE = "org.finetdeploy.app"
FATES = (
    "crash",
    "native",
    "anr",
    "memory",
    "permission",
    "updated",
    "user",
    "gone",
    "hang",
    "anr_dialog",
    "stillborn",
)
SYSTEM = ("packages", "log", "exits", "tmp")
# An app's process goes by its package's name, not by the program's; and phones have no /tmp.
SHIM = """\
#!/system/bin/sh
exec -a "${FINET_PROCESS:-java}" /apex/java/bin/java -Djava.io.tmpdir=/data/system/tmp "$@"
"""


class PhoneApp:
    """Faults stay until they are taken back with None; a fate strikes `times` visits."""

    def __init__(self, folder: Path, personality: Personality) -> None:
        self._folder, self._personality = folder, personality

    def fail_install(self, text: str | None) -> None:
        """`pm install` answers `Failure [TEXT]`, or throws for want of space when `text` is `full`."""
        self._set("install.fail", text)

    def fail_start(self, text: str | None) -> None:
        """`am start-foreground-service` says this on stderr, and starts nothing."""
        self._set("start.fail", text)

    def fail_grant(self, text: str | None) -> None:
        """`pm grant` throws this."""
        self._set("grant.fail", text)

    def fail_uninstall(self, text: str | None) -> None:
        """`pm uninstall` answers `Failure [TEXT]`."""
        self._set("uninstall.fail", text)

    def set_pages(self, size: int) -> None:
        """The size of the memory's pages, bytes."""
        self._set("page_size", str(size))

    def set_fate(
        self, kind: str | None, text: str = "", *, at: int = 4, times: int = 1, visits: str = "timed"
    ) -> None:
        """What happens to the app's process once its records have `at` lines; visits: `timed`, `proof` or `any`."""
        if kind is not None and kind not in FATES:
            raise ValueError(f"no fate {kind!r}")
        for name, value in (("text", text), ("at", at), ("times", times), ("visits", visits), ("kind", kind)):
            self._set(f"fate/{name}", None if kind is None else str(value))

    def forget(self) -> None:
        """As if nothing had happened yet: no fault, and nothing counted. What is installed stays."""
        self.set_fate(None)
        self.fail_start(None)
        for name in ("installed.log", "started.log", "fate.log"):
            (self._folder / "data/system" / name).unlink(missing_ok=True)

    def lock(self, locked: bool = True) -> None:
        """As before the first unlock after a start: shared storage is not there."""
        there, away = (self._folder / "data/media" / name for name in ("0", "locked"))
        if locked:
            there.rename(away)
        else:
            away.rename(there)

    def update(self) -> None:
        """Somebody installs other bytes, between two visits."""
        package = self._folder / "data/system/packages" / PACKAGE
        old = self._data((package / "folder").read_text().strip())
        new = old.with_name("~~anew==")
        shutil.move(old, new)
        with next(new.glob("*/base.apk")).open("ab") as stream:
            stream.write(b"updated")
        (package / "folder").write_text("/data/app/~~anew==\n")

    @property
    def files(self) -> Path:
        """The app's external folder, as this machine sees it."""
        return self._folder / "data/media/0/Android/data" / PACKAGE / "files"

    def installations(self) -> int:
        return len(self._log("installed.log"))

    def starts(self) -> list[str]:
        """`COMPONENT REQUEST OUTPUTS` of each service that was started."""
        return self._log("started.log")

    def struck(self) -> list[str]:
        return self._log("fate.log")

    def permissions(self) -> list[str]:
        return self._log(f"packages/{PACKAGE}/granted")

    def _log(self, name: str) -> list[str]:
        path = self._folder / "data/system" / name
        return path.read_text().splitlines() if path.exists() else []

    def _data(self, remote: str) -> Path:
        return self._folder / remote.lstrip("/")

    def _set(self, name: str, text: str | None) -> None:
        path = f"root/personality/app/{name}"
        if text is None:
            self._personality.remove(path)
        else:
            self._personality.write(path, text)


def build_app_places(folder: Path) -> None:
    """What the app's commands need of the phone's file system."""
    for name in ("personality/app/fate", "apex/app", "apex/java", "apex/bin"):
        (folder / "root" / name).mkdir(parents=True)
    shim = folder / "root/apex/bin/java"
    shim.write_text(SHIM)
    shim.chmod(0o755)
    (folder / "root/sdcard").symlink_to("/data/media/0")
    for name in ("app", "media/0/Android/data", *(f"system/{name}" for name in SYSTEM)):
        (folder / "data" / name).mkdir(parents=True)
    configured = configuration()
    if configured is not None:
        (folder / "root" / str(configured).lstrip("/")).mkdir(parents=True)


def java_folders() -> dict[str, Path]:
    """Where the phone has Java -> where this machine has it; none where Java is not installed."""
    java = shutil.which("java")
    if java is None:
        return {}
    folders = {"apex/java": Path(java).resolve().parents[1]}
    configured = configuration()
    return folders if configured is None else {**folders, str(configured).lstrip("/"): configured}


def configuration() -> Path | None:
    """Where Debian keeps Java's configuration, to which its folder links."""
    java = shutil.which("java")
    if java is None:
        return None
    found = (Path(java).resolve().parents[1] / "lib/jvm.cfg").resolve().parent
    return found if found.is_relative_to("/etc") else None


def make_apk(
    path: Path,
    *,
    version: int = 1,
    cert: str = "aabbccdd",
    abis: str = "arm64-v8a x86_64",
    salt: str = "",
    libraries: Mapping[str, bytes] = MappingProxyType({}),
) -> Path:
    """An APK that the simulated package manager can read: no code is in it, the stand-in is what runs.

    libraries: name in the APK -> content, besides.
    """
    lines = {"package": PACKAGE, "version": version, "cert": cert, "abis": abis, "salt": salt}
    text = "\n" + "".join(f"simulated-{name}={value}\n" for name, value in lines.items())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("AndroidManifest.xml", PACKAGE.encode("utf-16-le"))
        archive.writestr("simulated.txt", text)
        for name, content in libraries.items():
            archive.writestr(name, content)
    return path
