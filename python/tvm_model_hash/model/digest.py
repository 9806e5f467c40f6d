# SPDX-License-Identifier: Apache-2.0
"""The digests of an ONNX model."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from ..boundary import reads
from ..errors import ModelFileError, ModelHashError, ModelSerializationError
from ..files import is_url, name_of, one_version
from ..progress import hashing
from ..record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

    from .canonical import Part
    from .contents import Contents, Piece


def model_hash(model: onnx.ModelProto) -> str:
    """Hash a model: the SHA-256 of its serialized form.

    For a file that protobuf wrote this equals ``sha256sum`` of the file.

    Parameters
    ----------
    model : onnx.ModelProto
        The model as it is; it is not changed.

    Returns
    -------
    model_hash : str
        64 lowercase hexadecimal digits.

    Raises
    ------
    ModelTypeError
        If the model is not an ``onnx.ModelProto``.
    ExternalDataError
        If a tensor's data is outside of the model and was not loaded.
    ModelSerializationError
        If protobuf cannot serialize the model, even without the data of its tensors.
    """
    from .contents import check_model_type

    check_model_type(model)  # a path is not one
    return _digest(model, with_canonical=False).model


@one_version()
@reads(ModelFileError)
def model_record(model: onnx.ModelProto | str | os.PathLike[str]) -> Record:
    """Take all three digests of a model: ``model``, ``graph`` and ``weights``.

    FORMAT.md states what they cover.

    Parameters
    ----------
    model : onnx.ModelProto, str or os.PathLike
        The model as it is, which is not changed; or the path or URL of a ``.onnx`` file, whose
        external data is read too. Then ``model`` is the hash of what ``onnx.load(path)`` returns.

    Returns
    -------
    record : Record
        The digests.

    Raises
    ------
    ModelTypeError
        If the model is neither.
    ModelFileError
        If the file cannot be read, or holds no model.
    ModelSerializationError
        If protobuf cannot serialize the model, even without the data of its tensors.
    InvalidModelError
        If the model contradicts itself, so that it has no canonical form.
    ExternalDataError
        If a tensor's data is outside of the model and was not loaded; or, of a path, is not
        where it may be: in a regular file below the directory of the model.
    """
    return _digest(model, with_canonical=True)


def _digest(model: onnx.ModelProto | str | os.PathLike[str], with_canonical: bool) -> Record:
    from .contents import Contents, UnexpectedSizeError, open_model

    proto, contents = open_model(model)
    path = os.fsdecode(model) if isinstance(model, (str, os.PathLike)) else "model"
    try:
        return _hash(proto, contents, with_canonical, path)
    except (UnexpectedSizeError, ModelSerializationError):
        # Raw data is not of the size that type and shape ask for. If the tensor is unused, that
        # is no error.
        if contents.measured:
            raise
        return _hash(proto, Contents(measured=True), with_canonical, path)


def _hash(proto: onnx.ModelProto, contents: Contents, with_canonical: bool, path: str) -> Record:
    from .contents import size_of
    from .hashing import hash_stream

    pieces = _serialized(proto, contents)
    with hashing(sum(map(size_of, pieces)), name_of(path), is_url(path)) as progress:
        model = hash_stream(pieces, with_canonical, progress)
    if not with_canonical:
        return Record(model)

    from .canonical import CanonicalModel

    # Of contents these hold the digests only, which are known by now.
    canonical = CanonicalModel(proto, contents)
    return Record(model, _hash_parts(canonical.graph()), _hash_parts(canonical.weights()))


def _hash_parts(parts: Iterable[Part]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.data)
    return digest.hexdigest()


def _serialized(proto: onnx.ModelProto, contents: Contents) -> list[Piece]:
    from .protobuf_bytes import serialized

    try:
        return serialized(proto, contents)
    except ModelHashError:
        raise
    except Exception as error:  # protobuf's back ends raise different types here
        raise ModelSerializationError(
            f"the model cannot be serialized ({type(error).__name__}: {error}). If it is over "
            "protobuf's limit of 2 GiB even without the data of its tensors, keep less in the "
            "attributes of its nodes"
        ) from error
