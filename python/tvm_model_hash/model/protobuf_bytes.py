# SPDX-License-Identifier: Apache-2.0
"""The bytes that protobuf writes for a model, piece by piece.

Protobuf's own serializer needs all of them in memory, ends at 2 GiB, and takes several times as
long as SHA-256. So it only gets copies of the messages without their tensors' data, with an empty
field at the place of each part that was left out; what it wrote is cut there, and the lengths of
the messages around it are put right. That needs no knowledge of the order in which it writes
fields, or where it puts those that it does not know.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from onnx import TensorProto

from .contents import (
    Contents,
    Piece,
    RawContent,
    Source,
    children_with_tensors,
    size_of,
)
from .external import is_external
from .file import LARGE_BYTES, encode_varint

_LENGTH_DELIMITED = 2


class _SerializedTensor(Source):
    """A tensor's whole message, serialized."""

    def __init__(self, tensor: TensorProto):
        size = tensor.ByteSize()
        super().__init__(size, size)
        self._tensor = tensor

    def read(self, index: int) -> bytes:
        data: bytes = self._tensor.SerializeToString()
        return data


def serialized(model: Message, contents: Contents) -> list[Piece]:
    """Serialize a model, with the data of its tensors left where it is.

    External data takes its place in the model, as ``onnx.load`` does it, and so does what was left
    in the model's file.

    Parameters
    ----------
    model : onnx.ModelProto
        The model, which is not changed.
    contents : Contents
        The contents of its tensors.

    Returns
    -------
    pieces : list of Piece
        Joined, they are what ``SerializeToString()`` gives, or would give if it could.

    Raises
    ------
    ExternalDataError
        If any tensor's data is in a file, and not where it may be or not loaded.
    Exception
        What protobuf raises, if it can't serialize even what is left.
    """
    try:
        return _split(model, contents) or [model.SerializeToString()]
    except RecursionError:
        # Graphs within graphs, hundreds of them; protobuf's serializers in C go deeper. From a file
        # it reads none of these.
        if contents.in_files:
            raise
        return [model.SerializeToString()]


def _split(message: Message, contents: Contents) -> list[Piece] | None:
    """Serialize a message, or give None where that can be left to protobuf."""
    if isinstance(message, TensorProto):
        return _split_tensor(message, contents)
    # By the number of the field, and how many of it stand before.
    parts: dict[tuple[int, int], list[Piece]] = {}
    for number, children in children_with_tensors(message):
        for index, child in enumerate(children):
            pieces = _split(child, contents)
            if pieces is not None:
                parts[number, index] = pieces
    return _put_in(_without(message, parts), parts) if parts else None


def _split_tensor(tensor: TensorProto, contents: Contents) -> list[Piece] | None:
    if not is_external(tensor) and not tensor.HasField("raw_data"):
        return [_SerializedTensor(tensor)] if _typed_bytes(tensor) >= LARGE_BYTES else None
    content = contents.of(tensor)
    if is_external(tensor):
        rest = _copy(tensor)
        rest.data_location = TensorProto.DEFAULT
        del rest.external_data[:]
        rest.raw_data = b""
    elif not isinstance(content, RawContent):
        rest = tensor  # its data was left in the file
    elif content.size < LARGE_BYTES:
        return None
    else:
        rest = _copy_without(tensor, {"raw_data"}) or _copy(tensor)
        rest.raw_data = b""
    return _put_in(rest, {(TensorProto.RAW_DATA_FIELD_NUMBER, 0): [content]})


def _typed_bytes(tensor: TensorProto) -> int:
    """Roughly how long a tensor's data is that is not in ``raw_data``."""
    numbers = [tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data]
    count = sum(map(len, [*numbers, tensor.uint64_data]))
    return 4 * count + sum(map(len, tensor.string_data))


def _without(message: Message, parts: dict[tuple[int, int], list[Piece]]) -> Message:
    """Copy a message, with an empty one in the place of each part."""
    names = {message.DESCRIPTOR.fields_by_number[number].name for number, _ in parts}
    copy = _copy_without(message, names)
    if copy is None:  # this costs the memory of a second model
        copy = _copy(message)
        for number, children in children_with_tensors(copy):
            for index, child in enumerate(children):
                if (number, index) in parts:
                    child.Clear()
        return copy
    for name in names:
        field = message.DESCRIPTOR.fields_by_name[name]
        value = getattr(message, name)
        if isinstance(value, Message):
            getattr(copy, name).SetInParent()
            continue
        for index, child in enumerate(value):
            added = getattr(copy, name).add()
            if (field.number, index) not in parts:
                added.CopyFrom(child)
    return copy


def _copy(message: Message) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _copy_without(message: Message, names: set[str]) -> Any:
    """Copy a message without some fields; None where only a copy of everything has all else."""
    if _has_unknown_fields(message):
        return None
    copy = type(message)()
    try:
        for field in message.DESCRIPTOR.fields:
            if field.name not in names:  # of these not even looked at: a look at bytes copies them
                _copy_field(message, copy, field)
    except UnicodeDecodeError:  # protobuf gives text that is not UTF-8, and takes none
        return None
    return copy


def _copy_field(message: Message, copy: Message, field: Any) -> None:
    value = getattr(message, field.name)
    if hasattr(value, "MergeFrom") and not isinstance(value, Message):
        getattr(copy, field.name).MergeFrom(value)
    elif message.HasField(field.name):
        if isinstance(value, Message):
            getattr(copy, field.name).SetInParent()
            getattr(copy, field.name).CopyFrom(value)
        else:
            setattr(copy, field.name, value)


def _put_in(message: Message, parts: dict[tuple[int, int], list[Piece]]) -> list[Piece]:
    """Serialize a message and put parts into it in the place of empty fields."""
    data = message.SerializeToString()
    pieces: list[Piece] = []
    counts: dict[int, int] = {}
    done = position = 0
    while position < len(data):
        start = position
        tag, position = _read_varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _LENGTH_DELIMITED:
            tag_end = position
            length, position = _read_varint(data, position)
            position += length
            index = counts.get(number, 0)
            counts[number] = index + 1
            part = parts.get((number, index))
            if part is not None:
                assert not length
                size = sum(map(size_of, part))
                pieces += [data[done:start] + data[start:tag_end] + encode_varint(size), *part]
                done = position
        elif kind == 0:
            _, position = _read_varint(data, position)
        else:
            position = _skip(data, position, tag)
    if done < len(data):
        pieces.append(data[done:])
    return pieces


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _skip(data: bytes, position: int, tag: int) -> int:
    """Find the end of a field, which may be a group among those that protobuf doesn't know."""
    kind = tag & 7
    if kind == 0:
        return _read_varint(data, position)[1]
    if kind in (1, 5):
        return position + (8 if kind == 1 else 4)
    if kind == _LENGTH_DELIMITED:
        length, position = _read_varint(data, position)
        return position + length
    end = tag + 1  # a group's last tag
    while True:
        tag, position = _read_varint(data, position)
        if tag == end:
            return position
        position = _skip(data, position, tag)


def _has_unknown_fields(message: Message) -> bool:
    try:
        from google.protobuf.unknown_fields import UnknownFieldSet
    except ImportError:  # protobuf 3.20
        return len(message.UnknownFields()) > 0
    return len(UnknownFieldSet(message)) > 0
