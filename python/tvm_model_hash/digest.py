# SPDX-License-Identifier: Apache-2.0
"""The digests of an ONNX model."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from .errors import ModelSerializationError, ModelTypeError
from .record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

    from .canonical import Part


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
    ModelSerializationError
        If protobuf cannot serialize the model, which it cannot from 2 GiB on.
    """
    check_model_type(model)
    try:
        data = model.SerializeToString()
    except Exception as error:  # protobuf's back ends raise different types here
        raise ModelSerializationError(
            f"the model cannot be serialized ({type(error).__name__}: {error}). If it is over "
            "protobuf's limit of 2 GiB, keep its weights in files of their own: "
            "onnx.save(model, path, save_as_external_data=True)"
        ) from error
    return hashlib.sha256(data).hexdigest()


def model_record(model: onnx.ModelProto | str | os.PathLike[str]) -> Record:
    """Take all three digests of a model: ``model``, ``graph`` and ``weights``.

    FORMAT.md states what they cover.

    Parameters
    ----------
    model : onnx.ModelProto, str or os.PathLike
        The model as it is, which is not changed; or the path of a ``.onnx`` file, whose external
        data is read too. Then ``model`` is the hash of what ``onnx.load(path)`` returns.

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
        If protobuf cannot serialize the model, which it cannot from 2 GiB on.
    InvalidModelError
        If the model contradicts itself, so that it has no canonical form.
    ExternalDataError
        If a tensor's data is outside of the model and was not loaded; or, of a path, is not
        where it may be: in a regular file below the directory of the model.
    """
    from .canonical import open_model
    from .external import load_external_data

    canonical = open_model(model)
    graph = _digest(canonical.graph())
    weights = _digest(canonical.weights())
    if canonical.files is not None:
        load_external_data(canonical.proto, canonical.files)
    return Record(model_hash(canonical.proto), graph, weights)


def _digest(parts: Iterable[Part]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.data)
    return digest.hexdigest()


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
    # By the message's name, so that reading a hash never waits for an import of onnx.
    found = getattr(getattr(model, "DESCRIPTOR", None), "full_name", None)
    if found != "onnx.ModelProto":
        raise ModelTypeError(
            f"expected an onnx.ModelProto to hash, found {found or type(model).__name__}: "
            "load the model with onnx.load(path) first"
        )
