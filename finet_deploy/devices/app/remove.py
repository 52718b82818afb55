"""The app taken off a phone again, with all that it keeps there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from finet_deploy.devices.adb.errors import visible
from finet_deploy.devices.app.names import APP_FOLDER, PACKAGE
from finet_deploy.devices.app.pm_answers import AppRefused, installed_listing, succeeded
from finet_deploy.devices.patience import Patience, persist
from finet_deploy.devices.push import remove_folder
from finet_deploy.devices.sections import ask

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["remove_app"]

SECONDS = 60.0
BY_HAND = "uninstall it on the phone: Settings, Apps; on a managed phone ask who manages it"


def remove_app(connection: Connection, *, patience: Patience, note: Callable[[str], None]) -> bool:
    """Uninstall the app and remove its folder, where they are; whether it was installed. note: told so.

    Raises AppRefused when the phone keeps it.
    """
    seen = False

    def uninstall() -> None:  # the answer may get lost after the deed: it is looked at first, each time
        nonlocal seen
        path = ask(connection, {"path": f"pm path {PACKAGE}"})["path"]
        there = bool(installed_listing(path.stdout))
        if not there and path.stderr.strip():
            note(f"{connection.name}: whether the app is installed, the phone does not tell: {path.reason}")
        if there:
            seen = True
            answer = connection.shell(f"pm uninstall {PACKAGE}", timeout=SECONDS)
            if not succeeded(answer.stdout):
                said = visible(answer.stdout + answer.stderr)
                raise AppRefused(connection.name, "while removing the app", said, do=BY_HAND)

    persist(connection, uninstall, patience, "removing the app")
    remove_folder(connection, APP_FOLDER, patience=patience)
    if seen:
        note(f"{connection.name}: removed the app {PACKAGE}")
    return seen
