# SPDX-License-Identifier: Apache-2.0
"""A range of a file that is read in small pieces, each of which is checked to be there."""

from __future__ import annotations

import bisect
import struct
import sys
from collections.abc import Collection, Iterator
from typing import Any, Protocol

from .. import limits
from ..errors import ArtifactError

_CHUNK_BYTES = 256 * 1024


class Readable(Protocol):
    """What of a file object is needed here."""

    def seek(self, position: int, /) -> object:
        """Go to a position from the beginning, in bytes."""

    def read(self, size: int, /) -> bytes:
        """Read that many bytes, or fewer at the end."""


class Budget:
    """What may still be read of a file, and looked at, by all who read it."""

    def __init__(self) -> None:
        self.bytes = int(limits.LIBRARY_BYTES)
        self.steps = int(limits.LIBRARY_STEPS)


class Window:
    """A range of a file.

    Parameters
    ----------
    file : Readable
        The file. It is positioned before each read, so that windows can share it.
    size : int
        Size of the range, in bytes.
    source : str
        What it is, for the errors' messages; the file's name for example.
    start : int
        Where in the file the range begins.
    budget : Budget, optional
        What may be read of the file; None where that is limited in another way.
    """

    def __init__(
        self,
        file: Readable,
        size: int,
        source: str,
        start: int = 0,
        budget: Budget | None = None,
    ) -> None:
        self.file = file
        self.size = size
        self.source = source
        self.start = start
        self.budget = budget

    def read(self, offset: int, size: int, what: str) -> bytes:
        """Read bytes.

        Parameters
        ----------
        offset : int
            Where they begin, from the beginning of the range.
        size : int
            How many.
        what : str
            What they are, for the error's message.

        Returns
        -------
        data : bytes

        Raises
        ------
        ArtifactError
            If some of them are not there.
        """
        self.check(offset, size, what)
        if self.budget is not None:
            self.budget.bytes -= size
            if self.budget.bytes < 0:
                raise self.damaged(
                    f"its tables and names have more than the limit of {limits.LIBRARY_BYTES} "
                    "bytes, or are the same ones again and again"
                )
        self.file.seek(self.start + offset)
        data = self.file.read(size)
        if len(data) != size:
            raise ArtifactError(f"{self.source} has become shorter while it was read")
        return data

    def check(self, offset: int, size: int, what: str) -> None:
        """Check that bytes are there, without reading them.

        Raises
        ------
        ArtifactError
            If some of them are not.
        """
        if size < 0 or offset < 0 or offset + size > self.size:
            raise ArtifactError(
                f"{self.source} is damaged or truncated: its {what} would be the bytes {offset} to "
                f"{offset + size}, and it has {self.size}"
            )

    def part(self, offset: int, size: int, what: str, source: str | None = None) -> Window:
        """Make a window of a part.

        Raises
        ------
        ArtifactError
            If the part is not there.
        """
        self.check(offset, size, what)
        return Window(self.file, size, source or self.source, self.start + offset, self.budget)

    def spend(self, steps: int) -> None:
        """Count entries of tables that get looked at, before they are.

        Raises
        ------
        ArtifactError
            If there are more than the limit, all those before included.
        """
        if self.budget is not None:
            self.budget.steps -= steps
            if self.budget.steps < 0:
                raise self.damaged(
                    f"its tables have more than the limit of {limits.LIBRARY_STEPS} entries, or "
                    "are the same ones again and again"
                )

    def unpack(self, layout: str, offset: int, what: str) -> tuple[Any, ...]:
        """Read the values of a layout of :mod:`struct`."""
        return struct.unpack(layout, self.read(offset, struct.calcsize(layout), what))

    def rows(self, layout: str, offset: int, count: int, what: str) -> Iterator[tuple[Any, ...]]:
        """Read a table, a piece at a time.

        Parameters
        ----------
        layout : str
            The layout of a row.
        offset : int
            Where the table begins.
        count : int
            Number of its rows.
        what : str
            What it is, for the error's message.

        Yields
        ------
        row : tuple
            The values of a row.
        """
        row = struct.Struct(layout)
        self.check(offset, count * row.size, what)
        self.spend(count)
        at_once = _CHUNK_BYTES // row.size
        for first in range(0, count, at_once):
            size = min(at_once, count - first) * row.size
            yield from row.iter_unpack(self.read(offset + first * row.size, size, what))

    def string(self, offset: int, what: str) -> str:
        """Read a name that ends with the byte 0.

        Raises
        ------
        ArtifactError
            If it is longer than the limit.
        """
        self.check(offset, 0, what)
        data = self.read(offset, min(limits.NAME_BYTES + 1, self.size - offset), what)
        name, end, _ = data.partition(b"\0")
        if not end:
            raise self.damaged(
                f"the {what} at {offset} has no end within {limits.NAME_BYTES} bytes"
            )
        return decode(name)

    def has_string(self, offset: int, name: bytes) -> bool:
        """Whether a name, and the byte 0 behind it, stand somewhere."""
        size = len(name) + 1
        return 0 <= offset <= self.size - size and self.read(offset, size, "name") == name + b"\0"

    def damaged(self, what: str) -> ArtifactError:
        """Make the error for a structure that contradicts itself."""
        return ArtifactError(f"{self.source} is damaged: {what}")

    def limit(self, count: int, limit: int, what: str) -> None:
        """Check a number of things against the limit for them.

        Raises
        ------
        ArtifactError
            If there are more.
        """
        if count > limit:
            raise self.damaged(f"it has {count} {what}, more than the limit of {limit}")


class StringTable:
    """Those of the names in a table of names that a search is for.

    Symbols refer to their names by the place in such a table. To look through it first, and at the
    symbols by number only, is what makes a search fast.

    Parameters
    ----------
    table : Window
        Names, each with the byte 0 behind it. A symbol's name may begin inside of another name.
    endings : collection of bytes
        What the names are to end with.
    """

    def __init__(self, table: Window, endings: Collection[bytes]) -> None:
        # Of endings of which one ends with another, the longer leaves more places to begin at.
        found: dict[int, int] = {}  # where an ending begins, by where it ends
        sought = [ending + b"\0" for ending in endings]
        overlap = max(map(len, sought))
        # Pieces overlap, so that a name between two of them is not missed.
        for offset in range(0, table.size, _CHUNK_BYTES):
            size = min(_CHUNK_BYTES + overlap, table.size - offset)
            data = table.read(offset, size, "table of names")
            for ending in sought:
                place = data.find(ending)
                while place >= 0:
                    end = offset + place + len(ending) - 1
                    found[end] = max(offset + place, found.get(end, 0))
                    table.limit(
                        len(found), limits.FOUND_SYMBOLS, "symbols with a name that is sought"
                    )
                    place = data.find(ending, place + 1)
        # Where each name begins and its ending does, and the name.
        self._names: list[tuple[int, int, bytes]] = []
        for end, begin_of_ending in sorted(found.items()):
            first = max(0, end - limits.NAME_BYTES)
            name = table.read(first, end - first, "table of names")
            begin = name.rfind(b"\0") + 1
            self._names.append((first + begin, begin_of_ending, name[begin:]))

    def __bool__(self) -> bool:
        return bool(self._names)

    def name(self, place: int) -> str | None:
        """Give the name that begins at a place; None where it is not one that is sought."""
        index = bisect.bisect_right(self._names, (place, sys.maxsize)) - 1
        if index < 0:
            return None
        begin, ending, name = self._names[index]
        return decode(name[place - begin :]) if place <= ending else None


def decode(name: bytes) -> str:
    """Decode a name; bytes that are not UTF-8 stay visible in it."""
    return name.decode("utf-8", "backslashreplace")
