# SPDX-License-Identifier: Apache-2.0
"""The archives of object files that are static libraries: of Unix, macOS and Windows."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from .. import limits
from ..errors import UnknownArtifactError
from .window import Window, decode

MAGIC = b"!<arch>\n"
THIN_MAGIC = b"!<thin>\n"

_HEADER_SIZE = 60
_HEADER_END = b"`\n"


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    data: Window


def members(window: Window) -> Iterator[Member]:
    """Go over the files in an archive.

    Parameters
    ----------
    window : Window
        The archive.

    Yields
    ------
    member : Member

    Raises
    ------
    ArtifactError
        If it is damaged or truncated.
    """
    if window.read(0, len(MAGIC), "archive header") == THIN_MAGIC:
        raise UnknownArtifactError(
            f"{window.source} is a thin archive, which only names its files: expected one that "
            "holds them"
        )
    long_names: Window | None = None
    begins: set[int] = set()
    referred: set[int] | None = None
    position, count = len(MAGIC), 0
    while position < window.size:
        count += 1
        window.limit(count, limits.MEMBERS, "files")
        header = window.read(position, _HEADER_SIZE, "header of a file")
        if header[-2:] != _HEADER_END:
            raise window.damaged(f"at {position} it has no header of a file")
        field, size = header[:16].rstrip(b" "), _decimal(window, header[48:58])
        data = window.part(position + _HEADER_SIZE, size, f"file {decode(field)!r}")
        begins.add(position)
        position = data.start - window.start + size
        if size % 2 and position < window.size:
            position += 1
        if field in (b"/", b"/SYM64/"):
            # Windows' archives have two of them; the second is in another form, with no news.
            if referred is None:
                referred = _referred(data, ">I" if field == b"/" else ">Q")
            continue
        if field == b"//":
            window.limit(size, limits.NAME_TABLE_BYTES, "bytes of long names")
            long_names = data
            continue
        name, skipped = _name(window, field, data, long_names)
        data = data.part(skipped, size - skipped, "file", f"{name!r} in {window.source}")
        if name in ("__.SYMDEF", "__.SYMDEF SORTED"):
            referred = _referred_bsd(data, "<I")
        elif name in ("__.SYMDEF_64", "__.SYMDEF_64 SORTED"):
            referred = _referred_bsd(data, "<Q")
        else:
            yield Member(name, data)
    # An archive that was cut between two files tells it by nothing else.
    if missing := (referred or set()) - begins:
        raise window.damaged(
            f"its table of symbols refers to a file at {min(missing)}, where none begins: it was "
            "cut, or put together wrongly"
        )


def _name(window: Window, field: bytes, data: Window, long_names: Window | None) -> tuple[str, int]:
    """The name of a file, and how many bytes of it stand before its content."""
    if field.startswith(b"#1/"):
        size = _decimal(window, field[3:])
        window.limit(size, limits.NAME_BYTES, "bytes in a name")
        return decode(data.read(0, size, "name of a file").rstrip(b"\0")), size
    if field[:1] == b"/" and field[1:].isdigit():
        if long_names is None:
            raise window.damaged("it has no table of long names")
        place = _decimal(window, field[1:])
        long_names.check(place, 0, "long name")
        size = min(limits.NAME_BYTES + 2, long_names.size - place)
        # Of Unix they end with a slash and a new line, of Windows with the byte 0.
        name = long_names.read(place, size, "long name").replace(b"\n", b"\0").split(b"\0")[0]
        return decode(name.removesuffix(b"/")), 0
    return decode(field.removesuffix(b"/")), 0


def _decimal(window: Window, field: bytes) -> int:
    text = field.rstrip(b" ")
    if not text.isdigit():
        raise window.damaged(f"a header in it says {field!r}, expected a number")
    return int(text)


def _referred(table: Window, layout: str) -> set[int]:
    """Where the files of a table of symbols begin: a number of them, and their places."""
    size = struct.calcsize(layout)
    (count,) = table.unpack(layout, 0, "table of symbols")
    return _places(table, layout, size, count)


def _referred_bsd(table: Window, layout: str) -> set[int]:
    """The same of macOS: the size of the table, and pairs of a name and a place."""
    size = struct.calcsize(layout)
    (used,) = table.unpack(layout, 0, "table of symbols")
    return _places(table, layout + layout[1:], size, used // (2 * size))


def _places(table: Window, layout: str, offset: int, count: int) -> set[int]:
    table.limit(count, limits.TABLE_ENTRIES, "symbols")
    places = set()
    for row in table.rows(layout, offset, count, "table of symbols"):
        places.add(row[-1])
        table.limit(len(places), limits.MEMBERS, "files with symbols")
    return places
