"""The app on a phone: installed where the very same APK is not there yet, and its folder made by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from finet_deploy.devices.adb.connection import quote
from finet_deploy.devices.adb.errors import PhoneError, PhoneTimeout
from finet_deploy.devices.app.am_answers import is_refusal, refused_start
from finet_deploy.devices.app.apk import Apk
from finet_deploy.devices.app.names import APP_FILES, PACKAGE, PROCESS, SERVICE
from finet_deploy.devices.app.pm_answers import AppRefused, installed_listing, refused_install, succeeded
from finet_deploy.devices.patience import Patience, persist
from finet_deploy.devices.push import PushProgress, remote_file, sync
from finet_deploy.devices.sections import Section, ask

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["AppLocked", "AppOnPhone"]

APK_NAME = "app.apk"
INSTALL_SECONDS = 300.0  # vendors ask their user; some give a minute for the answer
HASH_SECONDS = 120.0
STORAGE = "/sdcard/Android/data"
FIRST_START_SECONDS = 20.0
NOTIFICATIONS, NOTIFICATIONS_SDK = "android.permission.POST_NOTIFICATIONS", 33


class AppLocked(PhoneError):
    """The phone was not unlocked since it started: apps and shared storage are out of reach."""

    remedy = "unlock the phone once, then try again"


class AppOnPhone:
    """Sees to it that `apk` is what is installed. folder: ours on the phone. sdk: the phone's API level, if known.

    listing: what `pm path` says of the installed app; it changes with every installation.
    """

    def __init__(
        self,
        connection: Connection,
        apk: Apk,
        folder: str,
        *,
        sdk: int | None,
        patience: Patience,
        note: Callable[[str], None],
        progress: PushProgress | None = None,
    ) -> None:
        self._connection, self._apk, self._folder = connection, apk, folder
        self._sdk, self._patience = sdk, patience
        self._note, self._progress = note, progress
        self.listing: tuple[str, ...] = ()

    def ensure(self) -> None:
        """Install the APK unless the same bytes are installed, and make its folder. Raises `PhoneError`."""
        self._check_unlocked()
        # A link that was lost on the way may have been lost after the installation: it is looked at first.
        persist(self._connection, self._install_missing, self._patience, "installing the app")
        self._grant()
        self._make_folder()

    def force_stop(self, patience: Patience | None = None) -> None:
        """End every process of the app. Nothing happens when it has none, or is not installed."""
        self._shell(f"am force-stop {PACKAGE}", "ending the app", patience)

    def _shell(self, command: str, doing: str, patience: Patience | None = None) -> bytes:
        result = persist(
            self._connection, lambda: self._connection.shell(command), patience or self._patience, doing
        )
        return result.stdout + result.stderr

    def _ask(self, commands: dict[str, str], doing: str, *, timeout: float = 30.0) -> dict[str, Section]:
        return persist(
            self._connection, lambda: ask(self._connection, commands, timeout=timeout), self._patience, doing
        )

    def _check_unlocked(self) -> None:
        found = self._ask({"storage": f"ls -d {STORAGE}"}, "looking for the app's folder")["storage"]
        if found.status != 0:
            what = (
                f"shared storage is not there ({found.reason}): the phone was not unlocked since it started"
            )
            raise AppLocked(self._connection.name, what)

    def _installed_sha256(self) -> str | None:
        """SHA-256 of the installed APK; None when it is not installed or cannot be read."""
        doing = "comparing the app on the phone"
        self.listing = installed_listing(self._ask({"path": f"pm path {PACKAGE}"}, doing)["path"].stdout)
        if not self.listing:
            return None
        path = quote(self.listing[0].removeprefix("package:"))
        words = self._ask({"hash": f"sha256sum < {path}"}, doing, timeout=HASH_SECONDS)["hash"].stdout.split()
        return words[0].decode("ascii", "replace") if words else None

    def _install_missing(self) -> None:
        if self._installed_sha256() != self._apk.sha256:
            self._install()

    def _install(self) -> None:
        phone = self._connection.name
        self._note(f"{phone}: {'replacing' if self.listing else 'installing'} the app")
        file = remote_file(self._apk.path, APK_NAME, sha256=self._apk.sha256)
        sync(
            self._connection,
            self._folder,
            [file],
            patience=self._patience,
            progress=self._progress,
            note=self._note,
        )
        apk = quote(f"{self._folder}/{APK_NAME}")
        command = f"pm install -r {apk}; r=$?; rm -f {apk}; exit $r"
        try:
            result = self._connection.shell(command, timeout=INSTALL_SECONDS)
        except PhoneTimeout as error:
            what = f"{error.message}; it may be waiting for somebody to confirm the installation"
            do = "unlock the phone, confirm on its screen, then try again"
            raise AppRefused(phone, "while installing the app", what, do=do) from error
        if not succeeded(result.stdout):
            raise refused_install(phone, result.stdout + result.stderr)
        found = self._installed_sha256()
        if found is None and not self.listing:
            raise AppRefused(phone, "the phone says that it installed the app", "and does not list it")
        if found is not None and found != self._apk.sha256:
            raise AppRefused(
                phone, "the phone installed another app than it was given", f"SHA-256 {found[:16]}"
            )

    def _grant(self) -> None:
        """The notification that a foreground service shows; a phone that refuses it measures all the same."""
        if self._sdk is not None and self._sdk < NOTIFICATIONS_SDK:
            return
        command = {"grant": f"pm grant {PACKAGE} {NOTIFICATIONS}"}
        answer = self._ask(command, "granting the app its permission")["grant"]
        if answer.status != 0 and self._sdk is not None:
            self._note(f"{self._connection.name}: {NOTIFICATIONS} was not granted: {answer.reason}")

    def _make_folder(self) -> None:
        """Let the app make its own folder: in one that adb's shell made it may not be able to write.

        A service without a request does nothing else.
        """
        there = f"if [ -d {APP_FILES} ]; then echo yes; fi"
        doing = "waiting for the app to make its folder"
        if b"yes" in self._ask({"there": there}, doing)["there"].stdout:
            return
        answer = self._shell(f"am start-foreground-service -n {SERVICE}", doing).decode("utf-8", "replace")
        if is_refusal(answer):
            cause = refused_start(answer)
            do = "then try again" if "unlock" in cause.reason else None
            raise AppRefused(self._connection.name, doing, cause.reason, do=do)
        deadline = time.monotonic() + FIRST_START_SECONDS
        while b"yes" not in self._ask({"there": there}, doing)["there"].stdout:
            if time.monotonic() > deadline:
                raise AppRefused(self._connection.name, f"{doing}: it did not", answer)
            time.sleep(self._patience.poll_seconds)
        self._shell(f"while pidof {PROCESS} > /dev/null; do sleep 0.2; done", doing)
