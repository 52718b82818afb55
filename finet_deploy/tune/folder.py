"""The folder of a search: it works under an unfinished name, and what it leaves appears under its own at the end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec

from finet_deploy.bench.protocol import UNFINISHED
from finet_deploy.errors import UsageError
from finet_deploy.files import (
    atomic_write_bytes,
    atomic_write_text,
    explain_os_error,
    replace_directory,
    temporary_directory_beside,
)
from finet_deploy.json_files import encode_json, read_json
from finet_deploy.tune.model import Candidate, LeftOut, TuneResult
from finet_deploy.tune.picture import render_svg
from finet_deploy.tune.render import render_csv, render_markdown

__all__ = ["Plan", "Workplace", "check_target", "unfinished_name"]

SEARCH_FILE, PLAN_FILE = "search.json", "plan.json"
MAX_BYTES = 16 << 20


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left to measure once the bundles are exported. A search that goes on keeps to it."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]


def unfinished_name(out: Path) -> Path:
    """Where a search works until its result has its name."""
    return out.with_name(out.name + UNFINISHED)


def check_target(out: Path, resume: bool) -> None:
    """UsageError when the result exists, or an unfinished search of its name that is not to be gone on with."""
    if out.exists() or out.is_symlink():
        raise UsageError("output exists", where=str(out), do="choose another folder, or remove it")
    work = unfinished_name(out)
    if not resume and (work.exists() or work.is_symlink()):
        raise UsageError(
            "an unfinished search is here", where=str(work), do="go on with --resume, or remove the folder"
        )


class Workplace:
    """`<out>.unfinished`: bundles, rungs or counts. asked: what decides the search, as plain data.

    UsageError when an unfinished search was asked for otherwise.
    """

    def __init__(self, out: Path, asked: dict[str, Any], resume: bool) -> None:
        check_target(out, resume)
        self.out, self.path = out, unfinished_name(out)
        self.bundles, self.rungs, self.counts = (self.path / name for name in ("bundles", "rungs", "counts"))
        data = encode_json(asked)
        stored = self.path / SEARCH_FILE
        if stored.exists():
            self._check(stored, asked)
        else:
            atomic_write_bytes(stored, data)

    def _check(self, stored: Path, asked: dict[str, Any]) -> None:
        found = _decode(stored, dict[str, Any])
        same = msgspec.json.decode(msgspec.json.encode(asked))
        changed = [key for key in {**found, **same} if found.get(key) != same.get(key)]
        if changed:
            raise UsageError(
                f"the unfinished search was asked for otherwise: {', '.join(changed)} differ",
                where=str(self.path),
                do="resume it with the options it was started with, or remove the folder",
            )

    def read_plan(self) -> Plan | None:
        """The plan, where exporting was done."""
        path = self.path / PLAN_FILE
        return _decode(path, Plan) if path.exists() else None

    def write_plan(self, plan: Plan) -> None:
        """From here on the search is of these candidates."""
        atomic_write_bytes(self.path / PLAN_FILE, encode_json(plan))

    def discard_if_empty(self) -> bool:
        """Remove the folder when no bundle was exported yet; whether something was left to resume."""
        kept = self.bundles.is_dir() and any(not item.name.startswith(".") for item in self.bundles.iterdir())
        if not kept and not self.rungs.is_dir() and not self.counts.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
            return False
        return True

    def finish(self, result: TuneResult, bundle: Path) -> None:
        """Write the result with its bundle under the final name, and remove the rest."""
        with temporary_directory_beside(self.out) as folder:
            write_result(result, folder)
            try:
                shutil.copytree(bundle, folder / "bundle")
                for records in (self.rungs, self.counts):
                    if records.is_dir():
                        shutil.copytree(records, folder / records.name)
            except OSError as error:
                raise explain_os_error(error, "write", self.out) from error
            check_target(self.out, resume=True)  # minutes have passed
            replace_directory(folder, self.out)
        shutil.rmtree(self.path, ignore_errors=True)


def write_result(result: TuneResult, folder: Path) -> None:
    """`tune.json`, `.csv`, `.md` and `.svg`."""
    atomic_write_bytes(folder / "tune.json", encode_json(result))
    texts = {"csv": render_csv, "md": render_markdown, "svg": render_svg}
    for suffix, render in texts.items():
        atomic_write_text(folder / f"tune.{suffix}", render(result))


def _decode(path: Path, kind: Any) -> Any:
    do = "remove the folder and start again"
    return read_json(path, kind, max_bytes=MAX_BYTES, what="not a file of a search", do=do)
