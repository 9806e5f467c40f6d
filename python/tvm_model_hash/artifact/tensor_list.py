# SPDX-License-Identifier: Apache-2.0
"""A list of tensors by TVM's own serializer, and the record behind it.

``runtime::SaveParams`` writes it: for ``save_param_dict``, and for the late-bound constants of a
Relay VM executable. TVM's reader stops after the last tensor, and behind that stands the record, as
a string.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

from .. import limits
from ..errors import RecordError
from ..record import Record
from .carrier import Artifact, Carrier, Patch, Role, Source, StoredTensor
from .tensor_names import check_count, tensor_names
from .tensor_types import of_dlpack
from .tvm_serializer import Reader, damaged, skip_tensor

_MAGIC = struct.pack("<Q", 0xF7E58D4F05049CB7)


class TensorList(Carrier):
    """A file of TVM's parameters, or of late-bound constants.

    Parameters
    ----------
    source : Source
        The file.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        reader = Reader(source.file, source.size, source.name, part="list of tensors")
        reader.skip(len(_MAGIC) + 8, "beginning")  # magic number, reserved
        count = reader.count("names")
        check_count(count, source.name)
        names = [reader.string("names") for _ in range(count)]
        if reader.count("tensors") != count:
            raise damaged(reader, f"there are {count} names, and not as many tensors")
        self._places = [skip_tensor(reader, "tensors") for _ in names]
        try:
            self._names = tensor_names([name.decode("utf-8") for name in names], source.name)
        except UnicodeDecodeError as error:
            raise damaged(reader, f"a name is not UTF-8: {error}") from error
        self._end = reader.position

    @classmethod
    def find(cls, source: Source) -> TensorList | None:
        """Recognize a list of tensors."""
        return cls(source) if source.head.startswith(_MAGIC) else None

    def artifact(self) -> Artifact:
        """Read the record behind the last tensor."""
        return Artifact(
            self._source.path,
            "TVM parameters",
            "file",
            self._source.size,
            Role.PARAMETERS,
            self._record(),
            tensors=self._names,
        )

    def patch(self, record: Record | None) -> Patch:
        """Replace what stands behind the last tensor."""
        self._record()  # so that nothing is lost that is not a record
        return Patch(self._end, self._source.size, trailer(record) if record else b"")

    def tensors(self) -> Iterator[StoredTensor]:
        """Give the tensors with their data."""
        for name, place in zip(self._names, self._places, strict=True):
            dtype = of_dlpack(place.code, place.bits) if place.lanes == 1 else None
            read = partial(self._source.pieces, place.start, place.size)
            yield StoredTensor(name, dtype, place.shape, read)

    def _record(self) -> Record | None:
        source = self._source
        left = source.size - self._end
        reader = Reader(source.file, left, source.name, self._end, "list of tensors")
        if not left:
            return None
        if left > limits.RECORD_BYTES + 8 or reader.count("record") != left - 8:
            raise RecordError(
                f"{left} bytes stand behind the last tensor, which are no record: expected its "
                "length and its text, or nothing"
            )
        return Record.decode(reader.take(left - 8, "record"))


def trailer(record: Record) -> bytes:
    """Serialize a record as it stands behind the last tensor.

    Parameters
    ----------
    record : Record
        The record.

    Returns
    -------
    trailer : bytes
        What is to be appended to a list of tensors without a record.
    """
    text = str(record).encode("ascii")
    return struct.pack("<Q", len(text)) + text
