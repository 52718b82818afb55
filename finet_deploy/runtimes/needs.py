"""What a `.ptl` or `.pte` file asks of the runtime that is to load it, read without that runtime.

Only figures and names are taken; no code in the file is run, and no object of it is made.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error, read_bounded

__all__ = ["Needs", "read_needs"]

MAX_FILE_BYTES = 2 << 30
MAX_BYTECODE_BYTES = 64 << 20
MAX_ITEMS = 1 << 16  # of one list in a file


@dataclass(frozen=True)
class Needs:
    """bytecode_version: of a `.ptl`. identifiers: marks of the formats inside a `.pte`. backends: of its delegates.
    delegate_nodes: for each delegate of a `.pte` how many nodes XNNPACK gets, None where it is not XNNPACK's.

    operators: name with overload -> number of arguments given, 0 where the file does not tell.
    """

    bytecode_version: int | None = None
    identifiers: tuple[str, ...] = ()
    operators: dict[str, int] = field(default_factory=dict)
    backends: tuple[str, ...] = ()
    delegate_nodes: tuple[int | None, ...] = ()


def read_needs(path: Path, fmt: str) -> Needs:
    """What the file at `path` needs; nothing for formats of which nothing is known.

    Raises FinetDeployError for a file that is not of its format.
    """
    reader = {"ptl": _ptl, "pte": _pte}.get(fmt)
    if reader is None:
        return Needs()
    try:
        return reader(path)
    except OSError as error:
        raise explain_os_error(error, "read", path) from error
    # What a damaged pickle, archive or offset leads to.
    except (
        pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, AttributeError, NotImplementedError,
        IndexError, KeyError, TypeError, ValueError, RuntimeError, MemoryError,
    ) as error:  # fmt: skip
        what = f"not a .{fmt} file: {str(error)[:200] or type(error).__name__}"
        raise FinetDeployError(what, where=str(path), do="export it again") from error


class _Nothing:
    """Stands for every class and function in a pickle; a pickle cannot give it attributes."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> tuple[Any, ...]:
        return arguments


class _Inert(pickle.Unpickler):
    """Reads a pickle in which every class and function is one that keeps its arguments and does nothing."""

    def find_class(self, module: str, name: str) -> Any:
        return _Nothing()

    def persistent_load(self, pid: Any) -> Any:
        return None


def _ptl(path: Path) -> Needs:
    """`bytecode.pkl` is (version, method, ...); a method is (name, ((section, content), ...), ...), and the section
    `operators` has (name, overload[, number of arguments]) of each. After torch/csrc/jit/serialization."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.split("/")[1:] == ["bytecode.pkl"]]
        with archive.open(names[0]) as stream:
            data = stream.read(MAX_BYTECODE_BYTES)
    version, *methods = _Inert(io.BytesIO(data)).load()
    if not isinstance(version, int):
        raise ValueError("bytecode without a version")
    operators: dict[str, int] = {}
    for method in methods:
        for kind, content in method[1]:
            for operator, overload, *given in content if kind == "operators" else ():
                full = f"{operator}.{overload}" if overload else str(operator)
                operators[full] = max(operators.get(full, 0), int(given[0]) if given else 0)
    return Needs(bytecode_version=version, operators=operators)


def _pte(path: Path) -> Needs:
    """A flatbuffer after ExecuTorch's `schema/program.fbs`: the indices below are places of fields in its tables."""
    data = read_bounded(path, MAX_FILE_BYTES)
    identifiers = [_mark(data, 4)]
    extended = data[8:12] == b"eh00"
    segments_base = struct.unpack_from("<Q", data, 24)[0] if extended else 0
    if extended:
        identifiers.append("eh00")
    program = _Table.root(data)
    operators: dict[str, int] = {}
    backends: list[str] = []
    nodes: list[int | None] = []
    for plan in program.tables(1):
        for operator in plan.tables(6):
            overload = operator.text(1)
            operators[f"{operator.text(0)}.{overload}" if overload else operator.text(0)] = 0
        for delegate in plan.tables(7):
            backends.append(delegate.text(0))
            nodes.append(None)
            processed = delegate.table(1)
            if processed is not None and processed.number(0, "<B"):  # in a segment
                segment = list(program.tables(4))[processed.number(1, "<I")]
                at = segments_base + segment.number(0, "<Q")
                identifiers += _payload_marks(data, at)
                nodes[-1] = _payload_nodes(data, at)
    return Needs(
        identifiers=tuple(dict.fromkeys(identifiers)),
        operators=operators,
        backends=tuple(dict.fromkeys(backends)),
        delegate_nodes=tuple(nodes),
    )


def _payload_marks(data: bytes, at: int) -> Iterator[str]:
    """XNNPACK's payload begins with a header, whose mark stands at 4 and the place of the graph at 10."""
    if data[at + 4 : at + 6] == b"XH":
        yield _mark(data, at + 4)
        yield _mark(data, at + struct.unpack_from("<I", data, at + 10)[0] + 4)


def _payload_nodes(data: bytes, at: int) -> int | None:
    """The number of nodes in the graph of XNNPACK's payload: its `xnodes`, after XNNPACK's `schema.fbs`."""
    if data[at + 4 : at + 6] != b"XH":
        return None
    graph = data[at + struct.unpack_from("<I", data, at + 10)[0] :]
    return sum(1 for _ in _Table.root(graph).tables(1))


def _mark(data: bytes, at: int) -> str:
    return struct.unpack_from("4s", data, at)[0].decode("ascii", "replace")


class _Table:
    """A flatbuffer's table at `at`. Fields are optional; whatever leads out of the data raises struct.error."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - struct.unpack_from("<i", data, at)[0]
        if self._fields < 0:
            raise ValueError("a table before the file's begin")
        self._count = (struct.unpack_from("<H", data, self._fields)[0] - 4) // 2

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def number(self, field: int, form: str) -> int:
        """0 where it is left out."""
        place = self._place(field)
        return struct.unpack_from(form, self._data, place)[0] if place else 0

    def table(self, field: int) -> _Table | None:
        place = self._target(field)
        return _Table(self._data, place) if place else None

    def text(self, field: int) -> str:
        place = self._target(field)
        if not place:
            return ""
        length = struct.unpack_from("<I", self._data, place)[0]
        return self._data[place + 4 : place + 4 + min(length, 1000)].decode("utf-8", "replace")

    def tables(self, field: int) -> Iterator[_Table]:
        place = self._target(field)
        count = struct.unpack_from("<I", self._data, place)[0] if place else 0
        if count > MAX_ITEMS:
            raise ValueError(f"a list of {count}")
        for item in range(count):
            at = place + 4 + 4 * item
            yield _Table(self._data, at + struct.unpack_from("<I", self._data, at)[0])

    def _place(self, field: int) -> int:
        if field >= self._count:
            return 0
        offset = struct.unpack_from("<H", self._data, self._fields + 4 + 2 * field)[0]
        return self._at + offset if offset else 0

    def _target(self, field: int) -> int:
        place = self._place(field)
        return place + struct.unpack_from("<I", self._data, place)[0] if place else 0
