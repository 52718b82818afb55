"""What a benchmark needs on a phone, brought there: the runner, and each row's artifact and golden file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finet_deploy.bench.protocol import Row
from finet_deploy.devices.adb.errors import PhoneError
from finet_deploy.devices.patience import Patience, persist
from finet_deploy.devices.phone_files import RUNNER, row_files, runner_files
from finet_deploy.devices.phone_state import PhoneFacts
from finet_deploy.devices.push import PushProgress, remove_folder, sync

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["bring", "target_of"]

TARGETS = {"arm64-v8a": "aarch64", "aarch64": "aarch64", "x86_64": "x86_64"}


def target_of(phone: str, facts: PhoneFacts) -> str:
    """Which runner the phone called `phone` can execute. PhoneError when there is none."""
    abi, machine = facts.abi.value or "", facts.machine.value or ""
    target = TARGETS.get(abi) or TARGETS.get(machine)
    if target is None:
        what = f"no runner for this phone: ABI {abi or 'unknown'}, machine {machine or 'unknown'}"
        raise PhoneError(phone, what, do="use a phone with a 64-bit system")
    return target


def bring(
    connection: Connection,
    folder: str,
    *,
    runner: Path,
    rows: Sequence[Row],
    run: Path,
    patience: Patience,
    progress: PushProgress | None,
    note: Callable[[str], None],
) -> str:
    """Make `folder` on the phone hold the runner in `runner` and the files of `rows`, whose bundles are relative to the
    run folder `run`. The runner's folder there. Raises `PhoneError`."""
    ours, name = runner_files(runner)
    files = [*ours, *(file for row in rows for file in row_files(row, run))]
    sent = sync(connection, folder, files, patience=patience, progress=progress, note=note)
    note(f"{connection.name}: {sent} of {len({file.path for file in files})} files sent")
    listed = persist(connection, lambda: connection.list(folder), patience, "listing our folder")
    for old in listed:
        if re.fullmatch(RUNNER + "[0-9a-f]{16}", old) and old != name:  # 40 MB each: one is enough
            remove_folder(connection, f"{folder}/{old}", patience=patience)
    return f"{folder}/{name}"
