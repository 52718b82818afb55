"""An APK that was built is read back by other programs than those that made it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from finet_deploy.app.check_java import (
    access_problems,
    api_differences,
    dynamic_problems,
    jni_problems,
    named_classes,
    symbol_problems,
)
from finet_deploy.app.classfile import ClassFile, parse_class
from finet_deploy.app.elf import NativeLibrary, read_native
from finet_deploy.app.java import MIN_SDK, zip_entries
from finet_deploy.app.pack import PAGE, WORD, stored_offsets
from finet_deploy.app.parts import Archive
from finet_deploy.app.resources import TARGET_SDK
from finet_deploy.app.tools import require, run

__all__ = ["PACKAGE", "Report", "check_apk"]

PACKAGE = "org.finetdeploy.app"
# Java packages whose classes native libraries may look for.
PACKAGES = ("ai/onnxruntime/", "org/pytorch/", "com/facebook/")
# Permissions that the app must never have: what it measures stays on the phone.
FORBIDDEN = ("android.permission.INTERNET", "android.permission.ACCESS_NETWORK_STATE")
ATTRIBUTE = re.compile(r'A: (?:http://schemas\.android\.com/apk/res/android:)?(\w+)\(?[^=]*\)?="?([^"\s]*)"?')


@dataclass(frozen=True)
class Report:
    """problems: what must not be. notes: what a user of the APK should know."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check_apk(
    apk: Path, *, aapt2: Path, classes: Mapping[str, bytes], archives: Sequence[Archive], abis: Sequence[str]
) -> Report:
    """Signature, manifest, alignment, classes and native libraries. classes: what went into the dexer.

    Raises FinetDeployError when a tool is missing, or refuses the APK.
    """
    run([require("apksigner"), "verify", "--min-sdk-version", str(MIN_SDK), apk], "verify the signature")
    data = apk.read_bytes()
    entries = zip_entries(data)
    problems = [*_badging(aapt2, apk, abis), *_manifest(aapt2, apk, entries, classes)]
    run([require("zipalign"), "-c", "-p", str(WORD), apk], "verify the alignment")
    problems += _alignment(data)
    parsed = {item.name: item for item in map(parse_class, classes.values())}
    problems += [*dynamic_problems(parsed.values()), *access_problems(parsed)]
    problems += _declared(parsed, archives)
    notes: list[str] = []
    for abi in abis:
        libraries = [
            read_native(name.rsplit("/", 1)[-1], content)
            for name, content in entries.items()
            if name.startswith(f"lib/{abi}/")
        ]
        problems += [f"{abi}: {problem}" for problem in _native(parsed, libraries, archives)]
        notes += [
            f"{abi}: {library.name} is aligned to {library.alignment} bytes: it does not load on phones with "
            f"pages of {PAGE}"
            for library in libraries
            if library.alignment < PAGE
        ]
    return Report(tuple(problems), tuple(notes))


def dex_classes(dexes: Mapping[str, bytes]) -> set[str]:
    """Names of the classes in dex files, as dexdump reads them (`org/pytorch/Module`)."""
    found = set()
    with TemporaryDirectory(prefix="finet-deploy-dex-") as folder:
        for name, data in dexes.items():
            path = Path(folder) / name
            path.write_bytes(data)
            text = run([require("dexdump"), path], "read classes.dex")
            found |= set(re.findall(r"Class descriptor\s*: 'L([^;']+);'", text))
    return found


def _badging(aapt2: Path, apk: Path, abis: Sequence[str]) -> list[str]:
    text = run([aapt2, "dump", "badging", apk], "read the manifest")
    problems = []
    for wanted in (
        f"package: name='{PACKAGE}'",
        f"minSdkVersion:'{MIN_SDK}'",
        f"targetSdkVersion:'{TARGET_SDK}'",
        "launchable-activity:",
    ):
        if wanted not in text:
            problems.append(f"the manifest has no {wanted}")
    native = re.search(r"^native-code: (.*)$", text, re.MULTILINE)
    found = set(re.findall(r"'([^']+)'", native.group(1))) if native else set()
    if found != set(abis):
        problems.append(f"native code for {sorted(found)}, not {sorted(abis)}")
    permissions = re.findall(r"uses-permission: name='([^']+)'", text)
    problems += [f"the app asks for {name}" for name in permissions if name in FORBIDDEN]
    return problems


def _manifest(
    aapt2: Path, apk: Path, entries: Mapping[str, bytes], classes: Mapping[str, bytes]
) -> list[str]:
    """Every class that the manifest names is in the dex files, and nothing that was dexed is lost."""
    text = run([aapt2, "dump", "xmltree", "--file", "AndroidManifest.xml", apk], "read the manifest")
    there = dex_classes({name: data for name, data in entries.items() if name.endswith(".dex")})
    problems = []
    element = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("E: "):
            element = stripped.split()[1]
        match = ATTRIBUTE.match(stripped)
        if match is None:
            continue
        attribute, value = match.groups()
        if attribute == "name" and element in ("activity", "service", "receiver", "provider", "application"):
            name = PACKAGE + value if value.startswith(".") else value
            if name.replace(".", "/") not in there:
                problems.append(f"the manifest names {name}, which is in no dex file")
            if not name.startswith(PACKAGE):
                problems.append(f"a component of a library is in the manifest: {name}")
        if attribute == "allowBackup" and value != "false":
            problems.append("the app may be backed up")
    if "allowBackup" not in text:
        problems.append("the manifest does not forbid backups")
    lost = {parse_class(data).name for data in classes.values()} - there
    return problems + [f"{name} was dexed and is in no dex file" for name in sorted(lost)[:5]]


def _alignment(data: bytes) -> list[str]:
    problems = []
    offsets = stored_offsets(data)
    for name, offset in offsets.items():
        alignment = PAGE if name.endswith(".so") else WORD
        if offset % alignment:
            problems.append(f"{name} does not start on a multiple of {alignment} bytes")
    problems += [
        f"{name} is compressed" for name in zip_entries(data) if name.endswith(".so") and name not in offsets
    ]
    if "resources.arsc" not in offsets:
        problems.append("resources.arsc is compressed")
    return problems


def _declared(parsed: Mapping[str, ClassFile], archives: Sequence[Archive]) -> list[str]:
    """Where the app's classes come from elsewhere than the native libraries: the same native methods."""
    problems = []
    for archive in archives:
        declared = archive.declared()
        if declared is None:
            continue
        theirs = [
            parse_class(data) for name, data in zip_entries(declared).items() if name.endswith(".class")
        ]
        kept = {item.name: item for item in theirs if not item.name.startswith(archive.library.left_out)}
        ours = {name: parsed[name] for name in kept if name in parsed}
        problems += [f"{archive.library.name}: {text}" for text in api_differences(ours, kept)]
    return problems


def _native(
    parsed: Mapping[str, ClassFile], libraries: Sequence[NativeLibrary], archives: Sequence[Archive]
) -> list[str]:
    left_out = tuple(name for archive in archives for name in archive.library.left_out)
    problems = symbol_problems(libraries)
    for problem in jni_problems(parsed, libraries, PACKAGES):
        if not any(name in problem or name.replace("/", "_") in problem for name in left_out):
            problems.append(problem)
    if not any(named_classes(library, PACKAGES) for library in libraries):
        problems.append("no library names a class: this check reads them wrongly")
    return problems
