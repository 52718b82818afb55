"""Native libraries of the app: page alignment, symbols, and the Java names in them. Needs pyelftools."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from finet_deploy.errors import FinetDeployError

__all__ = ["NativeLibrary", "read_native"]

_TEXT = re.compile(rb"[\x20-\x7e]{3,2000}(?=\0)")


@dataclass(frozen=True)
class NativeLibrary:
    """alignment: the smallest of its load segments, bytes. provides, needs_symbols: dynamic symbols.

    texts: its printable constants (`constants` holds them all), among them the names by which it looks for Java
    classes and registers methods.
    """

    name: str
    machine: str
    alignment: int
    needs: tuple[str, ...]
    provides: frozenset[str]
    needs_symbols: frozenset[str]
    texts: frozenset[str]
    constants: bytes

    def has_text(self, text: str) -> bool:
        """Whether it has this constant; linkers let a text share the end of a longer one."""
        return text.encode() + b"\0" in self.constants


def read_native(name: str, data: bytes) -> NativeLibrary:
    """FinetDeployError for what is no ELF library, or without pyelftools."""
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.dynamic import DynamicSection
        from elftools.elf.elffile import ELFFile
        from elftools.elf.sections import SymbolTableSection
    except ImportError as error:
        raise FinetDeployError(
            "pyelftools is not installed", do="pip install 'finet-deploy[runner]'"
        ) from error
    try:
        file = ELFFile(io.BytesIO(data))
        loads = [segment["p_align"] for segment in file.iter_segments("PT_LOAD")]
        dynamic = [section for section in file.iter_sections() if isinstance(section, DynamicSection)]
        needs = tuple(str(tag.needed) for section in dynamic for tag in section.iter_tags("DT_NEEDED"))  # type: ignore[attr-defined]
        provided, needed = set(), set()
        table = file.get_section_by_name(".dynsym")
        for symbol in table.iter_symbols() if isinstance(table, SymbolTableSection) else ():
            if symbol["st_info"]["bind"] == "STB_LOCAL" or not symbol.name:
                continue
            if symbol["st_shndx"] != "SHN_UNDEF":
                provided.add(symbol.name)
            elif symbol["st_info"]["bind"] != "STB_WEAK":
                needed.add(symbol.name)
        constants = file.get_section_by_name(".rodata")
        data = constants.data() if constants is not None else b""
        return NativeLibrary(
            name=name,
            machine=file["e_machine"],
            alignment=min(loads, default=0),
            needs=needs,
            provides=frozenset(provided),
            needs_symbols=frozenset(needed),
            texts=frozenset(text.decode("ascii") for text in _TEXT.findall(data)),
            constants=data,
        )
    except (ELFError, UnicodeDecodeError, KeyError) as error:
        raise FinetDeployError(f"not an ELF library: {error}", where=name, do="fetch it again") from error
