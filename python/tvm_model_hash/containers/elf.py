# SPDX-License-Identifier: Apache-2.0
"""ELF, of 32 and 64 bits and of both byte orders: Linux, Android and others.

Symbols of what can be loaded are found as the loader finds them, by the dynamic segment, which
``strip`` leaves; else by the tables of symbols among the sections.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from .. import limits
from ..errors import UnknownArtifactError
from .binary import Binary, Dependencies, Symbol
from .window import StringTable, Window

MAGIC = b"\x7fELF"

_RELOCATABLE, _PROGRAM, _SHARED, _CORE = 1, 2, 3, 4
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_SHT_SYMTAB, _SHT_NOTE, _SHT_NOBITS, _SHT_DYNSYM, _SHT_SYMTAB_SHNDX = 2, 7, 8, 11, 18
_SHN_UNDEF, _SHN_RESERVED, _SHN_EXTENDED = 0, 0xFF00, 0xFFFF
_NOWHERE = -1
_PN_EXTENDED = 0xFFFF
_DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 1, 4, 5, 6, 10
_DT_RPATH, _DT_RUNPATH, _DT_GNU_HASH = 15, 29, 0x6FFFFEF5
# Libraries that the loader asks before this one; it loads them as it does the needed ones.
_DT_AUXILIARY, _DT_FILTER = 0x7FFFFFFD, 0x7FFFFFFF

_S390 = 22
_MACHINES = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    164: "hexagon",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}


class _Segment(NamedTuple):
    type: int
    offset: int
    address: int
    size: int
    align: int


class _Section(NamedTuple):
    type: int
    address: int
    offset: int
    size: int
    link: int
    align: int


class ElfBinary(Binary):
    """An ELF file.

    Parameters
    ----------
    window : Window
        Where it lies.
    """

    format = "ELF"

    def __init__(self, window: Window) -> None:
        super().__init__(window)
        bits, order, version = window.unpack("3B", 4, "ELF header")
        if bits not in (1, 2) or order not in (1, 2) or version != 1:
            raise window.damaged(
                f"its ELF header says class {bits}, byte order {order} and version {version}, "
                "expected 1 or 2, 1 or 2, and 1"
            )
        self._wide = bits == 2
        self._order = "<>"[order - 1]
        self._word = "Q" if self._wide else "I"
        header = self._layout("HHI" + 3 * self._word + "I6H")
        fields = window.unpack(header, 16, "ELF header")
        self._type, self._machine, _, _, self._segments_at, self._sections_at = fields[:6]
        _, _, segment_size, segments, section_size, sections, _ = fields[6:]
        if self._type not in (_RELOCATABLE, _PROGRAM, _SHARED):
            what = "a core dump" if self._type == _CORE else f"of the type {self._type}"
            raise UnknownArtifactError(
                f"{window.source} is an ELF file that is {what}: expected a library"
            )
        self.platform = f"ELF {self._machine_name(bits)}"
        self._sections, segments = self._read_sections(sections, section_size, segments)
        self._segments = self._read_segments(segments, segment_size)
        self._loaded = [segment for segment in self._segments if segment.type == _PT_LOAD]
        self._dynamic: dict[int, list[int]] = self._read_dynamic()
        interpreted = any(segment.type == _PT_INTERP for segment in self._segments)
        self.kind = {_RELOCATABLE: "object file", _PROGRAM: "program"}.get(
            self._type, "program" if interpreted else "shared library"
        )
        self.dependencies = self._read_dependencies()

    def _layout(self, fields: str) -> str:
        return self._order + fields

    def _machine_name(self, bits: int) -> str:
        name = _MACHINES.get(self._machine, f"machine {self._machine}")
        if name in ("riscv", "loongarch"):
            name += "64" if bits == 2 else "32"
        if name == "ppc64" and self._order == "<":
            name += "le"
        return name

    # Headers

    def _read_sections(
        self, count: int, size: int, segments: int
    ) -> tuple[dict[int, _Section], int]:
        """Check all sections, and keep those that are of use, by their numbers."""
        window = self.window
        self._section_count = 0
        if not self._sections_at:
            if segments == _PN_EXTENDED:
                raise window.damaged("the number of its segments is in a section that is missing")
            return {}, segments
        layout = self._section_layout()
        self._check_size("section", size, layout)
        # What doesn't fit into the header stands in the first section.
        first = window.unpack(layout, self._sections_at, "first section header")
        count = count or first[5]
        segments = first[7] if segments == _PN_EXTENDED else segments
        window.limit(count, limits.ELF_SECTIONS, "sections")
        kept = {}
        useful = (_SHT_SYMTAB, _SHT_NOTE, _SHT_DYNSYM, _SHT_SYMTAB_SHNDX)
        rows = window.rows(layout, self._sections_at, count, "section headers")
        for number, row in enumerate(rows):
            if row[1] not in (0, _SHT_NOBITS):
                if row[4] + row[5] > window.size:
                    window.check(row[4], row[5], f"section {number}")
                if row[1] in useful:
                    kept[number] = _section(row)
        self._section_count = count
        return kept, segments

    def _section_layout(self) -> str:
        return self._layout("II" + 4 * self._word + "II" + 2 * self._word)

    def _section(self, number: int) -> _Section:
        if not 0 < number < self._section_count:
            raise self.window.damaged(f"it has no section {number}")
        layout = self._section_layout()
        offset = self._sections_at + number * (64 if self._wide else 40)
        return _section(self.window.unpack(layout, offset, "section header"))

    def _read_segments(self, count: int, size: int) -> list[_Segment]:
        if not count:
            return []
        window = self.window
        window.limit(count, limits.HEADERS, "segments")
        layout = self._layout("IIQQQQQQ" if self._wide else "8I")
        self._check_size("segment", size, layout)
        segments = []
        for row in window.rows(layout, self._segments_at, count, "segment headers"):
            if self._wide:
                type_, _, offset, address, _, filled, _, align = row
            else:
                type_, offset, address, _, filled, _, _, align = row
            if type_:
                window.check(offset, filled, f"segment of the type {type_:#x}")
            segments.append(_Segment(type_, offset, address, filled, align))
        return segments

    def _check_size(self, what: str, size: int, layout: str) -> None:
        expected = {"section": (40, 64), "segment": (32, 56)}[what][self._wide]
        if size != expected:
            raise self.window.damaged(
                f"its {what} headers have {size} bytes each, expected {expected}"
            )

    def _read_dynamic(self) -> dict[int, list[int]]:
        """Read the dynamic segment: the values of each tag."""
        window = self.window
        segment = next((s for s in self._segments if s.type == _PT_DYNAMIC), None)
        values: dict[int, list[int]] = {}
        if segment is None:
            return values
        count = min(segment.size // (16 if self._wide else 8), limits.HEADERS)
        rows = window.rows(self._layout(2 * self._word), segment.offset, count, "dynamic segment")
        for tag, value in rows:
            if not tag:
                return values
            values.setdefault(tag, []).append(value)
        raise window.damaged(f"its dynamic segment has no end within {limits.HEADERS} entries")

    def _read_dependencies(self) -> Dependencies:
        def strings(tag: int) -> list[str]:
            places = self._dynamic.get(tag, ())
            return [self._strings().string(place, "name of a library") for place in places]

        paths = strings(_DT_RPATH) + strings(_DT_RUNPATH)
        libraries = strings(_DT_NEEDED) + strings(_DT_AUXILIARY) + strings(_DT_FILTER)
        return Dependencies(
            tuple(libraries), tuple(path for line in paths for path in line.split(":"))
        )

    def _strings(self) -> Window:
        """The names of the dynamic segment."""
        for tag in (_DT_STRTAB, _DT_STRSZ):
            if tag not in self._dynamic:
                raise self.window.damaged("its dynamic segment has no table of names")
        size = self._dynamic[_DT_STRSZ][0]
        offset, room = self._place(self._dynamic[_DT_STRTAB][0], "table of dynamic names")
        return self.window.part(offset, min(size, room), "table of dynamic names")

    def _place(self, address: int, what: str) -> tuple[int, int]:
        """Where in the file an address lies, and how many bytes there are from there."""
        self.window.spend(len(self._loaded))
        for segment in self._loaded:
            if 0 <= address - segment.address < segment.size:
                skipped = address - segment.address
                return segment.offset + skipped, segment.size - skipped
        raise self.window.damaged(f"no bytes of the file are at the address of its {what}")

    # Notes

    def notes(self, owner: bytes, number: int) -> list[Window]:
        """Find the notes of an owner, in segments and in sections."""
        # A note that is in a segment and in a section is one note.
        places = [(s.offset, s.size, s.align) for s in self._segments if s.type == _PT_NOTE]
        places += [
            (s.offset, s.size, s.align) for s in self._sections.values() if s.type == _SHT_NOTE
        ]
        areas = {(offset, size): 8 if align == 8 else 4 for offset, size, align in places}
        found: dict[int, Window] = {}
        count = 0
        for (begin, size), align in areas.items():
            area = self.window.part(begin, size, "notes")
            offset = 0
            while size - offset >= 12:
                count += 1
                self.window.limit(count, limits.ELF_NOTES, "notes")
                name, data, type_ = area.unpack(self._layout("III"), offset, "note")
                data_at = _aligned(offset + 12 + name, align)
                area.check(data_at, data, "note")
                if (
                    type_ == number
                    and name == len(owner) + 1
                    and area.has_string(offset + 12, owner)
                ):
                    descriptor = area.part(data_at, data, "note")
                    found[descriptor.start] = descriptor
                offset = _aligned(data_at + data, align)
            if offset < size and any(area.read(offset, size - offset, "notes")):
                raise area.damaged(f"{size - offset} bytes stand behind its last note")
        return list(found.values())

    # Symbols

    def symbols(self, names: Collection[str]) -> dict[str, Symbol]:
        """Find symbols by their names, by the hash table where there is one."""
        found = {}
        for name in names if self._hashed() else ():
            number = self._find_hashed(name.encode())
            if number is not None:
                found[name] = self._symbol(name, *self._fields(self._row(number)))
        # A program defines what it doesn't export; and a few libraries have no hash table.
        missing = [name for name in names if name not in found]
        unhashed = any(section.type == _SHT_SYMTAB for section in self._sections.values())
        if missing and (unhashed or not self._hashed()):
            found.update(super().symbols(missing))
        return found

    def _defined(self, endings: Collection[str]) -> Iterator[Symbol]:
        """Find symbols in all tables of symbols."""
        encoded = [ending.encode() for ending in endings]
        tables = [s for s in self._sections.values() if s.type in (_SHT_SYMTAB, _SHT_DYNSYM)]
        if self._hashed() and not any(s.type == _SHT_DYNSYM for s in tables):
            strings = StringTable(self._strings(), encoded)
            if strings:
                offset, room = self._symbols_place()
                count = min(self._count_hashed(), room // self._row_size())
                yield from self._search(strings, offset, count, None)
        for table in tables:
            names = self._section(table.link)
            strings = StringTable(self.window.part(names.offset, names.size, "names"), encoded)
            if strings:
                yield from self._search(
                    strings, table.offset, table.size // self._row_size(), table
                )

    def _search(
        self, strings: StringTable, offset: int, count: int, table: _Section | None
    ) -> Iterator[Symbol]:
        self.window.limit(count, limits.TABLE_ENTRIES, "symbols")
        rows = self.window.rows(self._row_layout(), offset, count, "table of symbols")
        for number, row in enumerate(rows):
            name = strings.name(row[0])
            if name is None:
                continue
            section, value, size = self._fields(row)
            if section == _SHN_EXTENDED:
                section = self._extended(table, number)
            elif section >= _SHN_RESERVED:  # absolute, or to be allocated by the linker
                section = _NOWHERE
            if section != _SHN_UNDEF:
                yield self._symbol(name, section, value, size)

    def _row_layout(self) -> str:
        return self._layout("IBBHQQ" if self._wide else "IIIBBH")

    def _row_size(self) -> int:
        return 24 if self._wide else 16

    def _fields(self, row: tuple[int, ...]) -> tuple[int, int, int]:
        """Section, value and size of a symbol."""
        if self._wide:
            return row[3], row[4], row[5]
        return row[5], row[1], row[2]

    def _extended(self, table: _Section | None, number: int) -> int:
        """The section of a symbol whose number has more than 16 bits."""
        self.window.spend(len(self._sections))
        for section in self._sections.values():
            if table and section.type == _SHT_SYMTAB_SHNDX and self._section(section.link) == table:
                part = self.window.part(section.offset, section.size, "section numbers")
                return part.unpack(self._layout("I"), 4 * number, "section number")[0]
        raise self.window.damaged("a symbol refers to a table of section numbers that is missing")

    def _symbol(self, name: str, section: int, value: int, size: int) -> Symbol:
        what = f"symbol {name}"
        if self._type != _RELOCATABLE:
            if not any(0 <= value - s.address < s.size for s in self._loaded):
                return Symbol(name, None, sized=False)
            offset, room = self._place(value, what)
        else:
            if section == _NOWHERE:
                return Symbol(name, None, sized=False)
            holder = self._section(section)
            if holder.type == _SHT_NOBITS:
                return Symbol(name, None, sized=False)
            offset, room = holder.offset + value, holder.size - value
        if size > room:
            raise self.window.damaged(f"its {what} has {size} bytes, and there is room for {room}")
        return Symbol(name, self.window.part(offset, size or room, what), sized=size > 0)

    # Hash tables

    def _hashed(self) -> bool:
        hashed = _DT_GNU_HASH in self._dynamic or _DT_HASH in self._dynamic
        return hashed and _DT_SYMTAB in self._dynamic

    def _symbols_place(self) -> tuple[int, int]:
        return self._place(self._dynamic[_DT_SYMTAB][0], "table of dynamic symbols")

    def _row(self, number: int) -> tuple[int, ...]:
        offset, _ = self._symbols_place()
        where = offset + number * self._row_size()
        return self.window.unpack(self._row_layout(), where, "dynamic symbol")

    def _is(self, number: int, name: bytes) -> bool:
        row = self._row(number)
        return self._fields(row)[0] != _SHN_UNDEF and self._strings().has_string(row[0], name)

    def _find_hashed(self, name: bytes) -> int | None:
        if _DT_GNU_HASH in self._dynamic:
            return self._find_gnu(name)
        return self._find_sysv(name)

    def _gnu_table(self) -> tuple[int, int, int, int]:
        """Number of the first symbol and of buckets; where buckets and chains begin."""
        offset, _ = self._place(self._dynamic[_DT_GNU_HASH][0], "hash table")
        layout = self._layout("IIII")
        buckets, first, bloom, _ = self.window.unpack(layout, offset, "hash table")
        buckets_at = offset + 16 + bloom * (8 if self._wide else 4)
        self.window.check(buckets_at, 4 * buckets, "hash table")
        return first, buckets, buckets_at, buckets_at + 4 * buckets

    def _find_gnu(self, name: bytes) -> int | None:
        first, buckets, buckets_at, chains_at = self._gnu_table()
        if not buckets:
            return None
        hashed = 5381
        for byte in name:
            hashed = (hashed * 33 + byte) & 0xFFFFFFFF
        word = self._layout("I")
        (start,) = self.window.unpack(word, buckets_at + 4 * (hashed % buckets), "hash table")
        if start < first:
            return None
        for number in range(start, start + limits.ELF_CHAIN):
            (entry,) = self.window.unpack(word, chains_at + 4 * (number - first), "hash table")
            if entry | 1 == hashed | 1 and self._is(number, name):
                return number
            if entry & 1:
                return None
        raise self._endless()

    def _find_sysv(self, name: bytes) -> int | None:
        offset, word, size, buckets, _ = self._sysv_table()
        if not buckets:
            return None
        hashed = 0
        for byte in name:
            hashed = (hashed << 4) + byte
            hashed = (hashed ^ (hashed >> 24 & 0xF0)) & 0x0FFFFFFF
        place = 2 + hashed % buckets
        for _ in range(limits.ELF_CHAIN):
            (number,) = self.window.unpack(word, offset + size * place, "hash table")
            if not number or self._is(number, name):
                return number or None
            place = 2 + buckets + number
        raise self._endless()

    def _sysv_table(self) -> tuple[int, str, int, int, int]:
        """Where it lies, layout and size of a word, numbers of buckets and of symbols."""
        offset, _ = self._place(self._dynamic[_DT_HASH][0], "hash table")
        size = 4
        # GNU's linker writes words of 8 bytes for this machine, as its ABI has it; LLVM's doesn't.
        if self._wide and self._machine == _S390:
            size = 4 if any(self.window.read(offset, 4, "hash table")) else 8
        word = self._layout("Q" if size == 8 else "I")
        buckets, symbols = self.window.unpack(word[0] + 2 * word[1], offset, "hash table")
        return offset, word, size, buckets, symbols

    def _count_hashed(self) -> int:
        """The number of dynamic symbols, which only the hash tables tell."""
        if _DT_HASH in self._dynamic:
            return self._sysv_table()[4]
        first, buckets, buckets_at, chains_at = self._gnu_table()
        self.window.limit(buckets, limits.TABLE_ENTRIES, "buckets of a hash table")
        word = self._layout("I")
        last = 0
        for (number,) in self.window.rows(word, buckets_at, buckets, "hash table"):
            last = max(last, number)
        if last < first:
            return first
        for number in range(last, last + limits.ELF_CHAIN):
            (entry,) = self.window.unpack(word, chains_at + 4 * (number - first), "hash table")
            if entry & 1:
                return number + 1
        raise self._endless()

    def _endless(self) -> Exception:
        return self.window.damaged(
            f"a chain of its hash table has no end within {limits.ELF_CHAIN}"
        )


def _section(row: tuple[int, ...]) -> _Section:
    _, type_, _, address, offset, size, link, _, align, _ = row
    return _Section(type_, address, offset, size, link, align)


def _aligned(offset: int, align: int) -> int:
    return (offset + align - 1) // align * align
