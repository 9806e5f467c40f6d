# SPDX-License-Identifier: Apache-2.0
"""A model's file, read without the data of its large tensors.

Protobuf would take a model of 1 GB twice into memory, and one of over 2 GiB not at all. So the file
is walked field by field here; protobuf gets it with an empty ``raw_data`` in each large tensor, and
of what was left out it is known where in the file it lies. Everything that is not left out reaches
protobuf as it stands, so that the result is the same as that of ``onnx.load``.
"""

from __future__ import annotations

import codecs
import functools
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import onnx
from google.protobuf.message import Message
from onnx import TensorProto

from .. import limits
from ..boundary import reads
from ..errors import ArtifactError, ModelFileError, RemoteError
from ..files import FileState, directory_of, is_url, open_regular, state_of
from .external import ExternalFiles, FileRange, FileVersion

#: Less data than this in ``raw_data`` is left to protobuf.
LARGE_BYTES = 4096

# The file is looked at through a window of so many bytes: small, because the next tensor's head may
# lie behind a tensor's data.
_WINDOW_BYTES = 8192

_MAX_VARINT_BYTES = 10
_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}

_RAW_DATA = TensorProto.RAW_DATA_FIELD_NUMBER


class LoadedModel(NamedTuple):
    """A model that was read from a file.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model without its external data, and with an empty ``raw_data`` in large tensors.
    ranges : list of (onnx.TensorProto, FileRange)
        These tensors, and where their data lies.
    files : ExternalFiles
        Where its external data lies.
    """

    proto: onnx.ModelProto
    ranges: list[tuple[TensorProto, FileRange]]
    files: ExternalFiles


@reads(ModelFileError)
def load_model(path: str | os.PathLike[str]) -> LoadedModel:
    """Read a model's file, without the data of large tensors.

    Parameters
    ----------
    path : str or os.PathLike
        The file or its URL, in protobuf's binary format whatever its name is.

    Returns
    -------
    loaded : LoadedModel
        The model, and where the rest of it lies.

    Raises
    ------
    ModelFileError
        If the file cannot be read, changes while it is read, or holds no model.
    RemoteError
        If it cannot be read where a URL says that it is, or changes there.
    """
    path = os.fsdecode(path)
    path = path if is_url(path) else os.path.abspath(path)
    failed = functools.partial(_error, path)
    try:
        with open_regular(path) as file:
            real = path if is_url(path) else os.path.realpath(path)
            version = FileVersion(real, state_of(file))
            proto, found = _parse(file, path, version.size)
            if state_of(file) != version.state:
                raise failed("changed while it was read")
            # The path without links has to be that of what was opened: beside it may lie more.
            if not is_url(path) and FileState.of(os.lstat(real)) != version.state:
                raise failed("was replaced while it was read")
    except (OSError, ArtifactError) as error:
        message = (
            str(error) if isinstance(error, ArtifactError) else f"cannot read {path!r}: {error}"
        )
        raise ModelFileError(message) from error
    ranges = [
        (tensor, FileRange(version, start, size, failed))
        for tensor, start, size in _left_out(proto, found)
    ]
    if is_url(path):
        return LoadedModel(proto, ranges, ExternalFiles(directory_of(path)))
    store = os.path.dirname(version.path) if os.path.islink(path) else None
    return LoadedModel(proto, ranges, ExternalFiles(os.path.dirname(path), store))


class TensorField(NamedTuple):
    """A field of a message in which tensors may stand.

    Parameters
    ----------
    number : int
        Its number.
    name : str
        Its name.
    message : descriptor
        What stands in it: a tensor, or a message with such a field.
    is_repeated : bool
        Whether it may stand several times.
    """

    number: int
    name: str
    message: Any
    is_repeated: bool


@functools.cache
def tensor_fields(descriptor: Any) -> dict[int, TensorField]:
    """Find the fields of a message in which tensors may stand.

    Parameters
    ----------
    descriptor : descriptor
        The message's; a tensor has no such field.

    Returns
    -------
    fields : dict of int to TensorField
        By their numbers.
    """
    return {
        # In proto2, all but repeated fields have presence.
        field.number: TensorField(
            field.number, field.name, field.message_type, not field.has_presence
        )
        for field in descriptor.fields
        if field.message_type is not None and _may_hold_tensors(field.message_type)
    }


def _may_hold_tensors(descriptor: Any) -> bool:
    pending, seen = [descriptor], {descriptor.full_name}
    while pending:
        descriptor = pending.pop()
        if descriptor.full_name == TensorProto.DESCRIPTOR.full_name:
            return True
        for field in descriptor.fields:
            inner = field.message_type
            if inner is not None and inner.full_name not in seen:
                seen.add(inner.full_name)
                pending.append(inner)
    return False


class _Unusual(Exception):  # noqa: N818
    """Protobuf has to say what this encoding means, if it means anything."""


class _CutOff(Exception):  # noqa: N818
    """A field is said to be longer than the message around it."""


class _TooLarge(Exception):  # noqa: N818
    """There is more for protobuf than it reads."""


class _Found:
    """What was found in a message: the data that was left out, there and in the messages in it."""

    __slots__ = ("children", "counts", "data")  # there may be one for each of a million tensors

    def __init__(self) -> None:
        #: Where ``raw_data`` of a tensor lies, if that is large.
        self.data: tuple[int, int] | None = None
        #: How many of a repeated field there were, by its number.
        self.counts: dict[int, int] = {}
        #: By field, and how many of it stand before.
        self.children: dict[tuple[TensorField, int], _Found] = {}


class _Walk:
    """A walk over the wire format of a model's file.

    Parameters
    ----------
    file : file object
        The file.
    size : int
        How many bytes it has.
    """

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self._window, self._window_start = b"", 0
        self._fields = 0

    def model(self) -> tuple[bytes, _Found]:
        """Walk over the whole file, and give what is left of it."""
        found = _Found()
        left = self._message(onnx.ModelProto.DESCRIPTOR, found, 0, self._size, 1)
        if left is None:
            left = bytearray()
            self._keep(left, 0, self._size)
        return bytes(left), found

    def _message(
        self, descriptor: Any, found: _Found, start: int, end: int, depth: int
    ) -> bytearray | None:
        """Walk over a message, and give what is left of it; None if that is all of it."""
        if depth > limits.MESSAGE_DEPTH:
            raise _Unusual
        fields = tensor_fields(descriptor)
        is_tensor = descriptor is TensorProto.DESCRIPTOR
        left = bytearray()
        copied = position = start
        while position < end:
            field_start = position
            self._fields += 1
            if self._fields > limits.MODEL_FIELDS:
                raise _Unusual  # which takes too long here
            tag, tag_end, data_start, position = self._field_at(field_start, end)
            number = tag >> 3
            if data_start is None or not (number in fields or (is_tensor and number == _RAW_DATA)):
                continue
            if tag_end - field_start != len(encode_varint(tag)):
                raise _Unusual  # read by some of protobuf's back ends only
            if is_tensor:
                inner = self._raw_data(found, data_start, position)
            else:
                inner = self._child(fields[number], found, data_start, position, depth)
            if inner is not None:
                self._keep(left, copied, field_start)
                left += encode_varint(tag) + encode_varint(len(inner))
                _check_size(len(left) + len(inner))
                left += inner
                copied = position
        if copied == start:
            return None
        self._keep(left, copied, end)
        return left

    def _field_at(self, start: int, end: int) -> tuple[int, int, int | None, int]:
        """Find a field's tag, where that ends, where data of some length begins, and the end."""
        tag, tag_end = self._varint(start, end)
        if not tag >> 3:
            raise _Unusual  # no field has this number
        kind = tag & 7
        data_start = None
        if kind == _LENGTH_DELIMITED:
            length, data_start = self._varint(tag_end, end)
            if data_start - tag_end > 5 and not length >> 35:
                raise _Unusual  # as above
            stop = data_start + length
        elif kind == _VARINT:
            _, stop = self._varint(tag_end, end)
        elif kind in _FIXED_BYTES:
            stop = tag_end + _FIXED_BYTES[kind]
        else:
            raise _Unusual  # a group, or nothing
        if stop > end:
            raise _CutOff
        return tag, tag_end, data_start, stop

    def _raw_data(self, found: _Found, start: int, end: int) -> bytearray | None:
        # Where it stands twice the last one counts.
        found.data = (start, end - start) if end - start >= LARGE_BYTES else None
        return bytearray() if found.data else None

    def _child(
        self, field: TensorField, found: _Found, start: int, end: int, depth: int
    ) -> bytearray | None:
        index = 0
        if field.is_repeated:
            index = found.counts.get(field.number, 0)
            found.counts[field.number] = index + 1
            if end - start < LARGE_BYTES:
                return None
        # A message that may stand once and stands twice is merged: what is counted there goes on.
        child = found.children.setdefault((field, index), _Found())
        return self._message(field.message, child, start, end, depth + 1)

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        offset = position - self._window_start
        if not 0 <= offset <= len(self._window) - _MAX_VARINT_BYTES:
            self._window, self._window_start = (
                self._read(position, position + _WINDOW_BYTES),
                position,
            )
            offset = 0
        if position < end and self._window and self._window[offset] < 0x80:  # most are one byte
            return self._window[offset], position + 1
        available = min(len(self._window) - offset, end - position, _MAX_VARINT_BYTES)
        value = 0
        for count in range(available):
            byte = self._window[offset + count]
            value |= (byte & 0x7F) << 7 * count
            if byte < 0x80:
                return value, position + count + 1
        raise _Unusual if available == _MAX_VARINT_BYTES else _CutOff

    def _keep(self, left: bytearray, start: int, end: int) -> None:
        _check_size(len(left) + end - start)
        left += self._read(start, end)

    def _read(self, start: int, end: int) -> bytes:
        offset = start - self._window_start
        if offset >= 0 and end - self._window_start <= len(self._window):
            return self._window[offset : end - self._window_start]
        self._file.seek(start)
        return self._file.read(end - start)


def _check_size(size: int) -> None:
    if size > limits.MODEL_BYTES:
        raise _TooLarge


def encode_varint(value: int) -> bytes:
    """Write a number as protobuf does.

    Parameters
    ----------
    value : int
        A number from 0 on.

    Returns
    -------
    data : bytes
        One byte for each 7 bits.
    """
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _parse(file: BinaryIO, path: str, size: int) -> tuple[onnx.ModelProto, _Found]:
    try:
        try:
            data, found = _Walk(file, size).model()
        except _Unusual:
            _check_size(size)
            file.seek(0)
            data, found = file.read(size), _Found()
        proto = onnx.ModelProto.FromString(data)
    except (OSError, MemoryError, RemoteError):
        raise
    except _TooLarge as error:
        problem = (
            "or holds too much for protobuf: beside the raw data of large tensors it has more than "
            f"{limits.MODEL_BYTES} bytes. Keep the tensors' data in raw_data, or in files"
        )
        raise _no_model(file, path, problem) from error
    except _CutOff as error:
        raise _no_model(file, path, "it ends within a field: is it cut off?") from error
    except Exception as error:  # protobuf's back ends raise different types
        problem = f"it cannot be parsed ({type(error).__name__}: {error})"
        raise _no_model(file, path, problem) from error
    if not proto.HasField("graph"):
        raise _no_model(file, path, "it has no graph")
    return proto, found


def _left_out(message: Message, found: _Found) -> Iterator[tuple[TensorProto, int, int]]:
    if found.data is not None:
        assert isinstance(message, TensorProto)
        yield message, *found.data
    for (field, index), child in found.children.items():
        value = getattr(message, field.name)
        yield from _left_out(value[index] if field.is_repeated else value, child)


def _no_model(file: BinaryIO, path: str, problem: str) -> ModelFileError:
    file.seek(0)
    try:
        # What may be cut off is the last character.
        head = codecs.getincrementaldecoder("utf-8")().decode(file.read(512))
    except (OSError, UnicodeDecodeError):
        head = ""
    if head and all(character.isprintable() or character in "\t\r\n" for character in head):
        problem = (
            "it is text, expected protobuf's binary format: load it with onnx.load(path) and pass "
            "that, or save that with onnx.save(model, 'model.onnx')"
        )
    return ModelFileError(f"{path!r} is not an ONNX model, {problem}")


def _error(path: str, problem: str) -> ModelFileError:
    return ModelFileError(f"{path!r} {problem}")
