"""The aarch64 folder: closed, and the same numbers as on this machine. Executed by qemu-user; no time is looked at."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import msgspec
import pytest

from finet_deploy.bench.protocol import Invalid, Load
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.validity import visit_problem
from finet_deploy.errors import FinetDeployError
from finet_deploy.runner.closure import closure_problems, read_binary
from finet_deploy.runner.emulate import core, emulated_command, find_qemu, write_profile
from finet_deploy.runner.manifest import read_manifest
from finet_deploy.runner.targets import TARGETS
from finet_deploy.verify.compare import compare
from tests.device.runner_native import copy_runner, folder_or_skip, requests_for, run_native, shared_tiny

RUNTIMES = ("executorch", "onnxruntime")
ARM = TARGETS["aarch64"]
PT_LOAD, PT_GNU_STACK = 1, 0x6474E551


@pytest.fixture(scope="session")
def arm():
    return folder_or_skip("aarch64")


@pytest.fixture(scope="session")
def qemu():
    try:
        return find_qemu()[0]
    except FinetDeployError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def requests(tmp_path_factory):
    return requests_for(shared_tiny(tmp_path_factory))


def phone_command(arm: Path, qemu: str, name: str, profile: Path) -> tuple[str, ...]:
    write_profile(core(name), profile)
    return tuple(emulated_command(arm, core(name), profile, qemu=qemu))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["cortex-a53", "cortex-a76"])
def test_arm_outputs_are_those_of_this_machine(arm, qemu, requests, tmp_path, runtime, name):
    command = phone_command(arm, qemu, name, tmp_path / "phone")
    there = run_native(requests[runtime], tmp_path / "arm", "--outputs", "outputs.bin", command=command)
    here = run_native(requests[runtime], tmp_path / "host", "--outputs", "outputs.bin")
    result = VisitResult(0, tuple(there.records))
    assert visit_problem(result, requests[runtime].row) is None, there.stderr[-500:]
    assert result.find(Load).threads == 1
    assert compare(here.outputs(), there.outputs()).max_error < 1e-6


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_two_threads_give_the_same_outputs(arm, qemu, requests, tmp_path, runtime):
    row = msgspec.structs.replace(requests[runtime].row, threads=2)
    request = msgspec.structs.replace(requests[runtime], row=row)
    done = run_native(request, tmp_path, command=phone_command(arm, qemu, "cortex-a76", tmp_path / "phone"))
    assert visit_problem(VisitResult(0, tuple(done.records)), row) is None


def test_without_the_files_of_the_cpus_executorch_says_so(arm, qemu, requests, tmp_path):
    """/sys/devices/system/cpu is empty, in a mount name space of its own."""
    unshare = shutil.which("unshare")
    profile = tmp_path / "phone"
    command = phone_command(arm, qemu, "cortex-a76", profile)
    shutil.rmtree(profile / "sys" / "devices")
    hide = 'mount -t tmpfs none /sys/devices/system/cpu && exec "$@"'
    probe = [unshare or "false", "-m", "/bin/sh", "-c", hide, "sh", "true"]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        pytest.skip("no mount name spaces here")
    done = run_native(requests["executorch"], tmp_path / "run", command=(*probe[:-1], *command))
    assert done.status == 1, done.stderr
    assert isinstance(done.last, Invalid)
    assert done.last.phase == "load"
    assert "/sys/devices/system/cpu" in done.last.reason
    done = run_native(requests["onnxruntime"], tmp_path / "run", command=(*probe[:-1], *command))
    assert done.status in (0, 1), done.stderr  # it goes on without them, with warnings


def test_the_folder_is_closed_and_every_file_has_origin_and_licence(arm):
    assert closure_problems(arm, ARM) == []
    manifest = read_manifest(arm)
    assert {entry.path for entry in manifest.files} | {"manifest.json"} == {
        str(path.relative_to(arm)) for path in arm.rglob("*") if path.is_file()
    }
    assert all(entry.origin and entry.licence for entry in manifest.files)
    texts = {entry.path for entry in manifest.files if entry.path.startswith("licenses/")}
    assert {"licenses/executorch.txt", "licenses/onnxruntime-LICENSE.txt", "licenses/LGPL-2.1.txt"} <= texts
    assert "glibc=" in (arm / "licenses/NOTICE.txt").read_text()
    for path in (arm / "bin" / "finet-runner", arm / "lib" / "libfinet_executorch.so"):
        assert read_binary(path).run_path is None
        assert b"/home/" not in path.read_bytes()
        assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


def segment_header(data: bytes, kind: int) -> int:
    """Offset of the first program header of this type in a 64-bit little-endian ELF file."""
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    return next(
        start + n * size for n in range(count) if struct.unpack_from("<I", data, start + n * size)[0] == kind
    )


def damage_library(folder: Path, how: str) -> str:
    """Break the folder in one way; what the check has to say."""
    lib = folder / "lib"
    target = lib / "libexecutorch_threadpool.so"
    data = bytearray(target.read_bytes())
    if how == "missing":
        (lib / "libgcc_s.so.1").unlink()
        return "needs libgcc_s.so.1, which is not here"
    if how == "symbol":  # another library under the name of the one that defines what others want
        shutil.copy(lib / "libdl.so.2", target)
        return "no library that it names defines"
    if how == "version":  # the version's name, as it stands in the file's own string table
        libc = (lib / "libc.so.6").read_bytes()
        (lib / "libc.so.6").write_bytes(libc.replace(b"GLIBC_2.17\0", b"GLIBC_9.99\0"))
        return "needs version GLIBC_2.17 of libc.so.6"
    if how == "stack":
        struct.pack_into("<I", data, segment_header(data, PT_GNU_STACK) + 4, 7)
        wanted = "executable stack"
    elif how == "alignment":
        struct.pack_into("<Q", data, segment_header(data, PT_LOAD) + 48, 4096)
        wanted = "not aligned to 65536"
    elif how == "machine":
        struct.pack_into("<H", data, 18, 62)
        wanted = "is for EM_X86_64"
    elif how == "script":
        data = bytearray(b"#!/bin/sh\n")
        wanted = "not an ELF file"
    else:
        data = data[:2000]
        wanted = "damaged ELF file"
    target.write_bytes(bytes(data))
    return wanted


@pytest.mark.parametrize(
    "how", ["missing", "symbol", "version", "stack", "alignment", "machine", "script", "cut"]
)
def test_the_closure_check_finds_what_would_stop_a_phone(arm, tmp_path, how):
    folder = copy_runner(arm, tmp_path / "runner")
    wanted = damage_library(folder, how)
    problems = closure_problems(folder, ARM)
    assert any(wanted in problem for problem in problems), problems
