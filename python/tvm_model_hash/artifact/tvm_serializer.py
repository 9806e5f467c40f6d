# SPDX-License-Identifier: Apache-2.0
"""Reading what TVM's serializer writes: little-endian numbers, and lengths before contents."""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from .. import limits
from ..containers.window import Readable
from ..errors import ArtifactError

_TENSOR_MAGIC = 0xDD5E40F096B4A13F


class View:
    """Bytes in memory as a file, without a copy of them.

    Parameters
    ----------
    data : bytes-like
        The content.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data)
        self._position = 0
        self.size = len(self._data)

    def seek(self, position: int, /) -> None:
        """Go to a position from the beginning, in bytes."""
        self._position = position

    def read(self, size: int, /) -> bytes:
        """Read that many bytes, or fewer at the end."""
        return bytes(self._data[self._position : self._position + size])


class Reader:
    """Reads a part of a file from its beginning to its end, and nothing it is not asked for.

    Parameters
    ----------
    file : Readable
        The file. It is positioned before each read, so that readers can share it.
    size : int
        Size of the part, in bytes.
    source : str
        What the file is, for the errors' messages; its name for example.
    start : int
        Where in the file the part begins.
    part : str
        What the part is, for the errors' messages.
    """

    def __init__(
        self,
        file: Readable,
        size: int,
        source: str,
        start: int = 0,
        part: str = "executable's header",
    ) -> None:
        self.file = file
        self.size = size
        self.source = source
        self.start = start
        self.part = part
        self.position = 0
        self._entries = 0

    def take(self, size: int, section: str) -> bytes:
        """Read bytes.

        Raises
        ------
        ArtifactError
            If there are fewer.
        """
        position = self.position
        self.skip(size, section)
        self.file.seek(self.start + position)
        data = self.file.read(size)
        if len(data) != size:
            self.position = position
            raise self._truncated(size, len(data), section)
        return data

    def skip(self, size: int, section: str) -> None:
        """Go over bytes without reading them.

        Raises
        ------
        ArtifactError
            If there are fewer.
        """
        left = self.size - self.position
        if size > left:
            raise self._truncated(size, left, section)
        self.position += size

    def unpack(self, layout: str, section: str) -> int:
        """Read one number of a layout of :mod:`struct`."""
        return struct.unpack(layout, self.take(struct.calcsize(layout), section))[0]

    def count(self, section: str) -> int:
        """Read a number of elements or bytes, which stands before them."""
        return self.unpack("<Q", section)

    def entries(self, section: str) -> int:
        """Read a number of elements that are to be read one by one.

        Raises
        ------
        ArtifactError
            If there are more than the limit, with those that were read before.
        """
        return self.expect(self.count(section), section)

    def expect(self, count: int, section: str) -> int:
        """Count elements that are to be read one by one; else as :meth:`entries`."""
        self._entries += count
        if self._entries > limits.SERIALIZED_ENTRIES:
            raise ArtifactError(
                f"{self.source} is damaged: with the {section} its {self.part} has {self._entries} "
                f"entries, more than the limit of {limits.SERIALIZED_ENTRIES}"
            )
        return count

    def string(self, section: str) -> bytes:
        """Read a string.

        Raises
        ------
        ArtifactError
            If it is longer than what TVM writes, by far.
        """
        size = self.count(section)
        if size > limits.STRING_BYTES:
            raise ArtifactError(
                f"{self.source} is damaged: a string in the {section} of the {self.part} "
                f"is {size} bytes long, more than the limit of {limits.STRING_BYTES}"
            )
        return self.take(size, section)

    def _truncated(self, size: int, left: int, section: str) -> ArtifactError:
        return ArtifactError(
            f"{self.source} is truncated in the {section} of the {self.part}: "
            f"expected {size} more bytes at offset {self.start + self.position}, found {left}"
        )


class TensorPlace(NamedTuple):
    """Of a tensor its type as DLPack has it, its shape, and where in the file its data lies."""

    code: int
    bits: int
    lanes: int
    shape: tuple[int, ...]
    start: int
    size: int


def skip_tensor(reader: Reader, section: str) -> TensorPlace:
    """Go over a tensor, as ``SaveDLTensor`` of TVM writes it, without reading its data.

    Returns
    -------
    place : TensorPlace

    Raises
    ------
    ArtifactError
        If there is no tensor.
    """
    magic = reader.unpack("<Q", section)
    if magic != _TENSOR_MAGIC:
        raise damaged(reader, f"a tensor begins with {magic:#x}, expected {_TENSOR_MAGIC:#x}")
    reader.skip(16, section)  # reserved, device
    dimensions = reader.unpack("<i", section)
    if dimensions < 0:
        raise damaged(reader, f"a tensor has {dimensions} dimensions")
    if dimensions > limits.TENSOR_DIMENSIONS:
        raise damaged(
            reader,
            f"a tensor has {dimensions} dimensions, more than the limit of "
            f"{limits.TENSOR_DIMENSIONS}",
        )
    code, bits, lanes = struct.unpack("<BBH", reader.take(4, section))
    shape = struct.unpack(f"<{dimensions}q", reader.take(8 * dimensions, section))
    size = reader.count(section)
    # TVM takes no other size: of each element the whole bytes, of a vector those of one lane.
    if min(shape, default=0) < 0 or size != math.prod(shape) * ((bits + 7) // 8):
        raise damaged(
            reader,
            f"a tensor of shape {shape} with elements of {bits} bits has {size} bytes of data",
        )
    start = reader.start + reader.position
    reader.skip(size, section)
    return TensorPlace(code, bits, lanes, shape, start, size)


def damaged(reader: Reader, what: str) -> ArtifactError:
    """Make the error for content that is not what TVM writes."""
    return ArtifactError(f"{reader.source} is damaged before offset {reader.position}: {what}")
