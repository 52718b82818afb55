"""The devices that `--device` names, and several of them at once: a process a device, a table with a column each."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import folder_name

if TYPE_CHECKING:
    from finet_deploy.api.listener import Listener
    from finet_deploy.devices.android import AndroidDevice
    from finet_deploy.devices.base import Device

__all__ = ["DeviceOptions", "device_folder", "device_names", "measure_each", "open_device"]

HOST, ALL = "host", "all"
STOP_SECONDS = 60.0  # for a device's process to end what runs on its phone


@dataclass(frozen=True)
class DeviceOptions:
    """runner: `python`, `native`, `app` or None for the device's own. emulated: what was said by hand. apk: the app."""

    runner: str | None
    emulated: bool
    pinned: bool
    clean: bool
    apk: Path | None = None


def device_names(given: Sequence[str], listener: Listener) -> tuple[str, ...]:
    """The devices to measure. `all`: every phone that is ready; of the others it is said what to do about them."""
    names = list(given)
    if ALL in names:
        if len(names) > 1:
            raise UsageError("--device all, and others beside it", do="give `all` alone, or name the devices")
        from finet_deploy.devices.adb import find_phones

        phones = find_phones(notice=listener.note)
        for phone in phones:
            if not phone.ready:
                listener.warn(f"{phone.serial} is {phone.state}: {phone.remedy or 'left out'}")
        names = [phone.serial for phone in phones if phone.ready]
        if not names:
            raise FinetDeployError("no phone is ready", do="see `finet-deploy devices`")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"--device {sorted(twice)[0]} twice", do="name each device once")
    return tuple(names)


@contextlib.contextmanager
def open_device(name: str, options: DeviceOptions, listener: Listener) -> Iterator[Device]:
    """The device of this name: `host`, an adb serial, tcp:HOST:PORT or usb:SERIAL."""
    if name == HOST:
        yield _host(options)
        return
    with _phone(name, options, listener) as phone:
        yield phone
        if options.clean:
            phone.clean()
            listener.note(f"{name}: removed our folder from the phone{_and_app(options)}")


def _phone(name: str, options: DeviceOptions, listener: Listener) -> AndroidDevice:
    """The phone, to be measured by the native runner or by the app."""
    from finet_deploy.devices.adb import open_connection

    if options.runner not in (None, "native", "app"):
        raise UsageError(f"--runner {options.runner} on a phone", do="phones have --runner native and app")
    if options.apk is not None and options.runner != "app":
        raise UsageError("--apk is for --runner app", do="give both or none")
    common: dict[str, Any] = {
        "emulated": options.emulated,
        "pinned": options.pinned,
        "note": listener.note,
    }
    if options.runner != "app":
        from finet_deploy.devices.android import AndroidDevice

        return AndroidDevice(open_connection(name, notice=listener.note), **common)
    from finet_deploy.devices.app.apk import find_apk
    from finet_deploy.devices.app_device import AppDevice

    apk = find_apk(options.apk)  # before a phone is bothered
    return AppDevice(open_connection(name, notice=listener.note), apk=apk, **common)


def _and_app(options: DeviceOptions) -> str:
    return ", and the app" if options.runner == "app" else ""


def _host(options: DeviceOptions) -> Device:
    from finet_deploy.devices.host import HostDevice

    if options.clean or options.emulated or options.apk is not None:
        raise UsageError(
            "--clean, --emulated and --apk are for phones", do="leave them out with --device host"
        )
    if options.runner == "app":
        raise UsageError("--runner app on this machine", do="name a phone with --device")
    if options.runner == "native":
        from finet_deploy.runner.host import NativeHostRunner

        return NativeHostRunner()
    return HostDevice()


def device_folder(out: Path, name: str) -> Path:
    """The run folder of one of several devices, below `out`. A device's name is data: no path comes of it."""
    return out / folder_name(name, "device")


def measure_each(commands: dict[str, list[str]], listener: Listener) -> dict[str, int]:
    """Run one `finet-deploy` command line a device, all at once; their notes pass through with the device's name.

    Returns each exit status: one device that fails does not stop the others. Ctrl-C is handed on, and everybody gets
    the time to end what runs on the phone.
    """
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-m", "finet_deploy", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # the terminal's Ctrl-C reaches them once, from here
        )
        for name, arguments in commands.items()
    }
    readers = [
        threading.Thread(target=_pass_on, args=(name, process, listener), daemon=True)
        for name, process in processes.items()
    ]
    for reader in readers:
        reader.start()
    try:
        return {name: process.wait() for name, process in processes.items()}
    except BaseException:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        for process in processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        raise
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.kill()
        for reader in readers:
            reader.join(STOP_SECONDS)


def _pass_on(name: str, process: subprocess.Popen[str], listener: Listener) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        text = line.rstrip("\n")
        if text.startswith(("warning:", "finet-deploy: error:")):
            listener.warn(f"{name}: {text.removeprefix('warning: ')}")
        else:
            listener.note(f"{name}: {text}")
