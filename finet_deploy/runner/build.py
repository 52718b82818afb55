"""Building a runner folder: wheels, compiler, libraries, licences, closure check, manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from finet_deploy import __version__
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import (
    atomic_write_bytes,
    explain_os_error,
    replace_directory,
    sha256_file,
    temporary_directory_beside,
)
from finet_deploy.json_files import encode_json
from finet_deploy.runner.closure import closure_problems, needed_libraries
from finet_deploy.runner.compile import EXECUTORCH_LIBRARIES, Compiler
from finet_deploy.runner.debian import common_licence, package_of
from finet_deploy.runner.folder import CLOCK_LIBRARY, cached_runner, native_sources, source_key
from finet_deploy.runner.manifest import MANIFEST_FILE, FileEntry, Manifest, check_folder
from finet_deploy.runner.targets import WHEELS, Target, target
from finet_deploy.runner.wheels import fetch_wheel, unpack

__all__ = ["build_runner"]

OURS = "finet-deploy"
JSON_HEADER = Path("/usr/include/nlohmann/json.hpp")
LICENCES = "licenses"
THIRD_PARTY = "executorch-third-party.txt"
COMMON_LICENCES = (
    "Apache-2.0",
    "GPL-3",
    "LGPL-2.1",
    "MPL-2.0",
)  # what the other texts refer to; ours is the first
UNPACKED = {
    "executorch": ("executorch/include/", "executorch/lib/", "executorch-1.5.1.dist-info/licenses/"),
    "onnxruntime": ("onnxruntime/capi/libonnxruntime.so.", "onnxruntime/LICENSE", "onnxruntime/ThirdParty"),
}
NOTICE = """\
This folder holds programs of several origins; `manifest.json` tells the origin and the licence of every file. What is
compiled into the libraries of ExecuTorch and ONNX Runtime is in `executorch-third-party.txt` and
`onnxruntime-ThirdPartyNotices.txt`.

glibc (LGPL-2.1-or-later), libstdc++ and libgcc (GPL-3.0-or-later with the GCC Runtime Library Exception) are
unchanged copies out of Debian packages, and may be replaced by others. Their complete source is published by Debian
as these source packages (`apt-get source NAME=VERSION`):

"""

Step = Callable[[str], None]


def build_runner(name: str, *, out: Path | None = None, force: bool = False, progress: Step = print) -> Path:
    """Build the folder for target `name` into the cache, unless it is there, and copy it to `out` when given.

    `progress` is told each step. Raises UsageError for an unknown target or an `out` that is somebody else's,
    FinetDeployError for a missing tool, a wheel that cannot be had, or a folder that does not stand alone.
    """
    wanted = target(name)
    sources = native_sources()
    if sources is None:
        do = "build in a source tree; a wheel of finet-deploy has the runner inside"
        raise FinetDeployError("the runner's C++ sources are not here", do=do)
    _check_output(out)
    key = source_key(name, sources)
    cached = cached_runner(name, key)
    if force or not cached.is_dir():
        with temporary_directory_beside(cached) as folder:
            _build(wanted, sources, key, folder, progress)
            replace_directory(folder, cached)
    else:
        progress(f"{cached}: up to date")
    check_folder(cached)
    if out is None:
        return cached
    with temporary_directory_beside(out) as folder:
        shutil.copytree(cached, folder, dirs_exist_ok=True)
        replace_directory(folder, out)
    return out


def _check_output(out: Path | None) -> None:
    if out is not None and out.exists() and not (out / MANIFEST_FILE).is_file():
        if out.is_dir() and not any(out.iterdir()):
            return
        do = "choose another folder"
        raise UsageError("output exists and is not a runner's folder", where=str(out), do=do)


def _build(wanted: Target, sources: Path, key: str, folder: Path, progress: Step) -> None:
    compiler = Compiler(wanted)
    compiler.check_headers()
    with temporary_directory_beside(folder / "wheels") as scratch:
        for wheel in WHEELS:
            progress(f"fetch {wheel.distribution} {wheel.version} for {wanted.name}")
            unpack(fetch_wheel(wheel, wanted), scratch, UNPACKED[wheel.distribution])
        entries = _assemble(wanted, compiler, sources, key, scratch, folder, progress)
    progress("check that the folder stands alone")
    problems = closure_problems(folder, wanted)
    if problems:
        do = "see the list; a compiler of Debian 12 or newer is needed"
        raise FinetDeployError(f"the runner would not run by itself: {'; '.join(problems[:5])}", do=do)
    loader = next(entry.path for entry in entries if entry.path.startswith("lib/ld-linux"))
    manifest = Manifest(
        target=wanted.name,
        key=key,
        tool_version=__version__,
        versions={wheel.distribution: wheel.version for wheel in WHEELS},
        compiler=compiler.version,
        segment_alignment=wanted.page,
        command=(loader, "--inhibit-cache", "--library-path", "lib", "bin/finet-runner"),
        files=tuple(sorted(entries, key=lambda entry: entry.path)),
    )
    data = encode_json(manifest)
    atomic_write_bytes(folder / MANIFEST_FILE, data)


class _Contents:
    """Puts files into the folder and remembers where each one comes from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: list[FileEntry] = []
        for name in ("bin", "lib", LICENCES):
            (folder / name).mkdir()

    def add(self, file: Path, path: str, *, origin: str, licence: str, executable: bool = False) -> None:
        to = self.folder / path
        try:
            if file != to:
                shutil.copyfile(file, to)
            to.chmod(0o755 if executable else 0o644)
        except OSError as error:
            raise explain_os_error(error, "copy", file) from error
        self.entries.append(
            FileEntry(
                path=path,
                sha256=sha256_file(to),
                bytes=to.stat().st_size,
                executable=executable,
                origin=origin,
                licence=licence,
            )
        )

    def add_text(self, file: Path, name: str, origin: str) -> None:
        self.add(file, f"{LICENCES}/{name}", origin=origin, licence="the text of a licence")


def _assemble(
    wanted: Target,
    compiler: Compiler,
    sources: Path,
    key: str,
    wheels: Path,
    folder: Path,
    progress: Step,
) -> list[FileEntry]:
    contents = _Contents(folder)
    executorch, onnxruntime = (f"{wheel.distribution} {wheel.version}" for wheel in WHEELS)
    progress(f"compile for {wanted.name}")
    ours = {"origin": f"{OURS} {__version__}", "licence": "Apache-2.0"}
    runner, part = folder / "bin" / "finet-runner", folder / "lib" / "libfinet_executorch.so"
    compiler.build_runner(sources / "src", runner, key[:12])
    compiler.build_executorch(sources / "src", part, wheels / "executorch", WHEELS[0].version)
    contents.add(runner, "bin/finet-runner", executable=True, **ours)
    contents.add(part, "lib/libfinet_executorch.so", executable=True, **ours)
    clock = folder / "lib" / CLOCK_LIBRARY
    compiler.build_clock(sources / "src", clock)
    contents.add(clock, f"lib/{CLOCK_LIBRARY}", executable=True, **ours)
    contents.add(sources / "run.sh", "run.sh", executable=True, **ours)
    for name in EXECUTORCH_LIBRARIES:
        library = wheels / "executorch" / "lib" / f"lib{name}.so"
        contents.add(
            library, f"lib/{library.name}", origin=executorch, licence="BSD-3-Clause", executable=True
        )
    found = sorted((wheels / "onnxruntime" / "capi").glob("libonnxruntime.so.*"))
    contents.add(found[0], "lib/libonnxruntime.so.1", origin=onnxruntime, licence="MIT", executable=True)
    _add_system_libraries(compiler, contents)
    contents.add_text(
        next((wheels / "executorch-1.5.1.dist-info" / "licenses").iterdir()), "executorch.txt", executorch
    )
    # Its wheel has the text of its own licence only.
    contents.add_text(sources / LICENCES / THIRD_PARTY, THIRD_PARTY, executorch)
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        contents.add_text(wheels / "onnxruntime" / name, f"onnxruntime-{Path(name).stem}.txt", onnxruntime)
    return contents.entries


def _add_system_libraries(compiler: Compiler, contents: _Contents) -> None:
    """glibc with its loader, libstdc++ and libgcc: whatever the files name, and what those name in turn."""
    folder = contents.folder
    todo = [file for name in ("bin", "lib") for file in (folder / name).iterdir()]
    sources: set[str] = set()
    json = package_of(JSON_HEADER)  # compiled in
    licences = {json.name: json.copyright}
    while todo:
        for name in needed_libraries(todo.pop()):
            if (folder / "lib" / name).exists():
                continue
            library = compiler.library(name)
            package = package_of(library)
            licence = (
                "LGPL-2.1-or-later" if "libc6" in package.name else "GPL-3.0-or-later WITH GCC-exception-3.1"
            )
            origin = f"{package.name} {package.version}"
            contents.add(library, f"lib/{name}", origin=origin, licence=licence, executable=True)
            licences[package.name] = package.copyright
            sources.update(package.sources)
            todo.append(folder / "lib" / name)
    for package_name, text in sorted(licences.items()):
        contents.add_text(text, f"{package_name}.txt", package_name)
    for name in COMMON_LICENCES:
        contents.add_text(common_licence(name), f"{name}.txt", name)
    notice = folder / LICENCES / "NOTICE.txt"
    notice.write_text(NOTICE + "".join(f"* {source}\n" for source in sorted(sources)))
    contents.add(notice, f"{LICENCES}/NOTICE.txt", origin=OURS, licence="Apache-2.0")
