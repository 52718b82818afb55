"""A runner folder is used only when it is whole; what is missing is said with the command that makes it."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
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

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """No runner anywhere: an empty cache, and a package as a wheel lays it out, with sources but no runner."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package = tmp_path / "package" / "runner"
    package.mkdir(parents=True)
    (package / "native").symlink_to(ROOT / "android_app/native")
    monkeypatch.setattr(folder, "PACKAGE", package)
    return tmp_path


def packed(name: str = "aarch64", *, key: str | None = None) -> Path:
    """A runner in the package, made from the sources there unless another key is given."""
    key = key or folder.source_key(name, folder.native_sources())
    return write_folder(folder.PACKAGE / "data" / name, target=name, key=key)


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


def test_the_key_follows_sources_licences_and_target(tmp_path):
    sources = folder.native_sources()
    copy = tmp_path / "native"
    shutil.copytree(sources, copy)
    key = folder.source_key("aarch64", sources)
    assert folder.source_key("aarch64", copy) == key
    assert folder.source_key("x86_64", copy) != key
    (copy / "README.md").write_text("not a part of the runner")
    assert folder.source_key("aarch64", copy) == key
    for name in ("src/main.cpp", "run.sh", "licenses/executorch-third-party.txt"):
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data + b"\n")
        assert folder.source_key("aarch64", copy) != key, name
        (copy / name).write_bytes(data)


def test_the_packed_runner_is_used_before_the_built_one(empty):
    built = packed()
    write_folder(folder.cached_runner("aarch64", read_manifest(built).key))
    assert runner_folder("aarch64") == built


def test_a_packed_runner_without_sources_beside_it_is_used(empty):
    built = packed()
    (folder.PACKAGE / "native").unlink()
    assert runner_folder("aarch64") == built


def test_a_packed_runner_of_other_sources_is_not_used_and_its_place_is_said(empty):
    stale = packed(key="0" * 64)
    with pytest.raises(
        FinetDeployError, match="built from other sources .*install finet-deploy again"
    ) as raised:
        runner_folder("aarch64")
    assert str(stale) in str(raised.value)
    key = folder.source_key("aarch64", folder.native_sources())
    built = write_folder(folder.cached_runner("aarch64", key), key=key)
    assert runner_folder("aarch64") == built


def test_a_packed_runner_that_lost_its_modes_is_run_from_a_copy_made_once(empty):
    original = packed()
    for path in original.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
    copy = runner_folder("aarch64")
    assert copy == folder.cached_runner("aarch64", read_manifest(original).key)
    assert check_folder(copy) == read_manifest(original)
    inode = copy.stat().st_ino
    assert runner_folder("aarch64").stat().st_ino == inode
    damage_content(copy)
    assert check_folder(runner_folder("aarch64"))  # a damaged copy is made again


def test_a_copy_that_cannot_be_made_names_the_folder(empty):
    original = packed()
    damage_mode(original)
    (empty / "cache").write_text("a file where the cache should be")
    with pytest.raises(FinetDeployError, match="cannot .*cache"):
        runner_folder("aarch64")


def damage_content(path):
    (path / "lib" / "libc.so.6").write_bytes(b"d" * 1000)


def damage_size(path):
    (path / "lib" / "libc.so.6").write_bytes(b"c" * 999)


def damage_missing(path):
    (path / "lib" / "libc.so.6").unlink()


def damage_manifest(path):
    (path / "manifest.json").write_text("{")


def damage_no_manifest(path):
    (path / "manifest.json").unlink()


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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_content, "was changed"),
        (damage_size, "was changed"),
        (damage_missing, "is missing"),
        (damage_manifest, "not a runner's manifest"),
        (damage_no_manifest, "manifest is missing"),
    ],
)
def test_a_damaged_packed_runner_is_an_error_also_where_a_whole_one_was_built(empty, damage, message):
    key = folder.source_key("aarch64", folder.native_sources())
    write_folder(folder.cached_runner("aarch64", key), key=key)
    damage(packed())
    with pytest.raises(FinetDeployError, match=f"{message}.*install finet-deploy again"):
        runner_folder("aarch64")


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


@pytest.fixture
def tree(tmp_path):
    """A source tree in which both runners were built, with something else lying about."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in TARGETS:
        key = folder.source_key(name, folder.native_sources())
        write_folder(tmp_path / "data" / name, target=name, key=key)
    (tmp_path / "data" / ".aarch64.killed.tmp").mkdir()
    (tmp_path / "data" / "aarch64" / "stray").write_text("stray")
    return lambda: module.runner_files(ROOT, tmp_path / "data"), tmp_path / "data"


def test_a_wheel_gets_the_files_of_the_manifests_and_no_others(tree):
    collect, data = tree
    names = {path.relative_to(data).as_posix() for path in collect()}
    files = ("run.sh", "bin/finet-runner", "lib/libc.so.6", "manifest.json")
    assert names == {f"{target}/{name}" for target in TARGETS for name in files}


@pytest.mark.parametrize("damage", [damage_content, damage_missing, damage_mode, damage_no_manifest])
def test_no_wheel_is_made_of_a_damaged_runner(tree, damage):
    collect, data = tree
    damage(data / "x86_64")
    with pytest.raises(FinetDeployError, match="make wheel"):
        collect()


def test_no_wheel_is_made_of_a_runner_of_other_sources_or_of_another_target(tree):
    collect, data = tree
    key = folder.source_key("aarch64", folder.native_sources())
    for wrong in ("0" * 64, key):
        write_folder(data / "x86_64", target="x86_64", key=wrong)
        with pytest.raises(FinetDeployError, match="built from other sources"):
            collect()
