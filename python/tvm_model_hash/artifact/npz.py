# SPDX-License-Identifier: Apache-2.0
"""A file of NumPy's ``savez``, and the record in the comment at its end.

It is a zip archive with a file ``.npy`` for each array. Zip readers find the list of the files from
the end, where the archive has room for a comment, which NumPy does not look at.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, NamedTuple

from .. import limits
from ..boundary import reading
from ..errors import ArtifactError, FixedRecordError, ModelHashError
from ..record import RECORD_TAG, Record
from .carrier import Artifact, Carrier, Patch, Role, Source, StoredTensor
from .tensor_names import check_count, tensor_names
from .tensor_types import of_numpy
from .tvm_serializer import Reader

_SUFFIX = ".npy"
_LOCAL, _CENTRAL, _END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_END_64, _LOCATOR_64 = b"PK\6\6", b"PK\6\7"

# The end of the archive; the comment's length is its last field.
_END_LAYOUT = struct.Struct("<4s4H2LH")
_END_64_LAYOUT = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64_LAYOUT = struct.Struct("<4sLQL")
_CENTRAL_LAYOUT = struct.Struct("<4s6H3L5H2L")
_LOCAL_LAYOUT = struct.Struct("<4s5H3L2H")
_MAX_COMMENT_BYTES = 0xFFFF
_PIECE_BYTES = 1024 * 1024
# What stands in a field whose number is in the zip64 extra field, and that one's tag.
_ELSEWHERE = 0xFFFFFFFF
_ZIP64 = 1
_UTF8_FLAG = 0x800


class Entry(NamedTuple):
    """A file in the archive."""

    offset: int  # of its local header
    size: int  # as it is stored, in bytes
    name: bytes
    text: str  # the name


class Npz(Carrier):
    """A file of NumPy arrays.

    Parameters
    ----------
    source : Source
        The file.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._reader = Reader(source.file, source.size, source.name, part="zip archive")
        self._read_end()
        entries = self._read_directory()
        self._check_files(entries)
        self._names = [entry.text for entry in entries]

    @classmethod
    def find(cls, source: Source) -> Npz | None:
        """Recognize a zip archive with an array in it; NumPy does not mind other files."""
        if source.head.startswith(_LOCAL):
            reader = Reader(source.file, source.size, source.name, part="zip archive")
            *_, length, _ = _unpack(reader, _LOCAL_LAYOUT, "first file")
            if not reader.take(length, "first file").endswith(_SUFFIX.encode()):
                return cls._behind_another_file(source)
        elif not source.head.startswith(_END):  # what an archive without files begins with
            return None
        return cls(source)

    @classmethod
    def _behind_another_file(cls, source: Source) -> Npz | None:
        # It may be any zip archive, and of a kind that is not read here.
        try:
            found = cls(source)
        except ArtifactError:
            return None
        return found if any(name.endswith(_SUFFIX) for name in found._names) else None

    def artifact(self) -> Artifact:
        """Read the record in the comment, and the arrays' names."""
        names = [name[: -len(_SUFFIX)] for name in self._names if name.endswith(_SUFFIX)]
        return Artifact(
            self._source.path,
            "NumPy arrays",
            "file",
            self._source.size,
            Role.PARAMETERS,
            self._record(),
            tensors=tensor_names(names, self._source.name),
        )

    def patch(self, record: Record | None) -> Patch:
        """Replace the comment and its length."""
        self.artifact()  # so that nothing is changed in what is not whole
        if self._comment and self._record() is None:
            if record is None:
                return Patch(0, 0, b"")
            raise FixedRecordError(
                f"the place for a record in {self._source.name} is taken: the comment of the "
                f"archive is {self._comment[:100]!r}. Write the arrays anew, without a comment"
            )
        comment = b"" if record is None else str(record).encode("ascii")
        start = self._source.size - len(self._comment) - 2
        return Patch(start, self._source.size, struct.pack("<H", len(comment)) + comment)

    def tensors(self) -> Iterator[StoredTensor]:
        """Give the arrays with their data, which may be compressed."""
        import zipfile

        with self._reading(), zipfile.ZipFile(self._source.file) as archive:
            for name in self._names:
                if name.endswith(_SUFFIX):
                    with archive.open(name) as file:
                        shape, dtype, size = _read_header(file)
                        read = partial(self._pieces, file, size)
                        yield StoredTensor(name[: -len(_SUFFIX)], dtype, shape, read)

    def _pieces(self, file: IO[bytes], size: int) -> Iterator[bytes]:
        # Not all that is there, which a few compressed bytes can be a lot of.
        with self._reading():
            while size > 0 and (data := file.read(min(size, _PIECE_BYTES))):
                yield data
                size -= len(data)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        import zipfile
        import zlib

        with reading(self._source.path):
            try:
                yield
            except ModelHashError:
                raise
            # The last for what is encrypted, or compressed in a way that is not known here.
            except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
                raise ArtifactError(
                    f"cannot read the arrays in {self._source.name}: {error}"
                ) from error

    def _record(self) -> Record | None:
        if not self._comment.startswith(RECORD_TAG.encode()):
            return None
        return Record.decode(self._comment)

    def _read_end(self) -> None:
        """Find the end of the archive, and what it says of the directory."""
        reader = self._reader
        size = min(reader.size, _END_LAYOUT.size + _MAX_COMMENT_BYTES)
        reader.position = reader.size - size
        tail = reader.take(size, "end")
        # A comment that is a record has no bytes like these.
        index = tail.rfind(_END)
        self._comment = tail[index + _END_LAYOUT.size :]
        if index < 0 or len(tail) - index < _END_LAYOUT.size:
            raise self._damaged("its end is missing: it was cut")
        *_, count, size, start, length = _END_LAYOUT.unpack_from(tail, index)
        if length != len(self._comment):
            raise self._damaged(
                f"{len(self._comment)} bytes stand behind its end, expected {length}"
            )
        end = reader.size - len(tail) + index
        locator = end - _LOCATOR_64_LAYOUT.size
        if locator >= 0:
            reader.position = locator
            magic, _, position, _ = _unpack(reader, _LOCATOR_64_LAYOUT, "end")
            if magic == _LOCATOR_64:
                reader.position = end = position
                fields = _unpack(reader, _END_64_LAYOUT, "end")
                if fields[0] != _END_64 or reader.position != locator:
                    raise self._damaged("its end for large archives is not where it is said to be")
                count, size, start = fields[-3:]
        if start + size != end:
            raise self._damaged(
                f"its directory has {size} bytes from byte {start} on, and its end is at {end}"
            )
        check_count(count, self._source.name)
        if size > limits.ZIP_DIRECTORY_BYTES:
            raise self._damaged(
                f"its directory has {size} bytes, more than the limit of "
                f"{limits.ZIP_DIRECTORY_BYTES}"
            )
        self._count, self._directory = count, (start, size)

    def _read_directory(self) -> list[Entry]:
        start, size = self._directory
        self._reader.position = start
        data = self._reader.take(size, "directory")
        entries = []
        position = 0
        for _ in range(self._count):
            if size - position < _CENTRAL_LAYOUT.size:
                raise self._damaged("its directory has fewer entries than it says")
            fields = _CENTRAL_LAYOUT.unpack_from(data, position)
            magic, flags, stored, full = fields[0], fields[3], fields[8], fields[9]
            lengths, offset = fields[10:13], fields[16]
            position += _CENTRAL_LAYOUT.size
            if magic != _CENTRAL or size - position < sum(lengths):
                raise self._damaged("an entry of its directory is malformed")
            name = data[position : position + lengths[0]]
            extra = data[position + lengths[0] : position + lengths[0] + lengths[1]]
            position += sum(lengths)
            _, stored, offset = self._large(extra, full, stored, offset)
            entries.append(Entry(offset, stored, name, self._text(name, flags)))
        if position != size:
            raise self._damaged("its directory has more entries than it says")
        return entries

    def _text(self, name: bytes, flags: int) -> str:
        try:
            text = name.decode("utf-8" if flags & _UTF8_FLAG else "cp437")
        except UnicodeDecodeError as error:
            raise self._damaged(f"a name in it is not UTF-8: {error}") from error
        if "\0" in text:  # where some readers let the name end
            raise self._damaged(f"a name in it is {text[:100]!r}, which has a byte 0")
        return text

    def _large(self, extra: bytes, *numbers: int) -> list[int]:
        """Replace the numbers that have no room in an entry by those in its extra field."""
        large = [number == _ELSEWHERE for number in numbers]
        position = 0
        while any(large) and position + 4 <= len(extra):
            tag, length = struct.unpack_from("<2H", extra, position)
            if tag == _ZIP64 and 8 * sum(large) <= length <= len(extra) - position - 4:
                found = iter(struct.unpack_from(f"<{sum(large)}Q", extra, position + 4))
                return [next(found) if number == _ELSEWHERE else number for number in numbers]
            position += 4 + length
        if any(large):
            raise self._damaged("a size in it is in an extra field that is missing")
        return list(numbers)

    def _check_files(self, entries: list[Entry]) -> None:
        """Check that each file is where the directory says, and none lies in another."""
        reader = self._reader
        position = 0
        for entry in sorted(entries):
            if entry.offset < position:
                raise self._damaged(f"{entry.text[:100]!r} lies inside another file")
            reader.position = entry.offset
            magic, *_, name_length, extra_length = _unpack(reader, _LOCAL_LAYOUT, "files")
            if magic != _LOCAL or reader.take(name_length, "files") != entry.name:
                raise self._damaged(f"{entry.text[:100]!r} is not where the directory says")
            position = reader.position + extra_length + entry.size
            if position > self._directory[0]:
                raise self._damaged(f"{entry.text[:100]!r} does not fit before the directory")

    def _damaged(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self._source.name} is damaged: as a zip archive, {what}")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], str | None, int]:
    """Read the shape of an array, its type, and how many bytes it has."""
    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    read = readers.get(npy.read_magic(file))
    if read is None:  # of types with names beyond Latin-1
        return (), None, 0
    shape, fortran_order, dtype = read(file)
    is_plain = not fortran_order and dtype == dtype.newbyteorder("<")
    return shape, of_numpy(dtype.name) if is_plain else None, math.prod(shape) * dtype.itemsize


def _unpack(reader: Reader, layout: struct.Struct, section: str) -> tuple:
    return layout.unpack(reader.take(layout.size, section))
