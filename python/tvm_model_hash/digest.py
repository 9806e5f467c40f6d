# SPDX-License-Identifier: Apache-2.0
"""The digests of an ONNX model."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from .errors import ModelSerializationError, ModelTypeError

if TYPE_CHECKING:
    import onnx


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
    # By the message's name, so that reading a hash never waits for an import of onnx.
    found = getattr(getattr(model, "DESCRIPTOR", None), "full_name", None)
    if found != "onnx.ModelProto":
        raise ModelTypeError(
            f"expected an onnx.ModelProto to hash, found {found or type(model).__name__}: "
            "load the model with onnx.load(path) first"
        )
    try:
        data = model.SerializeToString()
    except Exception as error:  # protobuf's back ends raise different types here
        raise ModelSerializationError(
            f"the model cannot be serialized ({type(error).__name__}: {error}). If it is over "
            "protobuf's limit of 2 GiB, keep its weights in files of their own: "
            "onnx.save(model, path, save_as_external_data=True)"
        ) from error
    return hashlib.sha256(data).hexdigest()
