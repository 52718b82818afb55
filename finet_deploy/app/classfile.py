"""Java class files (JVM specification, chapter 4): members and what they refer to; private members opened to nests."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from finet_deploy.errors import FinetDeployError

__all__ = ["ClassFile", "Member", "open_nests", "parse_class"]

PRIVATE, STATIC, FINAL, NATIVE = 0x0002, 0x0008, 0x0010, 0x0100
JAVA_8 = 52
# Constant pool tag -> bytes after it; Utf8 (1) has a length of its own; long and double take two places.
_SIZES = {
    3: 4,
    4: 4,
    5: 8,
    6: 8,
    7: 2,
    8: 2,
    9: 4,
    10: 4,
    11: 4,
    12: 4,
    15: 3,
    16: 2,
    17: 4,
    18: 4,
    19: 2,
    20: 2,
}
_UTF8, _CLASS, _FIELD, _METHOD, _INTERFACE_METHOD, _NAME_AND_TYPE = 1, 7, 9, 10, 11, 12
_WIDE = (5, 6)
_DYNAMIC = 18


@dataclass(frozen=True)
class Member:
    """A field or method. flags_at: where its access flags are in the file."""

    name: str
    descriptor: str
    flags: int
    flags_at: int

    @property
    def private(self) -> bool:
        """Whether only its own class may use it."""
        return bool(self.flags & PRIVATE)

    @property
    def native(self) -> bool:
        """Whether it is implemented in a native library (methods only)."""
        return bool(self.flags & NATIVE)


@dataclass
class ClassFile:
    """One class. refers: (class, name, descriptor) of the members that its code names; dynamic: has invokedynamic."""

    name: str
    parent: str | None
    version: int
    dynamic: bool
    nested: bool
    fields: list[Member] = field(default_factory=list)
    methods: list[Member] = field(default_factory=list)
    refers: set[tuple[str, str, str]] = field(default_factory=set)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def u(self, size: int) -> int:
        start = self.at
        self.skip(size)
        return int.from_bytes(self.data[start : self.at], "big")

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise ValueError("ends too early")


def parse_class(data: bytes) -> ClassFile:
    """FinetDeployError for what is no class file."""
    try:
        return _parse(_Reader(data))
    except (ValueError, IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise FinetDeployError(f"not a class file: {error}", do="check the library it comes from") from error


def _parse(reader: _Reader) -> ClassFile:
    if reader.u(4) != 0xCAFEBABE:
        raise ValueError("no magic number")
    reader.u(2)
    version = reader.u(2)
    pool = _pool(reader)

    def text(index: int) -> str:
        return str(pool[index][1])

    reader.u(2)
    this, parent = reader.u(2), reader.u(2)
    reader.skip(2 * reader.u(2))  # interfaces
    fields = _members(reader, text)
    methods = _members(reader, text)
    attributes = {text(name) for name in _attributes(reader)}
    found = ClassFile(
        name=text(pool[this][1]),
        parent=text(pool[parent][1]) if parent else None,
        version=version,
        dynamic=any(tag == _DYNAMIC for tag, *_ in pool.values()),
        nested=bool(attributes & {"NestHost", "NestMembers"}),
        fields=fields,
        methods=methods,
    )
    for tag, *values in pool.values():
        if tag in (_FIELD, _METHOD, _INTERFACE_METHOD):
            _, name, descriptor = pool[values[1]]
            found.refers.add((text(pool[values[0]][1]), text(name), text(descriptor)))
    return found


def _pool(reader: _Reader) -> dict[int, tuple]:
    pool: dict[int, tuple] = {}
    count, index = reader.u(2), 1
    while index < count:
        tag = reader.u(1)
        if tag == _UTF8:
            size = reader.u(2)
            # Modified UTF-8; names that matter here are plain.
            pool[index] = (tag, reader.data[reader.at : reader.at + size].decode("utf-8", "replace"))
            reader.skip(size)
        elif tag in (_FIELD, _METHOD, _INTERFACE_METHOD, _NAME_AND_TYPE):
            pool[index] = (tag, reader.u(2), reader.u(2))
        elif tag == _CLASS:
            pool[index] = (tag, reader.u(2))
        else:
            pool[index] = (tag, None)
            reader.skip(_SIZES[tag])
        index += 2 if tag in _WIDE else 1
    return pool


def _members(reader: _Reader, text: Callable[[int], str]) -> list[Member]:
    found = []
    for _ in range(reader.u(2)):
        at = reader.at
        flags, name, descriptor = reader.u(2), reader.u(2), reader.u(2)
        found.append(Member(text(name), text(descriptor), flags, at))
        _attributes(reader)
    return found


def _attributes(reader: _Reader) -> list[int]:
    names = []
    for _ in range(reader.u(2)):
        names.append(reader.u(2))
        reader.skip(reader.u(4))
    return names


def open_nests(classes: Mapping[str, bytes]) -> dict[str, bytes]:
    """The classes with what Java 11's nests leave to the virtual machine written out, for a dexer that does not.

    From Java 11 on a private member is called by `invokevirtual`, and from other classes of its nest without an
    accessor. Android's runtime allows neither. Private methods become final ones of the package, as do private
    fields and constructors that another class refers to.

    FinetDeployError where a subclass has a method of the same name and types: it would be overridden.
    """
    parsed = {path: parse_class(data) for path, data in classes.items()}
    newer = {path: item for path, item in parsed.items() if item.version > JAVA_8}
    outside = {ref for item in parsed.values() for ref in item.refers if ref[0] != item.name}
    changed = dict(classes)
    for path, item in newer.items():
        data = bytearray(classes[path])
        for member in item.fields:
            if member.private and (item.name, member.name, member.descriptor) in outside:
                _write_flags(data, member, member.flags & ~PRIVATE)
        for member in item.methods:
            if not member.private:
                continue
            plain = not member.flags & STATIC and not member.name.startswith("<")
            if plain:
                _check_not_overridden(item, member, list(parsed.values()))
                _write_flags(data, member, member.flags & ~PRIVATE | FINAL)
            elif (item.name, member.name, member.descriptor) in outside:
                _write_flags(data, member, member.flags & ~PRIVATE)
        changed[path] = bytes(data)
    return changed


def _write_flags(data: bytearray, member: Member, flags: int) -> None:
    struct.pack_into(">H", data, member.flags_at, flags)


def _check_not_overridden(owner: ClassFile, method: Member, classes: Iterable[ClassFile]) -> None:
    children = {owner.name}
    grown = True
    while grown:
        more = {item.name for item in classes if item.parent in children} - children
        children |= more
        grown = bool(more)
    for item in classes:
        if item.name in children - {owner.name} and any(
            (other.name, other.descriptor) == (method.name, method.descriptor) for other in item.methods
        ):
            raise FinetDeployError(
                f"{item.name} would override the private {method.name} of {owner.name}",
                do="build with d8: set ANDROID_HOME",
            )
