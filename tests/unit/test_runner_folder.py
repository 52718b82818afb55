"""A runner folder is used only when it is whole; what is missing is said with the command that makes it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.commands.runner import command
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.runner import TARGETS, folder, runner_command, runner_folder
from finet_deploy.runner.manifest import FileEntry, Manifest, check_folder, read_manifest
from finet_deploy.runner.targets import WHEELS


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """No runner anywhere: an empty cache, nothing packed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(folder, "PACKAGE", folder.PACKAGE.parent / "runner")
    if (folder.PACKAGE / "data").is_dir():
        pytest.skip("a runner is packed in this tree")
    return tmp_path


def write_folder(path: Path, *, target: str = "aarch64", key: str = "k") -> Path:
    files = {"run.sh": b"#!/bin/sh\n", "bin/finet-runner": b"\x7fELF", "lib/libc.so.6": b"c" * 1000}
    entries = []
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
        (path / name).chmod(0o755)
        entries.append(
            FileEntry(
                path=name,
                sha256=hashlib.sha256(data).hexdigest(),
                bytes=len(data),
                executable=True,
                origin="test",
                licence="none",
            )
        )
    manifest = Manifest(
        target=target,
        key=key,
        tool_version="0",
        versions={},
        compiler="none",
        segment_alignment=65536,
        command=("lib/ld", "bin/finet-runner"),
        files=tuple(entries),
    )
    (path / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return path


@pytest.mark.parametrize("name", TARGETS)
def test_a_runner_that_was_never_built_names_the_command_that_builds_it(empty, name):
    with pytest.raises(FinetDeployError, match=f"finet-deploy runner build --target {name}"):
        runner_folder(name)


def test_an_unknown_target_is_a_usage_error_with_the_near_name():
    with pytest.raises(UsageError, match="did you mean 'aarch64'"):
        runner_folder("aarch46")


def test_the_cached_folder_of_these_sources_is_found_and_another_ones_is_not(empty):
    sources = folder.native_sources()
    assert sources is not None
    key = folder.source_key("aarch64", sources)
    write_folder(folder.cached_runner("aarch64", "0" * 64), key="0" * 64)
    with pytest.raises(FinetDeployError, match="no native runner"):
        runner_folder("aarch64")
    built = write_folder(folder.cached_runner("aarch64", key), key=key)
    assert runner_folder("aarch64") == built
    assert runner_command(built)[-1] == str(built / "run.sh")


def test_the_key_follows_sources_and_target(tmp_path):
    sources = folder.native_sources()
    copy = tmp_path / "native"
    (copy / "src").mkdir(parents=True)
    for file in folder.source_files(sources):
        to = copy / ("src" if file.suffix != ".sh" else "") / file.name
        to.write_bytes(file.read_bytes())
    assert folder.source_key("aarch64", copy) == folder.source_key("aarch64", sources)
    assert folder.source_key("x86_64", copy) != folder.source_key("aarch64", copy)
    with (copy / "src" / "main.cpp").open("ab") as stream:
        stream.write(b"\n")
    assert folder.source_key("aarch64", copy) != folder.source_key("aarch64", sources)


def damage_content(path):
    (path / "lib" / "libc.so.6").write_bytes(b"d" * 1000)


def damage_size(path):
    (path / "lib" / "libc.so.6").write_bytes(b"c" * 999)


def damage_missing(path):
    (path / "lib" / "libc.so.6").unlink()


def damage_mode(path):
    (path / "bin" / "finet-runner").chmod(0o644)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_content, "was changed"),
        (damage_size, "was changed"),
        (damage_missing, "is missing"),
        (damage_mode, "may not be executed"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_naming_the_file(tmp_path, damage, message):
    check_folder(write_folder(tmp_path / "whole"))
    damage(write_folder(tmp_path / "runner"))
    with pytest.raises(FinetDeployError, match=message):
        check_folder(tmp_path / "runner")


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "lib/../../evil", ""])
def test_a_manifest_cannot_name_files_outside_its_folder(tmp_path, path):
    manifest = read_manifest(write_folder(tmp_path))
    evil = msgspec.structs.replace(manifest.files[0], path=path)
    data = msgspec.json.encode(msgspec.structs.replace(manifest, files=(evil,)))
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(FinetDeployError, match="do not trust"):
        check_folder(tmp_path)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(msgspec.json.encode)
)
def test_any_other_manifest_is_an_error_of_ours(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("runner")
    (path / "manifest.json").write_bytes(data)
    with pytest.raises(FinetDeployError):
        read_manifest(path)


def test_a_manifest_of_another_schema_version_is_refused(tmp_path):
    manifest = read_manifest(write_folder(tmp_path))
    data = msgspec.json.encode(msgspec.structs.replace(manifest, schema_version=2))
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(FinetDeployError, match="schema_version 2"):
        read_manifest(tmp_path)


def test_every_release_is_pinned_by_hash_for_every_target():
    for wheel in WHEELS:
        assert set(wheel.sha256) == set(TARGETS)
        assert all(len(value) == 64 for value in wheel.sha256.values())


def test_building_over_a_folder_that_is_somebody_elses_is_refused(empty, monkeypatch):
    from finet_deploy.runner.build import build_runner

    theirs = empty / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("keep")
    with pytest.raises(UsageError, match="not a runner's folder"):
        build_runner("aarch64", out=theirs, progress=lambda step: None)
    assert (theirs / "file").read_text() == "keep"


def test_a_missing_compiler_names_its_package(empty, monkeypatch):
    from finet_deploy.runner.build import build_runner

    monkeypatch.setenv("PATH", "")
    with pytest.raises(FinetDeployError, match="apt-get install g\\+\\+-aarch64-linux-gnu"):
        build_runner("aarch64", progress=lambda step: None)
    assert not list((empty / "cache").rglob("manifest.json"))


def test_the_command_shows_a_folder_as_json(empty, capsys):
    import json

    key = folder.source_key("aarch64", folder.native_sources())
    built = write_folder(folder.cached_runner("aarch64", key), key=key)
    command.main(["show", "--target", "aarch64", "--json"], standalone_mode=False)
    document = json.loads(capsys.readouterr().out)
    assert document["path"] == str(built)
    assert document["target"] == "aarch64"
