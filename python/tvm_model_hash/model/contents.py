# SPDX-License-Identifier: Apache-2.0
"""The contents of a model's tensors, fetched piece by piece from the message or from files."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import Message
from onnx import TensorProto

from ..errors import ExternalDataError, InvalidModelError
from .digest import check_model_type
from .elements import ELEMENT_TYPES, count_elements, raw_size
from .external import ExternalFiles, FileRange, describe_tensor, is_external, load_model

#: What is in a file is read in pieces of so many bytes.
READ_BYTES = 4 << 20


class UnexpectedSizeError(InvalidModelError):
    """A tensor's raw data is not of the size that its type and shape ask for."""


class Content:
    """The bytes of one tensor.

    Parameters
    ----------
    source : object
        The message, or the part of a file.
    size : int
        How many bytes there are.
    piece_bytes : int
        They come in pieces of so many bytes.
    """

    #: The bits of the last byte that belong to an element.
    mask = 0xFF

    def __init__(self, source: Any, size: int, piece_bytes: int):
        self.source = source
        self.size = size
        self.piece_bytes = piece_bytes

    def __len__(self) -> int:
        return -(-self.size // self.piece_bytes) if self.size else 0

    def read(self, index: int) -> bytes:
        """Fetch a piece.

        Parameters
        ----------
        index : int
            Which one, from 0 on.

        Returns
        -------
        data : bytes

        Raises
        ------
        ModelHashError
            If it cannot be read, or is not of the size that was expected.
        """
        raise NotImplementedError

    def sha256(self) -> bytes:
        """Hash the bytes, with those bits cleared that belong to no element."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            digest.update(self.masked(index, self.read(index)))
        return digest.digest()

    def masked(self, index: int, data: bytes) -> bytes:
        """Clear the bits of a piece that belong to no element, for the canonical form."""
        if self.mask == 0xFF or index < len(self) - 1:
            return data
        return data[:-1] + bytes([data[-1] & self.mask])


class RawContent(Content):
    """``raw_data`` of a tensor's message; each look at it is a copy, so it is fetched whole."""

    def __init__(self, tensor: TensorProto, size: int):
        super().__init__(tensor, size, max(size, 1))

    def read(self, index: int) -> bytes:  # noqa: D102
        data: bytes = self.source.raw_data
        if len(data) != self.size:
            raise UnexpectedSizeError(
                f"{describe_tensor(self.source)} holds {len(data)} bytes, expected {self.size} "
                "for its type and shape"
            )
        return data


class SerializedContent(Content):
    """A tensor's whole message, serialized."""

    def __init__(self, tensor: TensorProto):
        size = tensor.ByteSize()
        super().__init__(tensor, size, max(size, 1))

    def read(self, index: int) -> bytes:  # noqa: D102
        data: bytes = self.source.SerializeToString()
        return data


class FileContent(Content):
    """A tensor's data in a file."""

    def __init__(self, source: FileRange):
        super().__init__(source, source.size, READ_BYTES)

    def read(self, index: int) -> bytes:  # noqa: D102
        start = index * READ_BYTES
        data: bytes = self.source.read(start, min(READ_BYTES, self.size - start))
        return data


class Contents:
    """The contents of a model's tensors. Who asks twice for a tensor's gets the same object.

    Parameters
    ----------
    files : ExternalFiles, optional
        Where external data is, if it may be read.
    measured : bool
        Whether raw data is measured, which costs a copy of it; else it is taken to be of the size
        that type and shape ask for, and :class:`UnexpectedSizeError` is raised when it is fetched
        and is not.
    """

    def __init__(self, files: ExternalFiles | None = None, measured: bool = False):
        self.files = files
        self._measured = measured
        # By the identity of the message, which the content keeps alive.
        self._contents: dict[int, tuple[TensorProto, Content]] = {}

    def of(self, tensor: TensorProto) -> Content:
        """Find the content of a tensor that is external or has ``raw_data``.

        Parameters
        ----------
        tensor : onnx.TensorProto
            The tensor, as it stands in the model.

        Returns
        -------
        content : Content

        Raises
        ------
        ExternalDataError
            If it is in a file, and not where it may be, or the model was given without files.
        """
        if id(tensor) not in self._contents:
            content = self._find(tensor)
            element, count = ELEMENT_TYPES.get(tensor.data_type), count_elements(tensor.dims)
            if element and count and count * element.bits % 8:
                content.mask = (1 << count * element.bits % 8) - 1
            self._contents[id(tensor)] = tensor, content
        return self._contents[id(tensor)][1]

    def _find(self, tensor: TensorProto) -> Content:
        if is_external(tensor):
            if self.files is None:
                raise ExternalDataError(
                    f"the data of {describe_tensor(tensor)} is in a file and was not loaded, so it "
                    "cannot be hashed: load the model with onnx.load(path), or give its path"
                )
            return FileContent(self.files.find(tensor))
        size = None if self._measured else raw_size(tensor)
        return RawContent(tensor, len(tensor.raw_data) if size is None else size)


def open_model(
    model: onnx.ModelProto | str | os.PathLike[str], measured: bool = False
) -> tuple[onnx.ModelProto, Contents]:
    """Prepare a model to be read.

    Parameters
    ----------
    model : onnx.ModelProto, str or os.PathLike
        A model, which is not changed, or the path of its file.
    measured : bool
        As in :class:`Contents`.

    Returns
    -------
    proto : onnx.ModelProto
        The model; of a file, without its external data.
    contents : Contents
        The contents of its tensors.

    Raises
    ------
    ModelTypeError
        If it is neither.
    ModelFileError
        If the file cannot be read, or holds no model.
    ExternalDataError
        If the data of any tensor, used or not, is outside of the model and was not loaded; or, of
        a path, is not where it may be.
    """
    files = None
    if isinstance(model, (str, os.PathLike)):
        model, files = load_model(model)
    check_model_type(model)
    contents = Contents(files, measured)
    for tensor in tensors(model):
        if is_external(tensor):
            contents.of(tensor)
    return model, contents


def tensors(message: Message) -> Iterator[TensorProto]:
    """Find all tensors of a message, wherever they stand."""
    pending = [message]
    while pending:
        message = pending.pop()
        if isinstance(message, TensorProto):
            yield message
            continue
        for _, children in tensor_fields(message):
            pending += children


def tensor_fields(message: Message) -> Iterator[tuple[int, Any]]:
    """Give the number and the messages of each field that is set and may hold tensors."""
    for number, name, is_repeated in _tensor_field_names(message.DESCRIPTOR):
        if is_repeated:
            yield number, getattr(message, name)
        elif message.HasField(name):
            yield number, [getattr(message, name)]


@functools.cache
def _tensor_field_names(descriptor: Any) -> list[tuple[int, str, bool]]:
    return [
        (field.number, field.name, not field.has_presence)  # in proto2, all but repeated ones
        for field in descriptor.fields
        if field.message_type is not None and _may_hold_tensors(field.message_type)
    ]


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
