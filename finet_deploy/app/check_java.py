"""Do the classes of the APK and its native libraries fit each other?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from finet_deploy.app.classfile import ClassFile
from finet_deploy.app.elf import NativeLibrary

__all__ = [
    "access_problems",
    "api_differences",
    "dynamic_problems",
    "jni_problems",
    "named_classes",
    "symbol_problems",
]

# Whole names of classes as JNI takes them, alone or inside a method's signature.
_CLASS = re.compile(r"(?:^|L)((?:[a-z][a-z0-9_]*/)+[A-Za-z_$][\w$]*)(?:;|$)")
_SIGNATURE = re.compile(r"^\([^()\s]*\)\S+$")
# The runtime's own, and Android's: not in the APK.
PLATFORM = ("java/", "javax/", "android/", "dalvik/", "sun/", "libcore/")
# Libraries of Android that an app may link with (the NDK's list), as far as they are named.
SYSTEM = {
    "libc.so",
    "libm.so",
    "libdl.so",
    "liblog.so",
    "libandroid.so",
    "libz.so",
    "libEGL.so",
    "libGLESv2.so",
}


def named_classes(library: NativeLibrary, packages: Sequence[str]) -> set[str]:
    """Java classes below `packages` that the library looks for by name (`org/pytorch/Module`)."""
    found = set()
    for text in library.texts:
        if _SIGNATURE.match(text) or text.startswith("L") or "/" in text:
            found |= {name for name in _CLASS.findall(text) if name.startswith(tuple(packages))}
    return found


def jni_problems(
    classes: Mapping[str, ClassFile], libraries: Iterable[NativeLibrary], packages: Sequence[str]
) -> list[str]:
    """Native methods that no library has, and classes that libraries look for in vain."""
    libraries = tuple(libraries)
    problems = []
    exported = {symbol for library in libraries for symbol in library.provides if symbol.startswith("Java_")}
    for owner in classes.values():
        for method in owner.methods:
            if method.native and not _provided(owner, method.name, method.descriptor, libraries, exported):
                problems.append(
                    f"no library has the native method {owner.name}.{method.name}{method.descriptor}"
                )
    for library in libraries:
        for name in sorted(named_classes(library, packages) - set(classes)):
            problems.append(f"{library.name} looks for the class {name}, which the APK lacks")
    known = tuple(_mangled(name, "") for name in classes)
    for symbol in sorted(exported):
        if not symbol.startswith(known):
            problems.append(f"{symbol} is a function for a class that the APK lacks")
    return problems


def _provided(
    owner: ClassFile, name: str, descriptor: str, libraries: Sequence[NativeLibrary], exported: set[str]
) -> bool:
    """By its exported function, or by names with which a library registers it on loading."""
    mangled = _mangled(owner.name, name)
    if any(symbol == mangled or symbol.startswith(mangled + "__") for symbol in exported):
        return True
    return any(
        library.has_text(name)
        and library.has_text(descriptor)
        and (library.has_text(owner.name) or library.has_text(f"L{owner.name};"))
        for library in libraries
    )


def _mangled(owner: str, method: str) -> str:
    """JNI specification, chapter 2: `Java_`, class and method with `_1` for an underscore."""

    def part(text: str) -> str:
        return "".join(
            char
            if char.isascii() and char.isalnum()
            else {"_": "_1", "/": "_"}.get(char, f"_0{ord(char):04x}")
            for char in text
        )

    return f"Java_{part(owner)}_{part(method)}"


def dynamic_problems(classes: Iterable[ClassFile]) -> list[str]:
    """Classes with `invokedynamic`: Android has no bootstrap methods of lambdas and joined strings."""
    return [f"{item.name} has invokedynamic" for item in classes if item.dynamic]


def access_problems(classes: Mapping[str, ClassFile]) -> list[str]:
    """References to private members of other classes: Android knows no nests, and would refuse them when they run."""
    private = {
        (item.name, member.name, member.descriptor)
        for item in classes.values()
        for member in (*item.fields, *item.methods)
        if member.private
    }
    return [
        f"{item.name} refers to the private {name} of {owner}"
        for item in classes.values()
        for owner, name, descriptor in sorted(item.refers)
        if owner != item.name and (owner, name, descriptor) in private
    ]


def symbol_problems(libraries: Sequence[NativeLibrary]) -> list[str]:
    """Libraries that are neither packed nor Android's, and C++ symbols that no packed library provides."""
    packed = {library.name: library for library in libraries}
    problems = []
    for library in libraries:
        absent = [name for name in library.needs if name not in packed and name not in SYSTEM]
        problems += [f"{library.name} needs {name}" for name in absent]
        reachable = {symbol for name in library.needs if name in packed for symbol in packed[name].provides}
        # C++ names can only come from packed libraries: Android's own are C.
        lost = sorted(
            s for s in library.needs_symbols if s.startswith("_Z") and s not in reachable | library.provides
        )
        problems += [f"{library.name} needs the symbol {symbol}" for symbol in lost[:3]]
    return problems


def api_differences(ours: Mapping[str, ClassFile], declared: Mapping[str, ClassFile]) -> list[str]:
    """Native methods in which the classes of the app differ from those shipped with the native libraries."""

    def natives(classes: Mapping[str, ClassFile]) -> set[str]:
        return {
            f"{item.name}.{method.name}{method.descriptor}"
            for item in classes.values()
            for method in item.methods
            if method.native
        }

    return [f"native methods differ: {name}" for name in sorted(natives(ours) ^ natives(declared))]
