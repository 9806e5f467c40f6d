# SPDX-License-Identifier: Apache-2.0
"""The contents of a model's tensors, fetched piece by piece from the message or from files."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import onnx
from google.protobuf.message import Message
from onnx import TensorProto

from ..errors import ExternalDataError, InvalidModelError, ModelTypeError
from .elements import ELEMENT_TYPES, TYPED_FIELDS, raw_size
from .external import ExternalFiles, FileRange, describe_tensor, is_external
from .file import LARGE_BYTES, load_model, tensor_fields

# What is in a file is read in pieces of so many bytes, which the caches of a processor hold.
_READ_BYTES = 1 << 20


class UnexpectedSizeError(InvalidModelError):
    """A tensor's raw data is not of the size that its type and shape ask for."""


class Source:
    """Bytes that are fetched in pieces.

    Parameters
    ----------
    size : int
        How many there are.
    piece_bytes : int
        How many are in each piece but the last one.
    """

    def __init__(self, size: int, piece_bytes: int):
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


#: A part of a stream.
Piece: TypeAlias = bytes | Source


class Content(Source):
    """The bytes of one tensor, and their digest.

    Parameters
    ----------
    tensor : onnx.TensorProto
        The tensor, whose type and shape tell which bits of the last byte mean nothing.
    size, piece_bytes : int
        As in :class:`Source`.
    """

    def __init__(self, tensor: TensorProto, size: int, piece_bytes: int):
        super().__init__(size, piece_bytes)
        self._tensor = tensor
        self._hash: Any = None
        self._digest: bytes | None = None

    def feed(self, index: int, data: bytes) -> None:
        """Tell of a piece that was fetched, so that it need not be fetched for the digest again.

        Parameters
        ----------
        index : int
            Which one it is. They have to come one after the other, from 0 on.
        data : bytes
            What :meth:`read` gave.
        """
        if index == 0:
            self._hash = hashlib.sha256()
        if index < len(self) - 1:
            self._hash.update(data)
            return
        mask = _last_byte_mask(self._tensor)
        if mask == 0xFF:
            self._hash.update(data)
        else:
            self._hash.update(memoryview(data)[:-1])
            self._hash.update(bytes([data[-1] & mask]))
        self._digest, self._hash = self._hash.digest(), None

    def sha256(self) -> bytes:
        """Give the digest of the content, and fetch the content for it unless it was fed.

        Returns
        -------
        digest : bytes
            The 32 bytes of the SHA-256 of the bytes, in which unused bits of the last one are 0.

        Raises
        ------
        ModelHashError
            If it cannot be read, or is not of the size that was expected.
        """
        if self._digest is None:
            for index in range(len(self)):
                self.feed(index, self.read(index))
        return self._digest or hashlib.sha256().digest()


class RawContent(Content):
    """``raw_data`` of a tensor's message; each look at it is a copy, so it is fetched whole."""

    def __init__(self, tensor: TensorProto, size: int):
        super().__init__(tensor, size, max(size, 1))

    def read(self, index: int) -> bytes:  # noqa: D102
        data: bytes = self._tensor.raw_data
        if len(data) != self.size:
            raise UnexpectedSizeError(
                f"{describe_tensor(self._tensor)} holds {len(data)} bytes, expected {self.size} "
                "for its type and shape"
            )
        return data


class FileContent(Content):
    """A tensor's data in a file: in the model's own, or in one beside it."""

    def __init__(self, tensor: TensorProto, source: FileRange):
        super().__init__(tensor, source.size, _READ_BYTES)
        self._source = source

    def read(self, index: int) -> bytes:  # noqa: D102
        start = index * self.piece_bytes
        return self._source.read(start, min(self.piece_bytes, self.size - start))


class Contents:
    """The contents of a model's tensors.

    Parameters
    ----------
    files : ExternalFiles, optional
        Where external data is, if it may be read.
    ranges : iterable of (onnx.TensorProto, FileRange)
        Tensors whose ``raw_data`` was left in the model's file, and where it is there.
    measured : bool
        Whether raw data is measured, which costs a copy of it; else it is taken to be of the size
        that type and shape ask for, and :class:`UnexpectedSizeError` is raised when it is fetched
        and is not.
    """

    def __init__(
        self,
        files: ExternalFiles | None = None,
        ranges: Iterable[tuple[TensorProto, FileRange]] = (),
        measured: bool = False,
    ):
        self.measured = measured
        self._files = files
        # By the identity of the message, which is kept alive for it.
        self._contents: dict[int, tuple[TensorProto, Content]] = {
            id(tensor): (tensor, FileContent(tensor, source))
            for tensor, source in ranges
            if not is_external(tensor)
        }

    @property
    def in_files(self) -> bool:
        """Whether contents may be in files, so that the model alone is not all of it."""
        return self._files is not None

    def of(self, tensor: TensorProto) -> Content:
        """Find the content of a tensor that is external or has ``raw_data``.

        Parameters
        ----------
        tensor : onnx.TensorProto
            The tensor, as it stands in the model.

        Returns
        -------
        content : Content
            Always the same object, unless it is small.

        Raises
        ------
        ExternalDataError
            If it is in a file, and not where it may be, or the model was given without files.
        """
        if id(tensor) in self._contents:
            return self._contents[id(tensor)][1]
        content = self._find(tensor)
        # Of the small ones a model may have a million.
        if content.size >= LARGE_BYTES or is_external(tensor):
            self._contents[id(tensor)] = tensor, content
        return content

    def _find(self, tensor: TensorProto) -> Content:
        if is_external(tensor):
            if self._files is None:
                raise _not_loaded(tensor)
            return FileContent(tensor, self._files.find(tensor))
        # A look at raw_data is a copy of it. But one that should be empty would not be fetched.
        size = None if self.measured else raw_size(tensor) or None
        return RawContent(tensor, len(tensor.raw_data) if size is None else size)


def _not_loaded(tensor: TensorProto) -> ExternalDataError:
    where = f"the data of {describe_tensor(tensor)}"
    if any(len(getattr(tensor, name)) for name in ("raw_data", *TYPED_FIELDS)):
        # As load_external_data_for_tensor of onnx 1.17 and convert_model_to_external_data leave it.
        return ExternalDataError(
            f"{where} is in the model, and it is marked as being in a file, so that readers differ "
            "in which of the two counts. If it is what is in the model, say so for each such "
            "tensor: tensor.data_location = onnx.TensorProto.DEFAULT; del tensor.external_data[:]. "
            "If it is the file, load the model with onnx.load(path)"
        )
    return ExternalDataError(
        f"{where} is in a file and was not loaded, so it cannot be hashed: load the model with "
        "onnx.load(path), or what is missing in it with onnx.load_external_data_for_model(model, "
        "directory of the model's file). A tensor that these leave out, of a sparse tensor or of a "
        "default of a function's attribute, is loaded with "
        "onnx.external_data_helper.load_external_data_for_tensor(tensor, directory)"
    )


def open_model(
    model: onnx.ModelProto | str | os.PathLike[str], measured: bool = False
) -> tuple[onnx.ModelProto, Contents]:
    """Prepare a model to be read.

    Parameters
    ----------
    model : onnx.ModelProto, str or os.PathLike
        A model, which is not changed, or the path of its file.
    measured : bool
        As in :class:`Contents`. Of a path what is still in the message is small, and measured.

    Returns
    -------
    proto : onnx.ModelProto
        The model; of a file, without what ``contents`` has of it.
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
    if isinstance(model, (str, os.PathLike)):
        model, ranges, files = load_model(model)
        contents = Contents(files, ranges, measured=True)
    else:
        check_model_type(model)
        contents = Contents(measured=measured)
    for tensor in tensors(model):
        if is_external(tensor):
            contents.of(tensor)
    return model, contents


def check_model_type(model: object) -> None:
    """Check that a value is a model.

    Parameters
    ----------
    model : object
        What is to be an ``onnx.ModelProto``.

    Raises
    ------
    ModelTypeError
        If it is something else.
    """
    if not isinstance(model, onnx.ModelProto):
        descriptor = getattr(model, "DESCRIPTOR", None)
        found = getattr(descriptor, "full_name", None) or type(model).__name__
        raise ModelTypeError(
            f"expected an onnx.ModelProto to hash, found {found}: load the model with "
            "onnx.load(path) first"
        )


def tensors(message: Message) -> Iterator[TensorProto]:
    """Find all tensors of a message, wherever they stand."""
    pending = [message]
    while pending:
        message = pending.pop()
        if isinstance(message, TensorProto):
            yield message
            continue
        for _, children in children_with_tensors(message):
            pending += children


def children_with_tensors(message: Message) -> Iterator[tuple[int, Iterable[Message]]]:
    """Give the number and the messages of each field that is set and may hold tensors."""
    for field in tensor_fields(message.DESCRIPTOR).values():
        if field.is_repeated:
            yield field.number, getattr(message, field.name)
        elif message.HasField(field.name):
            yield field.number, [getattr(message, field.name)]


def _last_byte_mask(tensor: TensorProto) -> int:
    """Give the bits of the last byte that belong to an element."""
    element = ELEMENT_TYPES.get(tensor.data_type)
    if element is None or element.bits % 8 == 0:
        return 0xFF
    used = functools.reduce(lambda bits, size: bits * size % 8, tensor.dims, element.bits)
    return (1 << used) - 1 if used else 0xFF


def size_of(piece: Piece) -> int:
    """Tell how many bytes a part of a stream has."""
    return piece.size if isinstance(piece, Source) else len(piece)
