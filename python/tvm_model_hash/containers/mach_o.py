# SPDX-License-Identifier: Apache-2.0
"""Mach-O, of 32 and 64 bits: macOS and iOS."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from .. import limits
from ..errors import ArtifactError, UnknownArtifactError
from .binary import Binary, Dependencies, Symbol
from .window import StringTable, Window, decode

MAGICS = (b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf")
UNIVERSAL_MAGICS = (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf")

_KINDS = {1: "object file", 2: "program", 6: "shared library", 8: "shared library"}
_CPUS = {
    7: "i386",
    0x01000007: "x86_64",
    12: "arm",
    0x0100000C: "arm64",
    0x0200000C: "arm64_32",
    18: "ppc",
    0x01000012: "ppc64",
}

_REQUIRED = 0x80000000  # the loader has to know the command
_SEGMENT, _SEGMENT_64, _SYMTAB, _RPATH = 0x1, 0x19, 0x2, 0x1C | _REQUIRED
_DYLD_INFO, _EXPORTS = (0x22, 0x22 | _REQUIRED), 0x33 | _REQUIRED
_LOAD = (0xC, 0x18 | _REQUIRED, 0x1F | _REQUIRED, 0x20, 0x23 | _REQUIRED)
# Commands that are a place and a size of data for the linker: signature, starts of functions, ...
_LINK_DATA = (0x1D, 0x1E, 0x26, 0x29, 0x2B, 0x2E, _EXPORTS, 0x34 | _REQUIRED)
_ZERO_FILLED = (0x1, 0xC, 0x12)
_NLIST_DEBUG, _NLIST_TYPE, _NLIST_IN_SECTION = 0xE0, 0x0E, 0x0E
_EXPORT_KIND, _EXPORT_REEXPORT = 0x03, 0x08


class _Section(NamedTuple):
    name: str
    address: int
    size: int
    offset: int
    filled: bool


class MachOBinary(Binary):
    """A Mach-O file, or a slice of a universal one.

    Parameters
    ----------
    window : Window
        Where it lies.
    """

    format = "Mach-O"

    def __init__(self, window: Window) -> None:
        super().__init__(window)
        magic = window.read(0, 4, "Mach-O header")
        self._order = "<" if magic[0] in (0xCE, 0xCF) else ">"
        self._wide = 0xCF in (magic[0], magic[3])
        _, cpu, _, self._type, count, size, _ = window.unpack(
            f"{self._order}7I", 0, "Mach-O header"
        )
        if self._type not in _KINDS:
            raise UnknownArtifactError(
                f"{window.source} is a Mach-O file of the type {self._type}: expected a library"
            )
        self.kind = _KINDS[self._type]
        self.platform = f"Mach-O {_CPUS.get(cpu, f'cpu {cpu}')}"
        self._sections: list[_Section] = []
        self._symbols: tuple[int, int, int, int] | None = None
        self._exports: tuple[int, int] | None = None
        self._base = 0
        self._libraries: list[str] = []
        self._paths: list[str] = []
        window.limit(count, limits.HEADERS, "load commands")
        window.limit(size, limits.MACH_O_COMMAND_BYTES, "bytes of load commands")
        commands = window.read(32 if self._wide else 28, size, "load commands")
        self._read_commands(commands, count)
        self.dependencies = Dependencies(tuple(self._libraries), tuple(self._paths))

    # Headers

    def _read_commands(self, commands: bytes, count: int) -> None:
        position = 0
        for _ in range(count):
            number, size = self._unpack("2I", commands, position)
            if size < 8 or position + size > len(commands):
                raise self.window.damaged(f"its load command {number:#x} has {size} bytes")
            self._read_command(number, commands[position : position + size])
            position += size

    def _unpack(self, layout: str, data: bytes, position: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self._order + layout, data, position)
        except struct.error:
            raise self.window.damaged("a load command is shorter than what it holds") from None

    def _read_command(self, number: int, command: bytes) -> None:
        if number in (_SEGMENT, _SEGMENT_64):
            self._read_segment(number == _SEGMENT_64, command)
        elif number == _SYMTAB:
            offset, count, names, size = self._unpack("4I", command, 8)
            self.window.limit(count, limits.TABLE_ENTRIES, "symbols")
            self.window.check(offset, count * (16 if self._wide else 12), "table of symbols")
            self.window.check(names, size, "table of names")
            self._symbols = offset, count, names, size
        elif number in _DYLD_INFO:
            for place in range(8, 48, 8):
                offset, size = self._unpack("2I", command, place)
                self.window.check(offset, size, "data for the loader")
                self._exports = offset, size  # which the last of them are
        elif number in _LINK_DATA:
            place, size = self._unpack("2I", command, 8)
            self.window.check(place, size, "data for the linker")
            if number == _EXPORTS:
                self._exports = place, size
        elif number in _LOAD:
            self._libraries.append(self._string(command))
        elif number == _RPATH:
            self._paths.append(self._string(command))

    def _string(self, command: bytes) -> str:
        (place,) = self._unpack("I", command, 8)
        name, end, _ = command[place:].partition(b"\0")
        if not end or place < 12 or len(name) > limits.NAME_BYTES:
            raise self.window.damaged("the name of a library is not in its load command")
        return decode(name)

    def _read_segment(self, wide: bool, command: bytes) -> None:
        word = "Q" if wide else "I"
        address, _, offset, size = self._unpack(4 * word, command, 24)
        self.window.check(offset, size, "segment")
        if _name(command[8:24]) == "__TEXT":
            self._base = address
        (count,) = self._unpack("I", command, 64 if wide else 48)
        first, each = (72, 80) if wide else (56, 68)
        if first + count * each > len(command):
            raise self.window.damaged(f"a load command has no room for its {count} sections")
        for position in range(first, first + count * each, each):
            address, size = self._unpack(2 * word, command, position + 32)
            place = position + 32 + (16 if wide else 8)
            offset, _, relocations, number, flags = self._unpack("5I", command, place)
            filled = flags & 0xFF not in _ZERO_FILLED
            if filled:
                self.window.check(offset, size, "section")
            self.window.check(relocations, 8 * number, "relocations")
            names = command[position : position + 32]
            name = f"{_name(names[16:])},{_name(names[:16])}"
            self._sections.append(_Section(name, address, size, offset, filled))

    # What is in it

    def sections(self, name: str) -> list[Window]:
        """Find sections by the names of segment and section."""
        return [
            self.window.part(section.offset, section.size, f"section {name}")
            for section in self._sections
            if section.name == name and section.filled
        ]

    def _defined(self, endings: Collection[str]) -> Iterator[Symbol]:
        """Find symbols in the table of symbols, and among the exported ones."""
        found = set()
        for name, address in (*self._listed(endings), *self._exported(endings)):
            # C puts a character before each name.
            lead, own = name[:1], name[1:]
            if lead == "_" and own.endswith(tuple(endings)) and own not in found:
                found.add(own)
                yield self._symbol(own, address)

    def _listed(self, endings: Collection[str]) -> Iterator[tuple[str, int]]:
        if self._symbols is None:
            return
        offset, count, names_at, names_size = self._symbols
        names = self.window.part(names_at, names_size, "table of names")
        strings = StringTable(names, [ending.encode() for ending in endings])
        layout = f"{self._order}IBBH{'Q' if self._wide else 'I'}"
        for place, kind, _, _, value in (
            self.window.rows(layout, offset, count, "table of symbols") if strings else ()
        ):
            name = strings.name(place)
            defined = not kind & _NLIST_DEBUG and kind & _NLIST_TYPE == _NLIST_IN_SECTION
            if name is not None and defined:
                yield name, value

    def _exported(self, endings: Collection[str]) -> Iterator[tuple[str, int]]:
        if self._exports is None or not self._exports[1]:
            return
        place, size = self._exports
        self.window.limit(size, limits.MACH_O_EXPORT_BYTES, "bytes of exported names")
        tree = self.window.read(place, size, "exported names")
        encoded = tuple(ending.encode() for ending in endings)
        for name, offset in _walk(tree, self.window.damaged):
            if name.endswith(encoded):
                yield decode(name), self._base + offset

    def _symbol(self, name: str, address: int) -> Symbol:
        self.window.spend(len(self._sections))
        for section in self._sections:
            if 0 <= address - section.address < section.size:
                if not section.filled:
                    break
                skipped = address - section.address
                offset, size = section.offset + skipped, section.size - skipped
                return Symbol(name, self.window.part(offset, size, f"symbol {name}"), sized=False)
        return Symbol(name, None, sized=False)


def slices(window: Window) -> list[Window] | None:
    """Give the files that a universal file consists of.

    Parameters
    ----------
    window : Window
        A file that begins with one of :data:`UNIVERSAL_MAGICS`.

    Returns
    -------
    slices : list of Window or None
        None if it is another file that begins so, as a class of Java does.

    Raises
    ------
    ArtifactError
        If it is damaged or truncated.
    """
    magic, count = window.unpack(">4sI", 0, "universal header")
    if count > limits.SLICES:
        return None
    layout = ">2I2I4x" if magic == UNIVERSAL_MAGICS[0] else ">2I2Q8x"
    found = []
    for number, (cpu, _, offset, size) in enumerate(window.rows(layout, 8, count, "slices")):
        source = f"slice {number} ({_CPUS.get(cpu, f'cpu {cpu}')}) of {window.source}"
        found.append(window.part(offset, size, f"slice {number}", source))
    return found


def _walk(tree: bytes, damaged: Callable[[str], ArtifactError]) -> Iterator[tuple[bytes, int]]:
    """Go over the tree of exported names: each name, and its offset from the image's base."""
    waiting = [(0, b"")]
    made = 0  # bytes of names: the tree may say the same ones often
    seen = set()
    try:
        while waiting:
            node, name = waiting.pop()
            if node in seen:
                raise damaged("the tree of its exported names is not a tree")
            seen.add(node)
            size, position = _number(tree, node)
            children = position + size
            if size:
                flags, position = _number(tree, position)
                if flags & _EXPORT_KIND == 0 and not flags & _EXPORT_REEXPORT:
                    yield name, _number(tree, position)[0]
            position = children + 1
            for _ in range(tree[children]):
                end = tree.index(b"\0", position, position + limits.NAME_BYTES + 1)
                child, following = _number(tree, end + 1)
                waiting.append((child, name + tree[position:end]))
                made += len(waiting[-1][1])
                if made > limits.MACH_O_NAME_BYTES:
                    raise damaged(
                        "its exported names have more bytes than the limit of "
                        f"{limits.MACH_O_NAME_BYTES}"
                    )
                position = following
    except ArtifactError:
        raise
    except (IndexError, ValueError):
        raise damaged("the tree of its exported names leads out of its bytes") from None


def _number(data: bytes, position: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte, and say where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError


def _name(data: bytes) -> str:
    return data.rstrip(b"\0").decode("ascii", "backslashreplace")
