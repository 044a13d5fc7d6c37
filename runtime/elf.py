"""Links x86-64 ELF objects in memory: machine code that runs where LLVM is not installed.

LLVM's code for kernels needs little of a linker: code and constants, addresses relative to the
instruction, and now and then memset or memcpy of the C library.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_PROGBITS, _SYMTAB, _RELA = 1, 2, 4  # types of sections
_WRITE, _ALLOC = 1, 2  # their flags
_UNDEFINED, _RESERVED = 0, 0xFF00  # sections of symbols that lie in none
_PC32, _PLT32 = 2, 4  # both: symbol + addend - place, in 32 bits
# jmp to the address behind it: the C library may lie further away than 32 bits reach.
_FAR = b"\xff\x25\x00\x00\x00\x00"
_FAR_SIZE = 16
_ALIGN = 64  # of every object's first section, and the largest that constants ask for


@dataclass(frozen=True, slots=True)
class _Section:
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int  # of symbols: their names
    info: int  # of relocations: where they apply
    align: int
    entry: int


class Code:
    """Linked machine code; it stays mapped as long as this object lives."""

    def __init__(self, objects: Iterable[bytes]) -> None:
        linker = _Linker()
        for content in objects:
            linker.add(content)
        image = linker.image()
        self._symbols = linker.symbols
        self._memory = mmap.mmap(-1, len(image), prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self._memory[:] = bytes(image)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        library = ctypes.CDLL(None, use_errno=True)
        execute = mmap.PROT_READ | mmap.PROT_EXEC
        arguments = ctypes.c_void_p(self._base), ctypes.c_size_t(len(image)), execute
        if library.mprotect(*arguments):
            raise OSError(ctypes.get_errno(), "this system lets no program make code at run time")

    def address(self, symbol: str) -> int:
        """Returns where a function begins."""
        return self._base + self._symbols[symbol]


class _Linker:
    """Lays sections behind each other; what refers to what is settled in `image`."""

    def __init__(self) -> None:
        self._image = bytearray()
        self.symbols: dict[str, int] = {}  # global ones, by offset into the image
        # (place, symbol by name or offset, addend)
        self._open: list[tuple[int, str | int, int]] = []

    def add(self, content: bytes) -> None:
        (table,) = struct.unpack_from("<Q", content, 40)
        (count,) = struct.unpack_from("<H", content, 60)
        headers = [_SECTION.unpack_from(content, table + i * _SECTION.size) for i in range(count)]
        sections = [_Section(*header) for header in headers]
        places: dict[int, int] = {}
        self._pad(_ALIGN)
        for number, section in enumerate(sections):
            if section.flags & _ALLOC and section.size:
                assert section.type == _PROGBITS and not section.flags & _WRITE
                assert section.align <= _ALIGN, section.align
                self._pad(max(1, section.align))
                places[number] = len(self._image)
                self._image += content[section.offset : section.offset + section.size]
        symbols: list[str | int] = []
        for section in sections:
            if section.type == _SYMTAB:
                symbols = list(self._read_symbols(content, section, sections, places))
        for section in sections:
            if section.type == _RELA and section.info in places:
                self._read_relocations(content, section, symbols, places[section.info])

    def _pad(self, align: int) -> None:
        self._image += bytes(-len(self._image) % align)

    def _read_symbols(
        self, content: bytes, table: _Section, sections: list[_Section], places: dict[int, int]
    ) -> Iterator[str | int]:
        """Yields where each symbol lies, or the name of one that another object has."""
        names = sections[table.link].offset
        for at in range(table.offset, table.offset + table.size, _SYMBOL.size):
            name_at, info, _, section, value, _ = _SYMBOL.unpack_from(content, at)
            start = names + name_at
            name = content[start : content.index(b"\0", start)].decode()
            if section == _UNDEFINED or section >= _RESERVED:
                yield name
                continue
            place = places.get(section, 0) + value
            if info >> 4:  # not local
                self.symbols[name] = place
            yield place

    def _read_relocations(
        self, content: bytes, table: _Section, symbols: list[str | int], start: int
    ) -> None:
        for at in range(table.offset, table.offset + table.size, _RELOCATION.size):
            offset, info, addend = _RELOCATION.unpack_from(content, at)
            assert info & 0xFFFFFFFF in (_PC32, _PLT32), f"relocation of type {info & 0xFFFFFFFF}"
            self._open.append((start + offset, symbols[info >> 32], addend))

    def image(self) -> bytearray:
        """Returns the code with every reference settled."""
        for place, symbol, addend in self._open:
            if isinstance(symbol, str) and symbol not in self.symbols:
                self.symbols[symbol] = self._library(symbol)
            target = self.symbols[symbol] if isinstance(symbol, str) else symbol
            struct.pack_into("<i", self._image, place, target + addend - place)
        return self._image

    def _library(self, name: str) -> int:
        """Adds a jump to a function of the C library; returns where it is."""
        self._pad(_FAR_SIZE)
        place = len(self._image)
        function = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
        assert function is not None, name
        self._image += _FAR + struct.pack("<Q", function)
        return place
