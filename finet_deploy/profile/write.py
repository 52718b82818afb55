"""The files of a profile: JSON, CSV, Markdown and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finet_deploy.errors import UsageError
from finet_deploy.files import atomic_write_bytes, atomic_write_text
from finet_deploy.json_files import encode_json
from finet_deploy.profile.model import Profile
from finet_deploy.profile.picture import render_svg
from finet_deploy.profile.render import render_csv, render_markdown

__all__ = ["check_output", "write_profiles"]


def check_output(folder: Path) -> None:
    """UsageError when `folder` is a file: to be known before minutes of measuring."""
    if folder.exists() and not folder.is_dir():
        raise UsageError("output is a file", where=str(folder), do="name a folder")


def write_profiles(profiles: Sequence[Profile], folder: Path) -> list[Path]:
    """`profile.json`, `.csv`, `.md`, and `profile_<runtime>.svg` for each. FinetDeployError when that fails."""
    check_output(folder)
    paths = [folder / f"profile.{suffix}" for suffix in ("json", "csv", "md")]
    atomic_write_bytes(paths[0], encode_json(profiles))
    atomic_write_text(paths[1], render_csv(profiles))
    atomic_write_text(paths[2], render_markdown(profiles))
    for profile in profiles:
        paths.append(folder / f"profile_{profile.runtime}.svg")
        atomic_write_text(paths[-1], render_svg(profile))
    return paths
