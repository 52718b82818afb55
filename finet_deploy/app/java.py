"""From Java sources to `classes.dex`: javac, shrinker, dexer."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from finet_deploy.app.classfile import open_nests
from finet_deploy.app.pack import Entry, pack
from finet_deploy.app.tools import android_build_tools, require, run
from finet_deploy.errors import FinetDeployError

__all__ = ["BRIEF", "MIN_SDK", "class_jar", "compile_java", "dex", "library_jar", "shrink", "zip_entries"]

MIN_SDK = 26
JAVA_RELEASE = "8"
HEAP = "-Xmx2g"
# These programs run for seconds: what the second of the two compilers in Java, and a collector with threads, bring
# comes too late for them, and takes as much processor time again.
BRIEF = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def compile_java(sources: Sequence[Path], classpath: Sequence[Path], out: Path) -> None:
    """Class files of `sources` below `out`. Java 8: what the dexer takes, and nothing that Android 8 lacks."""
    out.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        require("javac"),
        *(f"-J{option}" for option in BRIEF),
        "--release",
        JAVA_RELEASE,
        "-encoding",
        "UTF-8",
        "-g:source,lines",
    ]
    command += ["-Xlint:all,-options,-processing,-classfile", "-Werror", "-proc:none", "-implicit:none"]
    command += ["-cp", os.pathsep.join(map(str, classpath)), "-d", out, *sorted(sources)]
    run(command, "compile the app", do="see the compiler's words")


def class_jar(folder: Path, out: Path) -> None:
    """A jar of everything below `folder`."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    out.write_bytes(pack({name: Entry(path.read_bytes()) for name, path in files.items()}))


def library_jar(data: bytes) -> bytes:
    """A library's classes, private members opened to their nests; nothing but classes."""
    entries = zip_entries(data)
    classes = {
        name: content
        for name, content in entries.items()
        if name.endswith(".class") and not name.startswith("META-INF/") and name != "module-info.class"
    }
    return pack({name: Entry(content) for name, content in open_nests(classes).items()})


def zip_entries(data: bytes) -> dict[str, bytes]:
    """Name -> content of all files in a jar; FinetDeployError for what is no zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
    except (zipfile.BadZipFile, EOFError) as error:
        raise FinetDeployError(f"not a jar: {error}", do="delete it from the cache") from error


def shrink(
    jars: Sequence[Path], platform: Path, rules: Path, tool: Sequence[Path], out: Path
) -> dict[str, bytes]:
    """The classes and files of `jars` that `rules` keep, lambdas and joined strings rewritten for older machines."""
    options = [
        *(f"-injars {jar}" for jar in jars),
        f"-outjars {out}",
        f"-libraryjars {platform}(!META-INF/**)",
        *(f"-libraryjars {module}(!**.jar;!module-info.class)" for module in _java_modules()),
        "-target 7",  # what ProGuard calls backporting: no invokedynamic is left
        "-dontoptimize",
        "-dontobfuscate",
        f"-include {rules}",
    ]
    config = out.with_suffix(".pro")
    config.write_text("\n".join(options) + "\n")
    command = [
        require("java"),
        *BRIEF,
        HEAP,
        "-cp",
        os.pathsep.join(map(str, tool)),
        "proguard.ProGuard",
        f"@{config}",
    ]
    run(command, "shrink the app", do="see android_app/app/proguard.pro")
    return zip_entries(out.read_bytes())


def _java_modules() -> list[Path]:
    """`java.*` as the shrinker reads it, as far as Android has it; its own jar has the rest."""
    folder = Path(require("javac")).resolve().parents[1] / "jmods"
    found = [folder / f"java.{name}.jmod" for name in ("base", "logging")]
    if not all(file.is_file() for file in found):
        raise FinetDeployError(
            "this JDK has no jmods", where=str(folder), do="apt-get install openjdk-17-jdk-headless"
        )
    return found


def dex(classes: Mapping[str, bytes], platform: Path, dx: Path, scratch: Path) -> dict[str, bytes]:
    """Name -> dex file. With d8 of `$ANDROID_HOME` where there is one, else with dx."""
    jar, out = scratch / "shrunk-classes.jar", scratch / "dex"
    jar.write_bytes(pack({name: Entry(data) for name, data in classes.items() if name.endswith(".class")}))
    out.mkdir(exist_ok=True)
    build_tools = android_build_tools()
    d8 = build_tools / "d8" if build_tools else None
    if d8 is not None and d8.is_file():
        command: list[str | Path] = [d8, "--release", "--min-api", str(MIN_SDK), "--lib", platform]
        command += ["--output", out, jar]
    else:
        command = [require("java"), *BRIEF, HEAP, "-cp", dx, "com.android.dx.command.Main"]
        command += ["--dex", "--multi-dex", f"--min-sdk-version={MIN_SDK}", f"--output={out}", jar]
    run(command, "make classes.dex")
    found = {path.name: path.read_bytes() for path in out.glob("classes*.dex")}
    if not found:
        raise FinetDeployError("the dexer left no classes.dex", do="build again with --force")
    return found
