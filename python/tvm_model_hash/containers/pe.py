# SPDX-License-Identifier: Apache-2.0
"""PE, the libraries and programs of Windows, and COFF, its object files."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from itertools import islice
from typing import NamedTuple

from .. import limits
from .binary import Binary, Dependencies, Symbol
from .window import StringTable, Window, decode

MAGIC = b"MZ"

_SIGNATURE = b"PE\0\0"
_SIGNATURE_AT = 0x3C
_DLL = 0x2000
_I386 = 0x14C
_MACHINES = {
    0x14C: "i686",
    0x1C0: "arm",
    0x1C4: "armv7",
    0x8664: "x86_64",
    0xAA64: "arm64",
}
_HEADER = "<2H3I2H"
_HEADER_SIZE = 20
_SECTION = "<8s6I2HI"
_SYMBOL = "<8sIhHBB"
_SYMBOL_SIZE = 18
_PE32, _PE32_PLUS = 0x10B, 0x20B
_EXPORTS, _IMPORTS, _CERTIFICATES, _DELAYED = 0, 1, 4, 13
_UNINITIALIZED = 0x80
_EXTERNAL = 2


class _Section(NamedTuple):
    name: str
    address: int
    offset: int
    size: int  # of what is in the file


class _CoffHeaders(Binary):
    """What PE and COFF have in common.

    Parameters
    ----------
    window : Window
        Where the file lies.
    offset : int
        Where its COFF header does.
    """

    def __init__(self, window: Window, offset: int) -> None:
        super().__init__(window)
        header = window.unpack(_HEADER, offset, f"{self.format} header")
        self._machine, count, _, symbols_at, symbols, self._optional_size, flags = header
        self._optional_at = offset + _HEADER_SIZE
        self._flags = flags
        self.platform = (
            f"{self.format} {_MACHINES.get(self._machine, f'machine {self._machine:#x}')}"
        )
        self._sections: list[_Section] = []
        sections_at = self._optional_at + self._optional_size
        for row in window.rows(_SECTION, sections_at, count, "section headers"):
            name, virtual, address, size, place, relocations, _, number, _, flags = row
            if flags & _UNINITIALIZED or not place:
                size = 0
            window.check(place, size, "section")
            if relocations:
                window.check(relocations, 10 * number, "relocations")
            # In what can be loaded, the size in the file is rounded up.
            size = min(virtual, size) if virtual else size
            self._sections.append(_Section(decode(name.rstrip(b"\0")), address, place, size))
        self._symbols_at, self._symbol_count = symbols_at, symbols if symbols_at else 0
        self._names: Window | None = None
        if symbols_at:
            names_at = symbols_at + _SYMBOL_SIZE * symbols
            (size,) = window.unpack("<I", names_at, "table of names")
            self._names = window.part(names_at, max(size, 4), "table of names")

    def sections(self, name: str) -> list[Window]:
        """Find sections by their name, of 8 bytes at most."""
        return [
            self.window.part(section.offset, section.size, f"section {name}")
            for section in self._sections
            if section.name == name
        ]


class PeBinary(_CoffHeaders):
    """A PE file.

    Parameters
    ----------
    window : Window
        Where it lies.
    """

    format = "PE"

    def __init__(self, window: Window) -> None:
        (offset,) = window.unpack("<I", _SIGNATURE_AT, "DOS header")
        if window.read(offset, 4, "PE header") != _SIGNATURE:
            raise window.damaged("it has no PE header where its DOS header says")
        super().__init__(window, offset + 4)
        self.kind = "shared library" if self._flags & _DLL else "program"
        self._directories = self._read_directories()
        place, size = self._directories.get(_CERTIFICATES, (0, 0))
        window.check(place, size, "certificates")  # the one directory that is not an address
        names = [*self._imported(_IMPORTS, "<12xI4x"), *self._imported(_DELAYED, "<4xI24x")]
        self.dependencies = Dependencies(tuple(names))

    def _read_directories(self) -> dict[int, tuple[int, int]]:
        optional = self.window.part(self._optional_at, self._optional_size, "optional header")
        (magic,) = optional.unpack("<H", 0, "optional header")
        if magic not in (_PE32, _PE32_PLUS):
            raise self.window.damaged(f"its optional header begins with {magic:#x}")
        first = 96 if magic == _PE32 else 112
        (count,) = optional.unpack("<I", first - 4, "optional header")
        rows = optional.rows("<2I", first, min(count, 16), "data directories")
        return dict(enumerate(rows))

    def _place(self, address: int, what: str) -> tuple[int, int]:
        """Where in the file an address lies, and how many bytes there are from there."""
        self.window.spend(len(self._sections))
        for section in self._sections:
            if 0 <= address - section.address < section.size:
                skipped = address - section.address
                return section.offset + skipped, section.size - skipped
        raise self.window.damaged(f"no bytes of the file are at the address of its {what}")

    def _imported(self, directory: int, layout: str) -> Iterator[str]:
        """Give the names of the libraries in a table that ends with a row of zeros."""
        address, _ = self._directories.get(directory, (0, 0))
        if not address:
            return
        offset, room = self._place(address, "imports")
        count = min(room // struct.calcsize(layout), limits.HEADERS)
        for (name,) in self.window.rows(layout, offset, count, "imports"):
            if not name:
                return
            yield self.window.string(self._place(name, "imports")[0], "name of a library")
        raise self.window.damaged(f"its imports have no end within {limits.HEADERS} libraries")

    def _defined(self, endings: Collection[str]) -> Iterator[Symbol]:
        """Find exported symbols."""
        address, size = self._directories.get(_EXPORTS, (0, 0))
        if not address:
            return
        offset, room = self._place(address, "exports")
        exports = self.window.part(offset, min(size, room), "exports")
        fields = exports.unpack("<5I", 20, "exports")
        functions, count, functions_at, names_at, numbers_at = fields
        strings = StringTable(exports, [ending.encode() for ending in endings])
        if not strings:
            return
        self.window.limit(count, limits.COFF_SYMBOLS, "exported names")
        names_at, _ = self._place(names_at, "names of exports")
        for index, (place,) in enumerate(self.window.rows("<I", names_at, count, "exports")):
            name = strings.name(place - address)
            if name is None:
                continue
            at = self._place(numbers_at + 2 * index, "numbers of exports")[0]
            (number,) = self.window.unpack("<H", at, "number of an export")
            if number >= functions:
                raise self.window.damaged(f"the export {name} has the number {number}")
            at = self._place(functions_at + 4 * number, "addresses of exports")[0]
            (target,) = self.window.unpack("<I", at, "address of an export")
            yield self._symbol(name, target)

    def _symbol(self, name: str, address: int) -> Symbol:
        what = f"symbol {name}"
        if not any(0 <= address - section.address < section.size for section in self._sections):
            return Symbol(name, None, sized=False)  # zeros when it is loaded
        return Symbol(name, self.window.part(*self._place(address, what), what), sized=False)


class CoffBinary(_CoffHeaders):
    """An object file for Windows.

    Parameters
    ----------
    window : Window
        Where it lies.
    """

    format = "COFF"
    kind = "object file"

    def __init__(self, window: Window) -> None:
        super().__init__(window, 0)

    @classmethod
    def is_at(cls, window: Window) -> bool:
        """Whether a file begins as an object file does; there is no magic number."""
        if window.size < _HEADER_SIZE:
            return False
        machine, _, _, symbols_at, _, optional, _ = window.unpack(_HEADER, 0, "COFF header")
        return machine in _MACHINES and not optional and symbols_at != 0

    def _defined(self, endings: Collection[str]) -> Iterator[Symbol]:
        """Find symbols in the table of symbols."""
        if self._names is None:
            return
        self.window.limit(self._symbol_count, limits.COFF_SYMBOLS, "symbols")
        strings = StringTable(self._names, [ending.encode() for ending in endings])
        rows = self.window.rows(_SYMBOL, self._symbols_at, self._symbol_count, "table of symbols")
        lead = "_" if self._machine == _I386 else ""
        for name, value, section, _, storage, following in rows:
            if name[:4] == b"\0\0\0\0":
                text = strings.name(int.from_bytes(name[4:], "little"))
            else:
                text = decode(name.rstrip(b"\0"))
            if (
                text is not None
                and storage == _EXTERNAL
                and section > 0
                and text.startswith(lead)
                and text[len(lead) :].endswith(tuple(endings))
            ):
                yield self._symbol(text[len(lead) :], section, value)
            # What stands behind a symbol in rows of its own.
            next(islice(rows, following, following), None)

    def _symbol(self, name: str, number: int, value: int) -> Symbol:
        if number > len(self._sections):
            raise self.window.damaged(f"it has no section {number}, where {name} would be")
        section = self._sections[number - 1]
        if not 0 <= value < section.size:
            return Symbol(name, None, sized=False)
        place, size = section.offset + value, section.size - value
        return Symbol(name, self.window.part(place, size, f"symbol {name}"), sized=False)
