# SPDX-License-Identifier: Apache-2.0
"""What the integrations into TVM's engines share."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import activation
from .checking import verdict
from .checking.hash_file import write_hash_file
from .errors import InvalidModelError, NoHashError
from .model.digest import check_model_type, model_hash, model_record
from .record import Record

if TYPE_CHECKING:
    import onnx


def record_of_import(model: onnx.ModelProto) -> Record:
    """Take the record of a model that is about to be imported.

    Parameters
    ----------
    model : onnx.ModelProto
        The model as it is; it is not changed.

    Returns
    -------
    record : Record
        All digests; the model's hash alone, with a warning, of a model that contradicts itself.

    Raises
    ------
    ModelTypeError
        If the model is not an ``onnx.ModelProto``.
    ModelHashError
        If it cannot be digested.
    UnsupportedTVMError
        If the TVM of this process could not be patched as it is needed.
    """
    activation.require()
    check_model_type(model)  # the digests would take a path as well
    try:
        return model_record(model)
    except InvalidModelError as error:
        # Whether such a model can be imported is for the importer to say. Its hash is defined.
        warnings.warn(
            f"the record has the model's hash alone, and no digests of graph and weights: {error}",
            RuntimeWarning,
            stacklevel=3,
        )
        return Record(model_hash(model))


def document_get_hash(
    importer: Callable[..., Any], original: Callable[..., Any], description: str
) -> None:
    """Show the keyword ``get_hash`` in the signature and the docstring of an importer.

    Parameters
    ----------
    importer : callable
        The importer with the keyword, which is changed.
    original : callable
        TVM's importer.
    description : str
        What the keyword does, as it stands in a docstring behind the other parameters.
    """
    signature = inspect.signature(original)
    keyword = inspect.Parameter("get_hash", inspect.Parameter.KEYWORD_ONLY, default=False)
    shown: Any = importer
    shown.__signature__ = signature.replace(parameters=[*signature.parameters.values(), keyword])
    parameters, returns, rest = (original.__doc__ or "").partition("\n    Returns\n")
    importer.__doc__ = parameters + description + returns + rest


# The methods that executables and virtual machines get. What is read from them is for the
# integrations to register with verdict.read.


def get_hash(self: Any) -> str | None:
    """Get the hash of the ONNX model that was compiled.

    Returns
    -------
    model_hash : str or None
        SHA-256 of the serialized model, 64 lowercase hexadecimal digits; None if the executable
        carries none.

    Raises
    ------
    tvm_model_hash.RecordError
        If what it carries is malformed.
    """
    record = verdict.read(self).record
    return None if record is None else record.model


def save_hash(self: Any, directory: Any) -> str:
    """Write the hash of the ONNX model that was compiled to ``hash.txt``.

    Parameters
    ----------
    directory : str, os.PathLike or TVM's TempDirectory
        A directory that exists; a ``hash.txt`` in it is replaced.

    Returns
    -------
    path : str
        The path of the file, which holds 64 lowercase hexadecimal digits and nothing else.

    Raises
    ------
    tvm_model_hash.NoHashError
        If the executable carries no hash; nothing is written.
    tvm_model_hash.OutputError
        If the directory does not exist, is none, or cannot be written to.
    """
    model_hash = get_hash(self)
    if model_hash is None:
        raise no_hash()
    return write_hash_file(directory_path(directory), model_hash)


def check_hash(self: Any, model_or_hash: Any, exact: bool = False) -> verdict.Verdict:
    """Check that this was compiled from a model.

    Parameters
    ----------
    model_or_hash : onnx.ModelProto, tvm_model_hash.Record, str or os.PathLike
        The model, the path of an ONNX file or of a ``hash.txt``, a model hash of 64 hexadecimal
        digits, or a record.
    exact : bool
        Whether a model that is only equivalent (serialized differently, with the same graph and
        the same weights) is refused too.

    Returns
    -------
    verdict : tvm_model_hash.Verdict
        A match, or equivalent.

    Raises
    ------
    tvm_model_hash.ModelHashMismatch
        If it was compiled from another model, or carries no hash; with the verdict on it.
    tvm_model_hash.ModelHashError
        If the model or the hash cannot be read.
    """
    return verdict.check(model_or_hash, self).require(exact)


def directory_path(directory: Any) -> str:
    """Get the path of a directory, which may be a ``TempDirectory`` of TVM's.

    Parameters
    ----------
    directory : str, os.PathLike or TVM's TempDirectory
        The directory.

    Returns
    -------
    path : str
    """
    return os.fspath(getattr(directory, "temp_dir", directory))


def no_hash() -> NoHashError:
    """Make the error for an executable that carries no hash.

    Returns
    -------
    error : NoHashError
    """
    return NoHashError(
        "the executable carries no model hash to save: import its model with "
        "from_onnx(..., get_hash=True)"
    )
