"""`finet-deploy devices`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.errors import UsageError

if TYPE_CHECKING:
    from finet_deploy.devices.adb import FoundPhone
    from finet_deploy.devices.phone_state import Core, PhoneFacts, PhoneState

EPILOG = """\b
Examples:
  finet-deploy devices
  finet-deploy devices 9A2X1FFAZ003KT
  finet-deploy devices tcp:192.168.1.20:5555 --json
  finet-deploy devices 9A2X1FFAZ003KT --clean
"""
PROBES_AT_ONCE = 8
READY = "device"  # what adb calls a phone that can be used
NO_PHONES = (
    "no phone found: switch on USB debugging in the phone's developer options and connect it by cable, "
    "or name one by its address: tcp:HOST:PORT"
)


@click.command("devices", epilog=EPILOG)
@click.argument("serial", required=False)
@click.option(
    "--clean", is_flag=True, help="Remove everything that this tool put on the phone SERIAL, the app too."
)
@output_options
def command(serial: str | None, clean: bool, console: Console) -> None:
    """List the phones, or probe the phone SERIAL: everything that a benchmark's records will hold.

    SERIAL is a name of this list (through the adb server), or tcp:HOST:PORT or usb:SERIAL (without one).
    """
    if serial is None:
        if clean:
            raise UsageError(
                "--clean without a phone", do="name the phone: finet-deploy devices SERIAL --clean"
            )
        _list(console)
    elif clean:
        _clean(serial, console)
    else:
        _describe(serial, console)


def _list(console: Console) -> None:
    from finet_deploy.devices.adb import find_phones

    phones = find_phones(notice=console.warn)
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        rows = list(pool.map(_row, phones))
    console.document(rows)
    if not rows:
        console.note(NO_PHONES)
        return
    columns = ("serial", "model", "soc", "android", "state")
    shown = [[_text(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *shown)]
    for line in (list(columns), *shown):
        console.result("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    for row in rows:
        if row["remedy"] is not None:
            console.result(f"{_text(row['serial'])}: {_text(row['remedy'])}")


def _row(phone: FoundPhone) -> dict[str, Any]:
    """A phone of the list, probed when it can be used. One that fails is a line with the reason."""
    from finet_deploy.devices.adb import PhoneError, open_connection
    from finet_deploy.devices.phone_state import read_facts

    row: dict[str, Any] = {
        "serial": phone.serial,
        "model": phone.model or None,
        "soc": None,
        "android": None,
        "state": phone.state,
        "remedy": phone.remedy,
    }
    if phone.state != READY:
        return row
    try:
        connection = open_connection(phone.serial)
        try:
            facts = read_facts(connection)
        finally:
            connection.close()
    except PhoneError as error:
        return {**row, "state": "not answering", "remedy": str(error)}
    names = [facts.manufacturer.value, facts.model.value]
    model = " ".join(name for name in names if name) or row["model"]
    return {**row, "model": model, "soc": facts.soc.value, "android": facts.android_version.value}


def _describe(serial: str, console: Console) -> None:
    import msgspec

    from finet_deploy.devices.adb import open_connection
    from finet_deploy.devices.phone_state import read_facts, read_state

    connection = open_connection(serial, notice=console.warn)
    try:
        facts, state = read_facts(connection), read_state(connection)
    finally:
        connection.close()
    console.document(
        {"serial": serial, "facts": msgspec.to_builtins(facts), "state": msgspec.to_builtins(state)}
    )
    console.result(_text(serial))
    for name, value in [*_facts(facts), *_state(state)]:
        console.result(f"  {name:<22} {value}")


def _clean(serial: str, console: Console) -> None:
    from finet_deploy.devices.adb import open_connection
    from finet_deploy.devices.android import PHONE_FOLDER, AndroidDevice
    from finet_deploy.devices.app.names import PACKAGE
    from finet_deploy.devices.app.remove import remove_app
    from finet_deploy.devices.patience import Patience

    connection = open_connection(serial, notice=console.warn)
    with AndroidDevice(connection, note=console.note) as device:
        device.clean()
        app = remove_app(connection, patience=Patience(), note=lambda text: None)
    console.document({"serial": serial, "removed": PHONE_FOLDER, "app_removed": app})
    and_app = f", and the app {PACKAGE} with its folder" if app else ""
    console.result(f"{_text(serial)}: removed {PHONE_FOLDER}{and_app}")


def _facts(facts: PhoneFacts) -> list[tuple[str, str]]:
    from finet_deploy.devices.affinity import big_cores, describe_cores

    found = [
        (name.replace("_", " "), _reading(getattr(facts, name)))
        for name in facts.__struct_fields__
        if name not in ("cores", "emulated")
    ]
    cores = facts.cores.value
    if cores is None:
        return [*found, ("cores", _reading(facts.cores))]
    big, rule = big_cores(cores)
    found.append(("cores", _reading(describe_cores(cores))))
    found += [(f"  core {core.index}", _core(core)) for core in cores]
    found.append(("big cores", f"{', '.join(map(str, big))} ({rule})"))
    found.append(("default threads", str(len(big))))
    if facts.emulated:
        found.append(("emulated", "yes: another machine plays this phone, its times are no speeds"))
    return found


def _state(state: PhoneState) -> list[tuple[str, str]]:
    found = [
        (name.replace("_", " "), _reading(getattr(state, name)))
        for name in state.__struct_fields__
        if name not in ("faked", "time_in_state")
    ]
    counted = state.time_in_state
    text = f"{len(counted.value)} cores" if counted.value is not None else _reading(counted)
    found.append(("time in state", text))
    if state.faked:
        found.append(("faked", "yes: battery or heat were set by hand, not measured"))
    return found


def _core(core: Core) -> str:
    parts = ["online" if core.online else "offline"]
    if core.capacity is not None:
        parts.append(f"capacity {core.capacity}")
    if core.max_mhz is not None:
        parts.append(f"up to {core.max_mhz:g} MHz")
    if core.part is not None and core.implementer is not None:
        parts.append(f"implementer {core.implementer:#04x} part {core.part:#05x}")
    return ", ".join(parts)


def _reading(given: Any) -> str:
    if given.value is None:
        return f"not known: {_text(given.reason)}"
    if isinstance(given.value, dict):
        return ", ".join(f"{_text(key)}: {_text(value)}" for key, value in given.value.items())
    if isinstance(given.value, tuple):
        return ", ".join(_text(item) for item in given.value)
    return _text(given.value)


def _text(value: Any) -> str:
    """What a phone says, printable: it may hold control characters."""
    from finet_deploy.devices.adb import visible

    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return visible(f"{value:g}" if isinstance(value, float) else str(value))
