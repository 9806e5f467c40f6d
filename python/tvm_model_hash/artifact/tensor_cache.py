# SPDX-License-Identifier: Apache-2.0
"""A tensor cache: ``tensor-cache.json``, of older TVMs ``ndarray-cache.json``, and its shards.

It is what ``tvm.contrib.tvmjs`` writes, for MLC LLM and the web. The record stands in the object
``metadata``, which its loaders hand on. The shards beside it hold the tensors and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from .. import limits
from ..errors import ArtifactError
from ..files import directory_of, join, open_regular, regular_size
from ..record import Record
from .carrier import Artifact, Carrier, Patch, Role, Source, StoredTensor
from .json_text import (
    RECORD_KEY,
    JsonObject,
    begins_as_object,
    first_key,
    is_size,
    read_json,
    record_in,
    replaced,
    short,
)
from .tensor_names import check_count, tensor_names
from .tensor_types import of_numpy, shape_of

_METADATA, _RECORDS = "metadata", "records"


class TensorCache(Carrier):
    """A tensor cache.

    Parameters
    ----------
    source : Source
        The JSON file.
    found : JsonObject
        Its content.
    """

    def __init__(self, source: Source, found: JsonObject) -> None:
        self._source = source
        self._json = found
        names: list[str] = []
        shards: list[str] = []
        if len(found.value[_RECORDS]) > limits.SHARDS:
            raise self._damaged(
                f"it has {len(found.value[_RECORDS])} shards, more than the limit of "
                f"{limits.SHARDS}"
            )
        for shard in found.value[_RECORDS]:
            shards.append(self._check_shard(shard))
            names += (self._check_tensor(tensor, shard) for tensor in shard[_RECORDS])
        check_count(len(names), source.name)
        self._names = tensor_names(names, source.name)
        self._shards = tuple(shards)
        if len(set(shards)) != len(shards):
            raise self._damaged("it names a shard twice")

    @classmethod
    def find(cls, source: Source) -> TensorCache | None:
        """Recognize JSON with metadata and a list of shards."""
        is_likely = first_key(source) in (_METADATA, _RECORDS)
        if not is_likely and not begins_as_object(source):
            return None
        try:
            found = read_json(source)
        except ArtifactError:
            if is_likely:
                raise
            return None  # any other file may begin so
        records = found.value.get(_RECORDS)
        if not isinstance(found.value.get(_METADATA), dict) or not isinstance(records, list):
            return None
        if not all(isinstance(shard, dict) and "dataPath" in shard for shard in records):
            return None
        return cls(source, found)

    def artifact(self) -> Artifact:
        """Read the record, the tensors' names and the names of the shards."""
        return Artifact(
            self._source.path,
            "tensor cache",
            "file",
            self._source.size,
            Role.PARAMETERS,
            record_in(self._json.value[_METADATA]),
            tensors=self._names,
            files=self._shards,
        )

    def patch(self, record: Record | None) -> Patch:
        """Replace, add or remove the key in the metadata."""
        metadata = self._json.child(_METADATA)
        record_in(metadata.value)  # one that is malformed is not replaced unseen
        if record is not None:
            edit = metadata.put(RECORD_KEY, json.dumps(str(record)))
        elif RECORD_KEY in metadata.members:
            edit = metadata.remove(RECORD_KEY)
        else:
            return Patch(0, 0, b"")
        return replaced(self._source, metadata.edited(edit))

    def tensors(self) -> Iterator[StoredTensor]:
        """Give the tensors with their data, which lie in the shards."""
        for shard in self._json.value[_RECORDS]:
            path = join(directory_of(self._source.path), shard["dataPath"])
            with open_regular(path) as file:
                source = Source(path, file)
                for tensor in shard[_RECORDS]:
                    shape = shape_of(tensor.get("shape"))
                    # What is stored in another type, f32-to-bf16, is no copy.
                    is_raw = tensor.get("format", "raw") == "raw" and shape is not None
                    dtype = of_numpy(tensor.get("dtype")) if is_raw else None
                    read = partial(source.pieces, tensor["byteOffset"], tensor["nbytes"])
                    yield StoredTensor(tensor["name"], dtype, shape or (), read)

    def _check_shard(self, shard: dict[str, Any]) -> str:
        """Check that a shard is there, as large as it is said to be; its name."""
        name, size = shard["dataPath"], shard.get("nbytes")
        # TVM's loaders join any path; a cache whose weights lie elsewhere is not one to check.
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise self._damaged(f"a shard is {short(name)}, expected the name of a file beside it")
        if shard.get("format") != "raw-shard":
            raise self._damaged(
                f"the shard {short(name)} has the format {short(shard.get('format'))}, expected "
                "'raw-shard'"
            )
        if not is_size(size) or not isinstance(shard.get(_RECORDS), list):
            raise self._damaged(f"the shard {short(name)} has no size, or no list of tensors")
        path = join(directory_of(self._source.path), name)
        try:
            found = regular_size(path)
        except ArtifactError as error:
            reason = str(error).rpartition(": ")[2]  # without the path, which may be long
            raise ArtifactError(
                f"{self._source.name} is incomplete: cannot read its shard {short(path)}: {reason}"
            ) from error
        if found != size:
            raise ArtifactError(
                f"the shard {path!r} of {self._source.name} is not the file it is said to be: "
                f"expected a regular file of {size} bytes, found {found}"
            )
        return name

    def _check_tensor(self, tensor: Any, shard: dict[str, Any]) -> str:
        """Check that a tensor lies within its shard; its name."""
        fields = tensor if isinstance(tensor, dict) else {}
        name, offset, size = fields.get("name"), fields.get("byteOffset"), fields.get("nbytes")
        if not isinstance(name, str) or not is_size(offset) or not is_size(size):
            raise self._damaged(f"a tensor is {short(tensor)}, without its name, offset or size")
        if offset + size > shard["nbytes"]:
            raise self._damaged(
                f"the tensor {short(name)} ends at byte {offset + size} of the shard "
                f"{short(shard['dataPath'])}, which has {shard['nbytes']}"
            )
        return name

    def _damaged(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self._source.name} is damaged: {what}")
