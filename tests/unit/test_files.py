"""Files are whole or absent, and no path leaves its folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from finet_deploy import files
from finet_deploy.errors import FinetDeployError, UsageError


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "a.json"
    files.atomic_write_text(target, "old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(FinetDeployError, match=r"No space left.*a\.json.*free some space"):
        files.atomic_write_text(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_an_interrupt_inside_a_write_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "a.json"
    files.atomic_write_text(target, "old")

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.atomic_write_text(target, "new")
    assert (target.read_text(), os.listdir(tmp_path)) == ("old", ["a.json"])


def test_a_written_file_can_be_read_by_others(tmp_path):
    files.atomic_write_bytes(tmp_path / "x", b"1")
    assert (tmp_path / "x").stat().st_mode & 0o044 == 0o044 & ~files._umask()


def test_writing_below_a_file_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FinetDeployError, match="cannot write.*file"):
        files.atomic_write_text(tmp_path / "file" / "x", "")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../../x", "", ".", "a\0b", "a\\..\\b", "link/x", "a/.."]
)
def test_paths_that_leave_the_folder_are_refused(tmp_path, path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(FinetDeployError, match="do not trust"):
        files.resolve_inside(folder, path)


def test_paths_inside_the_folder_are_resolved(tmp_path):
    assert files.resolve_inside(tmp_path, "sub/model.pte") == tmp_path.resolve() / "sub" / "model.pte"


def test_reads_are_bounded(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert files.read_bounded(tmp_path / "x", 5) == b"12345"
    with pytest.raises(FinetDeployError, match="larger than 4 bytes"):
        files.read_bounded(tmp_path / "x", 4)
    with pytest.raises(FinetDeployError, match="cannot read.*absent"):
        files.read_bounded(tmp_path / "absent", 4)


def test_a_folder_is_replaced_whole_and_the_old_one_survives_a_failure(tmp_path, monkeypatch):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").write_text("")
    rename = os.rename

    def failing(source, destination):
        if Path(destination) == target and Path(source).name != "old":
            raise OSError(errno.EIO, "Input/output error")
        rename(source, destination)

    monkeypatch.setattr(files.os, "rename", failing)
    with (
        files.temporary_directory_beside(target) as temporary,
        pytest.raises(FinetDeployError, match="cannot write"),
    ):
        files.replace_directory(temporary, target)
    assert os.listdir(target) == ["old"]
    assert os.listdir(tmp_path) == ["bundle"]
    monkeypatch.setattr(files.os, "rename", rename)
    with files.temporary_directory_beside(target) as temporary:
        (temporary / "new").write_text("")
        files.replace_directory(temporary, target)
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_folder_never_replaces_a_file(tmp_path):
    (tmp_path / "x").write_text("mine")
    with (
        files.temporary_directory_beside(tmp_path / "x") as temporary,
        pytest.raises(UsageError, match="not a folder"),
    ):
        files.replace_directory(temporary, tmp_path / "x")
    assert (tmp_path / "x").read_text() == "mine"


def test_a_temporary_folder_goes_with_its_block(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.temporary_directory_beside(tmp_path / "x") as temporary:
        (temporary / "half").write_text("")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
