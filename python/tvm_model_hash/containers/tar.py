# SPDX-License-Identifier: Apache-2.0
"""tar archives, plain or compressed with gzip."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from .. import limits
from ..errors import ArtifactError
from .ar import Member
from .window import Window, decode

GZIP_MAGIC = b"\x1f\x8b"

_MAGIC_AT, _MAGIC = 257, b"ustar"
_BLOCK = 512
_COMPRESSED_BYTES = 16 * 1024
_CHUNK_BYTES = 64 * 1024
_STEP_BYTES = 1 << 20
_MAX_POINTS = 128
_MAX_PIECES = 32
# The types of the entries.
_FILES, _LINKS, _DIRECTORY = ("0", "\0", "7"), ("1", "2"), "5"
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _SPARSE = "L", "K", "x", "g", "S"
_PAX_RECORD = re.compile(rb"([0-9]{1,8}) ([^=\n]+)=")


def is_tar(window: Window) -> bool:
    """Whether a file begins as a tar archive does that is not compressed."""
    end = _MAGIC_AT + len(_MAGIC)
    return window.size >= end and window.read(_MAGIC_AT, len(_MAGIC), "header") == _MAGIC


def members(window: Window) -> Iterator[Member]:
    """Go over the files in an archive.

    Parameters
    ----------
    window : Window
        The archive, not compressed.

    Yields
    ------
    member : Member

    Raises
    ------
    ArtifactError
        If it is damaged or truncated, or holds what is neither a file nor a directory.
    """
    position, count = 0, 0
    name: str | None = None
    size: int | None = None
    while True:
        if window.size - position < _BLOCK:
            raise ArtifactError(
                f"{window.source} is truncated: the end of the archive is missing, which is two "
                f"blocks of {_BLOCK} bytes 0"
            )
        block = window.read(position, _BLOCK, "header of a file")
        if not any(block):
            if any(window.read(position + _BLOCK, _BLOCK, "end of the archive")):
                raise window.damaged(f"at {position} it has one empty block, expected two")
            return
        count += 1
        window.limit(count, limits.MEMBERS, "files")
        header = _header(window, block, position)
        kind = header.kind
        if kind in _LINKS:
            raise window.damaged(f"{header.name!r} in it is a link, expected files")
        # A header before this one may have said it better.
        own = header.size if size is None or kind not in _FILES else size
        data = window.part(position + _BLOCK, own, f"file {header.name!r}")
        position += _BLOCK + -(-own // _BLOCK) * _BLOCK
        if kind in (_LONG_NAME, _PAX, _PAX_GLOBAL):
            new_name, new_size = _read_long_name(data) if kind == _LONG_NAME else _read_pax(data)
            # Of two headers before a file some take the first and some the last, and what is said
            # for all files is not taken by all.
            names, sizes = {name, new_name} - {None}, {size, new_size} - {None}
            is_for_all = kind == _PAX_GLOBAL and (new_name, new_size) != (None, None)
            if is_for_all or len(names) > 1 or len(sizes) > 1:
                raise window.damaged(
                    f"{header.name!r} in it says another name or size than one before, of which "
                    "readers take the one or the other"
                )
            name = name if new_name is None else new_name
            size = size if new_size is None else new_size
        elif kind in _FILES:
            name = header.name if name is None else name
            if "\0" in name:  # where it ends for some readers
                raise window.damaged(f"the name {name!r} in it has a byte 0")
            yield Member(name, data.part(0, own, "file", f"{name!r} in {window.source}"))
            name = size = None
        elif kind == _DIRECTORY:
            if own:  # which some readers take for what comes next
                raise window.damaged(f"the directory {header.name!r} in it has {own} bytes")
            name = size = None
        elif kind != _LONG_LINK:
            what = "a file with holes" if kind == _SPARSE else f"of the type {kind!r}"
            raise window.damaged(f"{header.name!r} in it is {what}, expected files")


class _Header(NamedTuple):
    name: str
    kind: str
    size: int


def _header(window: Window, block: bytes, position: int) -> _Header:
    what = f"the header at {position}"
    unsigned = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
    signed = unsigned - 256 * sum(byte >= 0x80 for byte in block[:148] + block[156:])
    if _number(window, block[148:156], what) not in (unsigned, signed):
        raise window.damaged(f"{what} in it has a wrong checksum")
    name = block[:100].split(b"\0")[0]
    if block[345]:
        # GNU's own headers have times there; Python's tarfile takes them for the name's beginning.
        if block[_MAGIC_AT : _MAGIC_AT + 6] != _MAGIC + b"\0":
            raise window.damaged(f"{what} in it has a name that not all read in the same way")
        name = block[345:500].split(b"\0")[0] + b"/" + name
    return _Header(decode(name), decode(block[156:157]), _number(window, block[124:136], what))


def _number(window: Window, field: bytes, what: str) -> int:
    """Read a number: octal digits, or binary where those would not do."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    # Behind a byte 0 some readers go on, for others the number ends.
    match = re.fullmatch(rb" *([0-7]*)[ \0]*", field)
    if match is None:
        raise window.damaged(f"{what} in it says {field!r}, expected an octal number")
    return int(match[1] or b"0", 8)


def _read_long_name(data: Window) -> tuple[str | None, int | None]:
    """Read what GNU tar writes for a long name."""
    data.limit(data.size, limits.NAME_BYTES + 1, "bytes in a name")
    name = data.read(0, data.size, "name of a file")
    if not name.endswith(b"\0"):  # and some read on until there is one
        raise data.damaged("a long name in it has no byte 0 at its end")
    return decode(name.rstrip(b"\0")), None


def _read_pax(data: Window) -> tuple[str | None, int | None]:
    """Read name and size from a header of pax: lines that begin with their length."""
    data.limit(data.size, limits.PAX_BYTES, "bytes in a header of pax")
    text = data.read(0, data.size, "header of pax")
    name, size, position = None, None, 0
    while position < len(text):
        match = _PAX_RECORD.match(text, position)
        end = position + int(match[1]) if match else 0
        if not match or not match.end() < end <= len(text) or text[end - 1 : end] != b"\n":
            raise data.damaged("a header of pax in it is malformed")
        key, value = match[2], text[match.end() : end - 1]
        if key.startswith(b"GNU.sparse"):
            raise data.damaged("a file in it has holes, expected files without")
        if key == b"path":
            data.limit(len(value), limits.NAME_BYTES, "bytes in a name")
            if not value:  # which takes back what was said before
                raise data.damaged("a header of pax in it gives no name")
            name = decode(value)
        elif key == b"size":
            if not re.fullmatch(rb"[0-9]{1,19}", value):
                raise data.damaged(f"a header of pax in it gives the size {value[:40]!r}")
            size = int(value)
        position = end
    return name, size


class _Point(NamedTuple):
    """A state of decompression: what was read, what came out of it, and how to go on."""

    compressed: int
    decompressed: int
    state: Any


class Gunzipped:
    """A file that is compressed with gzip, as a file that can seek.

    It is decompressed once, to find out whether it is whole. On the way states are kept, so that a
    step back costs no more than to decompress what lies between two of them.

    Parameters
    ----------
    window : Window
        The compressed file. What stands behind the end of the compressed data is not looked at.

    Raises
    ------
    ArtifactError
        If it is damaged or truncated, or decompressed larger than the limit.
    """

    def __init__(self, window: Window) -> None:
        # How much is read of it is limited here.
        self._window = Window(window.file, window.size, window.source, window.start)
        self._allowed = limits.DECOMPRESSED_BYTES + limits.DECOMPRESSION * window.size
        self._point = _Point(0, 0, zlib.decompressobj(wbits=31))
        self._points = [_Point(0, 0, self._point.state.copy())]
        self._step = _STEP_BYTES
        self._pieces: dict[int, bytes] = {}  # the latest, by where they lie
        self._position = 0
        while self._advance():
            if self._point.decompressed >= self._points[-1].decompressed + self._step:
                self._points.append(self._point._replace(state=self._point.state.copy()))
            if len(self._points) > _MAX_POINTS:
                del self._points[1::2]
                self._step *= 2
        self.size = self._point.decompressed

    def seek(self, position: int, /) -> None:
        """Go to a position from the beginning, in bytes."""
        self._position = position

    def read(self, size: int, /) -> bytes:
        """Read that many bytes, or fewer at the end."""
        pieces = []
        end = min(self._position + size, self.size)
        while self._position < end:
            start, data = self._piece_at(self._position)
            pieces.append(data[self._position - start : end - start])
            self._position += len(pieces[-1])
        return b"".join(pieces)

    def _piece_at(self, position: int) -> tuple[int, bytes]:
        """Decompress the piece in which a position lies, and say where that begins."""
        for start, data in reversed(self._pieces.items()):
            if start <= position < start + len(data):
                return start, data
        before = [point for point in self._points if point.decompressed <= position][-1]
        if not before.decompressed <= self._point.decompressed <= position:
            self._point = before._replace(state=before.state.copy())
        while self._point.decompressed <= position:
            self._advance()
        return next(reversed(self._pieces.items()))

    def _advance(self) -> bool:
        """Decompress one piece more; whether there was one."""
        compressed, decompressed, state = self._point
        if state.eof:
            return False
        data = state.unconsumed_tail
        if not data:
            size = min(_COMPRESSED_BYTES, self._window.size - compressed)
            data = self._window.read(compressed, size, "compressed data")
            compressed += size
        try:
            piece = state.decompress(data, _CHUNK_BYTES)
        except zlib.error as error:
            raise self._window.damaged(f"it cannot be decompressed ({error})") from error
        if not piece and not data and not state.eof:
            raise ArtifactError(
                f"{self._window.source} is truncated: the compressed data have no end"
            )
        self._allowed -= len(piece)
        if self._allowed < 0:
            raise self._window.damaged(
                f"it is compressed by more than a factor of {limits.DECOMPRESSION}, which is the "
                "limit; decompress it with gunzip if it is what you expect"
            )
        self._pieces.pop(decompressed, None)
        self._pieces[decompressed] = piece
        if len(self._pieces) > _MAX_PIECES:
            del self._pieces[next(iter(self._pieces))]
        self._point = _Point(compressed, decompressed + len(piece), state)
        return True
