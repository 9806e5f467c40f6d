# SPDX-License-Identifier: Apache-2.0
"""A file of safetensors: a u64 length, that many bytes of JSON, and the tensors' data.

The record stands in ``__metadata__``, the format's place for strings. Offsets in the JSON count
from the beginning of the data, so that the data can move. They move by multiples of 8 bytes, to
keep the alignment that they have.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

from ..errors import ArtifactError
from ..record import Record
from .carrier import Artifact, Carrier, Patch, Role, Source, StoredTensor
from .json_text import RECORD_KEY, Edit, check_size, is_size, read_json, record_in, short
from .tensor_names import tensor_names
from .tensor_types import of_safetensors, shape_of

_METADATA = "__metadata__"
_LENGTH_BYTES = 8
_ALIGNMENT = 8
# The format's own limit, which is more than is read here.
_MAX_HEADER_BYTES = 100_000_000
_BEGINNING = re.compile(rb'\{[ \t\n\r]*["}][^\x00-\x08\x0e-\x1f]*', re.DOTALL)


class Safetensors(Carrier):
    """A file of safetensors.

    Parameters
    ----------
    source : Source
        The file.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        (length,) = struct.unpack("<Q", source.head[:_LENGTH_BYTES])
        self._data_start = _LENGTH_BYTES + length
        check_size(length, source.name)
        if self._data_start > source.size:
            raise ArtifactError(
                f"{source.name} is truncated: expected a header of {length} bytes, found "
                f"{source.size - _LENGTH_BYTES}"
            )
        self._json = read_json(source, _LENGTH_BYTES, self._data_start)
        self._metadata = self._check_metadata(self._json.value.get(_METADATA, {}))
        self._names = self._check_tensors()

    @classmethod
    def find(cls, source: Source) -> Safetensors | None:
        """Recognize a length that the format allows, and an object behind it."""
        length = int.from_bytes(source.head[:_LENGTH_BYTES], "little")
        header = source.head[_LENGTH_BYTES:]
        if length > _MAX_HEADER_BYTES or not _BEGINNING.fullmatch(header[:length]):
            return None
        return cls(source)

    def artifact(self) -> Artifact:
        """Read the record and the tensors' names."""
        return Artifact(
            self._source.path,
            "safetensors",
            "file",
            self._source.size,
            Role.PARAMETERS,
            record_in(self._metadata),
            tensors=self._names,
        )

    def patch(self, record: Record | None) -> Patch:
        """Replace the header."""
        record_in(self._metadata)  # one that is malformed is not replaced unseen
        if record is not None:
            edit = self._put(record)
        elif RECORD_KEY in self._metadata:
            edit = self._remove()
        else:
            return Patch(0, 0, b"")
        text = self._json.edited(edit)
        if (len(text) - len(self._json.text)) % _ALIGNMENT:
            # Another tool has put it there, so the padding is by the format's rule.
            text = text.rstrip(" ")
            text += " " * (-len(text.encode("utf-8")) % _ALIGNMENT)
        header = text.encode("utf-8")
        check_size(len(header), self._source.name)
        return Patch(0, self._data_start, struct.pack("<Q", len(header)) + header)

    def tensors(self) -> Iterator[StoredTensor]:
        """Give the tensors with their data."""
        for name in self._names:
            tensor = self._json.value[name]
            start, end = tensor["data_offsets"]
            read = partial(self._source.pieces, self._data_start + start, end - start)
            shape = shape_of(tensor.get("shape"))
            dtype = None if shape is None else of_safetensors(tensor.get("dtype"))
            yield StoredTensor(name, dtype, shape or (), read)

    def _put(self, record: Record) -> Edit:
        value = json.dumps(str(record))
        if _METADATA in self._json.members:
            return self._json.child(_METADATA).put(RECORD_KEY, value, _ALIGNMENT)
        # Where the format's writers put it: before the tensors.
        before = f'"{_METADATA}":{{"{RECORD_KEY}":'
        behind = value + ("}," if self._json.members else "}")
        padding = " " * (-len(before + behind) % _ALIGNMENT)
        return Edit(self._json.start, self._json.start, before + padding + behind)

    def _remove(self) -> Edit:
        metadata = self._json.child(_METADATA)
        member = metadata.members[RECORD_KEY]
        if len(metadata.members) == 1 and member.gap == member.start:  # made for it: see put
            return self._json.remove(_METADATA)
        return metadata.remove(RECORD_KEY)

    def _check_metadata(self, metadata: Any) -> dict[str, str]:
        if not isinstance(metadata, dict) or not all(
            isinstance(value, str) for value in metadata.values()
        ):
            raise self._damaged(f"its {_METADATA} is {short(metadata)}, expected strings by keys")
        return metadata

    def _check_tensors(self) -> tuple[str, ...]:
        """Check that the tensors' data are all that stands behind the header."""
        tensors = [
            (*self._range(name, tensor), name)
            for name, tensor in self._json.value.items()
            if name != _METADATA
        ]
        size = self._source.size - self._data_start
        position = 0
        for start, end, name in sorted(tensors):
            if start != position:
                raise self._damaged(
                    f"the data of {short(name)} begin at byte {start}, expected {position}"
                )
            position = end
        if position != size:
            raise self._damaged(f"it has {size} bytes of data, expected {position}")
        return tensor_names([name for _, _, name in tensors], self._source.name)

    def _range(self, name: str, tensor: Any) -> tuple[int, int]:
        offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
        if isinstance(offsets, list) and len(offsets) == 2 and all(map(is_size, offsets)):
            start, end = offsets
            if start <= end:
                return start, end
        raise self._damaged(
            f"the tensor {short(name)} is {short(tensor)}, without its data_offsets"
        )

    def _damaged(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self._source.name} is damaged: {what}")
