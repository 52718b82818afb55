"""Building the APK: libraries, resources, compiler, shrinker, dexer, packing, signature, checks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finet_deploy import __version__
from finet_deploy.app.check import check_apk
from finet_deploy.app.fetch import fetch
from finet_deploy.app.java import class_jar, compile_java, dex, library_jar, shrink
from finet_deploy.app.libraries import libraries
from finet_deploy.app.manifest import MANIFEST_FILE, AppManifest, read_manifest, write_manifest
from finet_deploy.app.pack import Entry, pack
from finet_deploy.app.parts import Archive
from finet_deploy.app.resources import aapt2_program, link_resources
from finet_deploy.app.sign import Key, debug_key, release_key, sign
from finet_deploy.app.sources import (
    ABIS,
    MODULES,
    RULES,
    app_key,
    cached_app,
    require_sources,
)
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import (
    atomic_write_bytes,
    replace_directory,
    sha256_bytes,
    sha256_file,
    temporary_directory_beside,
)
from finet_deploy.runner.folder import cache_folder

__all__ = ["app_version", "build_app", "compile_app"]

LICENCES = "assets/licenses"

Step = Callable[[str], None]


def build_app(
    *, out: Path | None = None, abis: Sequence[str] = ABIS, force: bool = False, progress: Step = print
) -> Path:
    """Build the APK into the cache, unless it is there, and copy it to `out` when given. Returns its folder.

    Raises UsageError for an unknown ABI or half a release key, FinetDeployError for a missing tool, a library that
    cannot be had, or an APK that does not pass its checks.
    """
    sources = require_sources()
    unknown = [abi for abi in abis if abi not in ABIS]
    if unknown or not abis:
        raise UsageError(f"unknown ABI {', '.join(unknown) or 'none'}", do=f"use {', '.join(ABIS)}")
    chosen = tuple(abi for abi in ABIS if abi in abis)
    key = release_key() or debug_key()
    wanted = app_key(sources, chosen)
    cached = cached_app(key.kind, chosen, wanted)
    if force or not (cached / MANIFEST_FILE).is_file():
        with temporary_directory_beside(cached) as folder:
            with temporary_directory_beside(cached) as scratch:
                _Build(sources, chosen, key, wanted, scratch, progress).run(folder)
            replace_directory(folder, cached)
        for old in cached.parent.glob(f"{cached.stem}.*"):
            if old != cached:  # of older sources, 100 MB for each ABI
                shutil.rmtree(old, ignore_errors=True)
    else:
        progress(f"{cached}: up to date")
    if out is not None:
        atomic_write_bytes(out, (cached / read_manifest(cached).apk).read_bytes())
    return cached


def compile_app(
    sources: Path, parts: Sequence[Archive], platform: Path, generated: Path, scratch: Path
) -> list[Path]:
    """The app's own jar and those of its libraries, as the shrinker and the app's tests take them.

    platform: Android's classes. generated: folder with R.java. Raises FinetDeployError with the compiler's words.
    """
    jars = []
    for part in parts:
        data = part.classes()
        if data is not None:
            jar = scratch / f"{part.library.name}.jar"
            jar.write_bytes(library_jar(data))
            jars.append(jar)
    code = [path for name in MODULES for path in (sources / name / "src" / "main" / "java").rglob("*.java")]
    compiled = scratch / "classes"
    compile_java([*code, *generated.rglob("*.java")], [*jars, platform], compiled)
    for name in MODULES:
        resources = sources / name / "src" / "main" / "resources"
        if resources.is_dir():
            shutil.copytree(resources, compiled, dirs_exist_ok=True)
    own = scratch / "own.jar"
    class_jar(compiled, own)
    return [own, *jars]


@dataclass(frozen=True)
class _Build:
    sources: Path
    abis: tuple[str, ...]
    key: Key
    source_key: str
    scratch: Path
    progress: Step

    def run(self, folder: Path) -> None:
        """The APK and its manifest in `folder`."""
        files = fetch(libraries(), self.progress)
        parts = [Archive(library, files[library.name]) for library in libraries("app")]
        platform = files[libraries("compile")[0].name]
        tool = libraries("aapt2")[0]
        aapt2 = aapt2_program(Archive(tool, files[tool.name]), self.scratch)
        self.progress("link the resources")
        app = self.sources / "app"
        resources, generated = link_resources(aapt2, app, platform, app_version(), self.scratch)
        shrunk = self._java(parts, platform, generated, files)
        classes = {name: data for name, data in shrunk.items() if name.endswith(".class")}
        self.progress("make classes.dex")
        dexes = dex(classes, platform, files[libraries("dx")[0].name], self.scratch)
        entries = self._entries(resources, shrunk, dexes, parts)
        self.progress("pack and sign")
        unsigned = self.scratch / "unsigned.apk"
        unsigned.write_bytes(pack(entries))
        apk = folder / f"finet-bench-{__version__}-{self.key.kind}.apk"
        sign(unsigned, apk, self.key)
        self.progress("check the APK")
        report = check_apk(apk, aapt2=aapt2, classes=classes, archives=parts, abis=self.abis)
        refused = cache_folder() / "app" / "refused.apk"
        refused.unlink(missing_ok=True)
        if report.problems:
            shutil.copyfile(apk, refused)
            raise FinetDeployError(
                f"the APK has {len(report.problems)} problems: {'; '.join(report.problems[:8])}",
                where=str(refused),
                do="see the list",
            )
        self._write_manifest(folder, apk, sha256_bytes(unsigned.read_bytes()), report.notes)

    def _java(
        self, parts: list[Archive], platform: Path, generated: Path, files: Mapping[str, Path]
    ) -> dict[str, bytes]:
        self.progress("compile the app")
        jars = compile_app(self.sources, parts, platform, generated, self.scratch)
        self.progress("shrink the app")
        shrinker = [files[library.name] for library in libraries("shrink")]
        shrinker.append(files["kotlin-stdlib"])
        rules = self.sources / "app" / RULES
        return shrink(jars, platform, rules, shrinker, self.scratch / "shrunk.jar")

    def _entries(
        self,
        resources: Mapping[str, bytes],
        shrunk: Mapping[str, bytes],
        dexes: Mapping[str, bytes],
        parts: Sequence[Archive],
    ) -> dict[str, Entry]:
        entries = {name: Entry(data, stored=name == "resources.arsc") for name, data in resources.items()}
        entries |= {name: Entry(data) for name, data in dexes.items()}
        for name, data in shrunk.items():
            if not name.endswith(".class") and not name.startswith("META-INF/"):
                entries[name] = Entry(data)
        entries |= self._licences(parts)
        for abi in self.abis:
            for part in parts:
                for name, data in part.native(abi).items():
                    entries[f"lib/{abi}/{name}"] = Entry(data, stored=True)
        return entries

    def _licences(self, parts: Sequence[Archive]) -> dict[str, Entry]:
        """Who wrote what is in the APK, and on which terms."""
        texts = {file.name: file.read_bytes() for file in (self.sources / "app" / LICENCES).iterdir()}
        lines = ["This app holds, unchanged but for the removal of what it does not use:", ""]
        for part in parts:
            texts |= part.licences()
            library = part.library
            lines += [f"{library.name} {library.version} ({library.coordinate}): {library.licence}"]
            lines += [f"  {library.note}"] if library.note else []
        texts["NOTICE.txt"] = ("\n".join(lines) + "\n").encode()
        return {f"{LICENCES}/{name}": Entry(data) for name, data in texts.items()}

    def _write_manifest(self, folder: Path, apk: Path, unsigned: str, notes: Sequence[str]) -> None:
        manifest = AppManifest(
            apk=apk.name,
            sha256=sha256_file(apk),
            bytes=apk.stat().st_size,
            unsigned_sha256=unsigned,
            tool_version=__version__,
            signed_with=self.key.kind,
            abis=self.abis,
            key=self.source_key,
            runtimes={
                item.runtime: item.version for item in libraries("app") if item.runtime and item.native
            },
            notes=tuple(notes),
        )
        write_manifest(folder, manifest)


def app_version() -> tuple[int, str]:
    """1.2.3 -> (10203, "1.2.3"): Android compares the numbers."""
    numbers = [int(part) for part in __version__.split("+")[0].split(".")[:3]]
    return sum(number * 100 ** (2 - place) for place, number in enumerate(numbers)), __version__
