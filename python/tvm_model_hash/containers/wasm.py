# SPDX-License-Identifier: Apache-2.0
"""WebAssembly: linked modules and object files."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from .. import limits
from .binary import Binary, Symbol
from .window import Window, decode

MAGIC = b"\0asm"

_VERSION = 1
_CUSTOM, _IMPORT, _FUNCTION, _MEMORY, _GLOBAL, _EXPORT, _CODE, _DATA, _DATA_COUNT = (
    0,
    2,
    3,
    5,
    6,
    7,
    10,
    11,
    12,
)
_KIND_FUNCTION, _KIND_TABLE, _KIND_MEMORY, _KIND_GLOBAL, _KIND_TAG = range(5)
_LINKING = "linking"
_SYMBOL_TABLE = 8
_SYMBOL_FUNCTION, _SYMBOL_DATA, _SYMBOL_SECTION = 0, 1, 3
_UNDEFINED, _EXPLICIT_NAME = 0x10, 0x40
_MEMORY_64 = 0x04
# Instructions of constant expressions.
_END, _GLOBAL_GET, _VECTOR = 0x0B, 0x23, 0xFD
_CONST, _ADD, _REFERENCES = (0x41, 0x42), (0x6A, 0x7C), (0xD0, 0xD2)
_FLOAT_SIZES = {0x43: 4, 0x44: 8}
_ARITHMETIC = (*_ADD, 0x6B, 0x6C, 0x7D, 0x7E)
_AHEAD_BYTES = 4096


class _Segment(NamedTuple):
    address: int | None  # None for those that code copies to their place
    offset: int
    size: int


class _Cursor:
    """Reads a part of a file from its beginning to its end.

    Parameters
    ----------
    window : Window
        The part.
    what : str
        What it is, for the errors' messages.
    """

    def __init__(self, window: Window, what: str) -> None:
        self._window = window
        self._what = what
        self.position = 0
        self._ahead, self._ahead_at = b"", 0

    @property
    def at_end(self) -> bool:
        return self.position == self._window.size

    def take(self, size: int) -> bytes:
        begin = self.position - self._ahead_at
        if not 0 <= begin <= begin + size <= len(self._ahead):
            self._window.check(self.position, size, self._what)
            left = self._window.size - self.position
            self._ahead_at, begin = self.position, 0
            self._ahead = self._window.read(
                self.position, min(max(size, _AHEAD_BYTES), left), self._what
            )
        self.position += size
        return self._ahead[begin : begin + size]

    def skip(self, size: int) -> None:
        self._window.check(self.position, size, self._what)
        self.position += size

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self, signed: bool = False) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value - (1 << (shift + 7)) if signed and byte & 0x40 else value
        raise self._window.damaged(f"a number in its {self._what} has no end")

    def name(self) -> str:
        size = self.number()
        self._window.limit(size, limits.NAME_BYTES, f"bytes in a name in its {self._what}")
        return decode(self.take(size))

    def part(self, size: int, what: str) -> Window:
        part = self._window.part(self.position, size, what)
        self.position += size
        return part


class WasmBinary(Binary):
    """A WebAssembly module, linked or to be linked.

    Parameters
    ----------
    window : Window
        Where it lies.
    """

    format = "wasm"

    def __init__(self, window: Window) -> None:
        super().__init__(window)
        (version,) = window.unpack("<I", 4, "wasm header")
        if version != _VERSION:
            raise window.damaged(f"its wasm version is {version:#x}, expected {_VERSION}")
        self._custom: list[tuple[str, Window]] = []
        self._entries = 0
        self._counts: dict[int, int] = {}
        self._wide = False
        self._imported_globals = 0
        self._globals: list[int | None] = []
        self._exports: dict[str, tuple[int, int]] = {}
        self._segments: list[_Segment] = []
        self._read_sections()
        objects = any(name == _LINKING for name, _ in self._custom)
        self.kind = "object file" if objects else "shared library"
        self.platform = "wasm64" if self._wide else "wasm32"

    # Sections

    def _read_sections(self) -> None:
        window = self.window
        readers = {
            _IMPORT: self._read_import,
            _MEMORY: self._read_memory,
            _GLOBAL: self._read_global,
            _EXPORT: self._read_export,
            _DATA: self._read_data,
        }
        modules = _Cursor(window, "sections")
        modules.skip(8)
        count = 0
        while not modules.at_end:
            count += 1
            window.limit(count, limits.WASM_SECTIONS, "sections")
            kind = modules.byte()
            section = modules.part(modules.number(), f"section of the kind {kind}")
            cursor = _Cursor(section, f"section of the kind {kind}")
            if kind == _CUSTOM:
                name = cursor.name()
                left = section.size - cursor.position
                self._custom.append((name, section.part(cursor.position, left, name)))
                continue
            if kind in self._counts:
                raise window.damaged(f"it has two sections of the kind {kind}")
            self._counts[kind] = entries = cursor.number() if section.size else 0
            if kind in readers:
                self._entries += entries
                window.limit(
                    self._entries, limits.WASM_ENTRIES, "imports, globals, exports and data"
                )
                for _ in range(entries):
                    readers[kind](cursor)
                if not cursor.at_end:
                    raise window.damaged(f"its section of the kind {kind} is longer than it says")
        # Of a module that was cut between two sections this tells.
        for one, other in ((_FUNCTION, _CODE), (_DATA_COUNT, _DATA)):
            counts = self._counts.get(one, 0), self._counts.get(other, 0)
            if counts[0] != counts[1] and (one == _FUNCTION or one in self._counts):
                raise window.damaged(
                    f"its sections of the kinds {one} and {other} speak of {counts[0]} and "
                    f"{counts[1]} entries: it was cut, or put together wrongly"
                )

    def _read_import(self, cursor: _Cursor) -> None:
        cursor.name()
        cursor.name()
        kind = cursor.byte()
        if kind == _KIND_FUNCTION:
            cursor.number()
        elif kind == _KIND_TABLE:
            cursor.byte()
            self._read_limits(cursor)
        elif kind == _KIND_MEMORY:
            self._read_memory(cursor)
        elif kind == _KIND_GLOBAL:
            cursor.skip(2)
            self._imported_globals += 1
        elif kind == _KIND_TAG:
            cursor.byte()
            cursor.number()
        else:
            raise self.window.damaged(f"it imports something of the kind {kind}")

    def _read_limits(self, cursor: _Cursor) -> int:
        flags = cursor.number()
        cursor.number()
        if flags & 1:
            cursor.number()
        return flags

    def _read_memory(self, cursor: _Cursor) -> None:
        self._wide |= bool(self._read_limits(cursor) & _MEMORY_64)

    def _read_global(self, cursor: _Cursor) -> None:
        cursor.skip(2)
        self._globals.append(self._constant(cursor))

    def _read_export(self, cursor: _Cursor) -> None:
        name = cursor.name()
        self._exports[name] = cursor.byte(), cursor.number()

    def _read_data(self, cursor: _Cursor) -> None:
        flags = cursor.number()
        if flags > 2:
            raise self.window.damaged(f"a segment of its data has the flags {flags}")
        if flags == 2:
            cursor.number()
        address = None if flags == 1 else self._constant(cursor)
        part = cursor.part(cursor.number(), "segment of its data")
        self._segments.append(_Segment(address, part.start - self.window.start, part.size))

    def _constant(self, cursor: _Cursor) -> int | None:
        """Read a constant expression; None where its value is not known.

        A library that is loaded beside others begins at an address that it imports. Its own are
        counted from there.
        """
        values: list[int | None] = []
        while (code := cursor.byte()) != _END:
            self._entries += 1
            self.window.limit(self._entries, limits.WASM_ENTRIES, "entries and constants")
            value = None
            if code in _CONST:
                value = cursor.number(signed=True)
            elif code == _GLOBAL_GET:
                index = cursor.number() - self._imported_globals
                value = 0 if index < 0 else self._global(index)
            elif code in _FLOAT_SIZES:
                cursor.skip(_FLOAT_SIZES[code])
            elif code in _REFERENCES:
                cursor.number()
            elif code == _VECTOR:
                cursor.number()
                cursor.skip(16)
            elif code in _ADD and len(values) >= 2:
                one, other = values.pop(), values.pop()
                value = None if one is None or other is None else one + other
            elif code not in _ARITHMETIC:
                raise self.window.damaged(f"a constant has the instruction {code:#x}")
            values.append(value)
        return values[0] if len(values) == 1 else None

    def _global(self, index: int) -> int | None:
        return self._globals[index] if index < len(self._globals) else None

    def sections(self, name: str) -> list[Window]:
        """Find custom sections."""
        return [content for section, content in self._custom if section == name]

    # Symbols

    def _defined(self, endings: Collection[str]) -> Iterator[Symbol]:
        """Find exports of a module, and symbols of an object file."""
        for name, (kind, index) in self._exports.items():
            if name.endswith(tuple(endings)):
                yield Symbol(name, self._exported(name, kind, index), sized=False)
        for content in self.sections(_LINKING):
            for symbol in self._linked(_Cursor(content, "section for the linker")):
                if symbol.name.endswith(tuple(endings)):
                    yield symbol

    def _exported(self, name: str, kind: int, index: int) -> Window | None:
        """The data at the address that an exported global holds."""
        index -= self._imported_globals
        if kind != _KIND_GLOBAL or index < 0:
            return None
        address = self._global(index)
        self.window.spend(len(self._segments))
        for segment in self._segments if address is not None else ():
            assert address is not None
            if segment.address is not None and 0 <= address - segment.address < segment.size:
                skipped = address - segment.address
                return self.window.part(
                    segment.offset + skipped, segment.size - skipped, f"symbol {name}"
                )
        return None

    def _linked(self, cursor: _Cursor) -> Iterator[Symbol]:
        cursor.number()  # version
        parts = 0
        while not cursor.at_end:
            parts += 1
            self.window.limit(parts, limits.WASM_SECTIONS, "parts for the linker")
            kind = cursor.byte()
            part = cursor.part(cursor.number(), "part for the linker")
            if kind == _SYMBOL_TABLE:
                table = _Cursor(part, "table of symbols")
                count = table.number()
                self.window.limit(count, limits.TABLE_ENTRIES, "symbols")
                self.window.spend(count)
                for _ in range(count):
                    symbol = self._read_symbol(table)
                    if symbol is not None:
                        yield symbol

    def _read_symbol(self, table: _Cursor) -> Symbol | None:
        kind = table.byte()
        flags = table.number()
        if kind == _SYMBOL_SECTION:
            table.number()
            return None
        if kind == _SYMBOL_DATA:
            name = table.name()
            if flags & _UNDEFINED:
                return None
            index, offset, size = table.number(), table.number(), table.number()
            if index >= len(self._segments) or offset + size > self._segments[index].size:
                raise self.window.damaged(f"its symbol {name} is not in its data")
            place = self._segments[index].offset + offset
            return Symbol(name, self.window.part(place, size, f"symbol {name}"), sized=True)
        table.number()
        if flags & _UNDEFINED and not flags & _EXPLICIT_NAME:
            return None
        name = table.name()
        defined = not flags & _UNDEFINED and kind == _SYMBOL_FUNCTION
        return Symbol(name, None, sized=False) if defined else None
