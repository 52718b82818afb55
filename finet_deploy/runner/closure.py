"""Whether a folder of ELF files can stand alone: nothing missing, nothing that a phone's loader refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from finet_deploy.errors import FinetDeployError
from finet_deploy.runner.targets import Target

try:
    from elftools.common.exceptions import ELFError
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection, GNUVerSymSection
    from elftools.elf.sections import SymbolTableSection
except ImportError as error:
    raise FinetDeployError("pyelftools is not installed", do="pip install 'finet-deploy[runner]'") from error

__all__ = ["Binary", "closure_problems", "needed_libraries", "read_binary"]

EXECUTABLE = 1  # PF_X
LOCAL_OR_BASE = {"VER_NDX_LOCAL", "VER_NDX_GLOBAL"}
TEXTREL_FLAG = 4  # DF_TEXTREL


@dataclass
class Binary:
    """What matters of one ELF file. Symbols are (name, version); version None where there is none."""

    name: str
    machine: str = ""
    needed: list[str] = field(default_factory=list)
    defined: set[tuple[str, str | None]] = field(default_factory=set)
    wanted: set[tuple[str, str | None]] = field(default_factory=set)
    versions_defined: set[str] = field(default_factory=set)
    versions_needed: set[tuple[str, str]] = field(default_factory=set)  # library, version
    alignments: list[int] = field(default_factory=list)
    stack: int | None = None  # flags of PT_GNU_STACK
    text_relocations: bool = False
    run_path: str | None = None

    def has(self, symbol: tuple[str, str | None]) -> bool:
        """Whether it defines the symbol: this version of it, or, where none is asked for, any."""
        name, version = symbol
        return (
            symbol in self.defined or (name, None) in self.defined or (version is None and self._named(name))
        )

    def _named(self, name: str) -> bool:
        if not hasattr(self, "_names"):
            self._names = {found for found, _ in self.defined}
        return name in self._names


def read_binary(path: Path) -> Binary | None:
    """The ELF file at `path`; None when it is something else (a script)."""
    with path.open("rb") as stream:
        if stream.read(4) != b"\x7fELF":
            return None
        stream.seek(0)
        try:
            elf = ELFFile(stream)
            binary = Binary(path.name, machine=str(elf["e_machine"]))
            _read_segments(elf, binary)
            _read_sections(elf, binary)
        except (ELFError, KeyError, ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{path.name}: damaged ELF file: {error}") from error
    return binary


def needed_libraries(path: Path) -> list[str]:
    """The libraries that the file at `path` names."""
    binary = read_binary(path)
    return [] if binary is None else binary.needed


def _read_segments(elf: ELFFile, binary: Binary) -> None:
    for segment in elf.iter_segments():
        if segment["p_type"] == "PT_LOAD":
            binary.alignments.append(int(segment["p_align"]))
        elif segment["p_type"] == "PT_GNU_STACK":
            binary.stack = int(segment["p_flags"])


def _read_sections(elf: ELFFile, binary: Binary) -> None:
    symbols: SymbolTableSection | None = None
    indices: GNUVerSymSection | None = None
    names: dict[int, str] = {}
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            _read_dynamic(section, binary)
        elif isinstance(section, GNUVerDefSection):
            for version, auxiliary in section.iter_versions():
                name = next(auxiliary).name
                names[version["vd_ndx"]] = name
                binary.versions_defined.add(name)
        elif isinstance(section, GNUVerNeedSection):
            for version, auxiliaries in section.iter_versions():
                for item in auxiliaries:
                    names[item["vna_other"]] = item.name
                    binary.versions_needed.add((str(version.name), str(item.name)))
        elif isinstance(section, GNUVerSymSection):
            indices = section
        elif isinstance(section, SymbolTableSection) and section.name == ".dynsym":
            symbols = section
    if symbols is not None:
        _read_symbols(symbols, indices, names, binary)


def _read_dynamic(section: DynamicSection, binary: Binary) -> None:
    for tag in section.iter_tags():
        kind = tag.entry.d_tag
        if kind == "DT_NEEDED":
            binary.needed.append(_text(tag, "needed"))
        elif kind in ("DT_RPATH", "DT_RUNPATH"):
            binary.run_path = _text(tag, "rpath" if kind == "DT_RPATH" else "runpath")
        elif kind == "DT_TEXTREL" or (kind == "DT_FLAGS" and tag.entry.d_val & TEXTREL_FLAG):
            binary.text_relocations = True


def _text(tag: object, attribute: str) -> str:
    """The string of a dynamic tag: an attribute that depends on its kind."""
    return str(getattr(tag, attribute))


def _read_symbols(
    symbols: SymbolTableSection, indices: GNUVerSymSection | None, names: dict[int, str], binary: Binary
) -> None:
    for number, symbol in enumerate(symbols.iter_symbols()):
        bind, defined = symbol["st_info"]["bind"], symbol["st_shndx"] != "SHN_UNDEF"
        if not symbol.name or bind == "STB_LOCAL":
            continue
        version: str | None = None
        if indices is not None:
            index = indices.get_symbol(number)["ndx"]
            version = None if index in LOCAL_OR_BASE else names.get(int(index) & 0x7FFF)
        if defined:
            binary.defined.add((symbol.name, version))
        elif bind != "STB_WEAK":
            binary.wanted.add((symbol.name, version))


def closure_problems(folder: Path, target: Target) -> list[str]:
    """What keeps the folder (`bin/`, `lib/`) from running by itself, one line each; empty when nothing does."""
    problems: list[str] = []
    binaries: dict[str, Binary] = {}
    for path in sorted([*folder.glob("bin/*"), *folder.glob("lib/*")]):
        try:
            binary = read_binary(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        if binary is None:
            problems.append(f"{path.name}: not an ELF file")
        else:
            binaries[path.name] = binary
    for binary in binaries.values():
        problems += [f"{binary.name}: {problem}" for problem in _own_problems(binary, target)]
        problems += [f"{binary.name}: {problem}" for problem in _missing(binary, binaries)]
    return problems


def _own_problems(binary: Binary, target: Target) -> list[str]:
    found = []
    if binary.machine != target.machine:
        found.append(f"is for {binary.machine}, not {target.machine}")
    if not binary.alignments or any(alignment % target.page for alignment in binary.alignments):
        found.append(f"a segment is not aligned to {target.page} bytes")
    if binary.stack is None or binary.stack & EXECUTABLE:
        found.append("asks for an executable stack")
    if binary.text_relocations:
        found.append("has text relocations")
    if binary.run_path and not all(part.startswith("$ORIGIN") for part in binary.run_path.split(":")):
        found.append(f"looks for libraries in {binary.run_path}")
    return found


def _missing(binary: Binary, binaries: dict[str, Binary]) -> list[str]:
    found = [f"needs {name}, which is not here" for name in binary.needed if name not in binaries]
    for library, version in sorted(binary.versions_needed):
        if library in binaries and version not in binaries[library].versions_defined:
            found.append(f"needs version {version} of {library}, which has no such version")
    scope = _scope(binary, binaries)
    missing = sorted(
        f"{name}@{version}" if version else name
        for name, version in binary.wanted
        if not any(other.has((name, version)) for other in scope)
    )
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        found.append(f"no library that it names defines {shown}")
    return found


def _scope(binary: Binary, binaries: dict[str, Binary]) -> list[Binary]:
    """The file and all that it pulls in, in the loader's order: breadth first."""
    scope, names = [binary], {binary.name}
    for member in scope:
        for name in member.needed:
            if name in binaries and name not in names:
                names.add(name)
                scope.append(binaries[name])
    return scope
