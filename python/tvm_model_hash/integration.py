# SPDX-License-Identifier: Apache-2.0
"""What the integrations into TVM's engines share."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from . import activation
from .checking import verdict
from .checking.copies import private_copies
from .checking.dependencies import refuse_dependencies
from .checking.deployment import Deployment, check_replaceable, list_files
from .checking.hash_file import write_hash_file
from .checking.manifest import seal
from .checking.parts import Part, read_parts
from .errors import (
    ArtifactError,
    HashConflictError,
    InvalidModelError,
    ModelHashError,
    NoHashError,
    OutputError,
)
from .files import new_directory
from .model.digest import model_hash, model_record
from .record import Record, conflict
from .warning import warn

if TYPE_CHECKING:
    import onnx

#: The environment variable that fixes the builds of a process.
BUILD_VARIABLE = "TVM_MODEL_HASH_BUILD"

_BUILD_BYTES = 16

_compilations = itertools.count(1)


_hash_by_default: ContextVar[bool | None] = ContextVar("hash_by_default", default=None)


@contextmanager
def hash_by_default(get_hash: bool | None) -> Iterator[None]:
    """Set what importers do that are not told whether to take the hash.

    Parameters
    ----------
    get_hash : bool, optional
        Whether they take it; None leaves that to the environment.
    """
    token = _hash_by_default.set(get_hash)
    try:
        yield
    finally:
        _hash_by_default.reset(token)


def wants_hash(get_hash: bool | None) -> bool:
    """Find out whether an import is to take the model's hash along.

    Parameters
    ----------
    get_hash : bool, optional
        What the importer was told.

    Returns
    -------
    wants_hash : bool
        That; where it is None, what :func:`hash_by_default` says, and else whether the environment
        variable ``TVM_MODEL_HASH`` is ``import``.
    """
    if get_hash is None:
        get_hash = _hash_by_default.get()
    return activation.is_hash_default() if get_hash is None else bool(get_hash)


def new_build() -> str:
    """Make the identity of a compilation, which all its parts are to carry.

    Returns
    -------
    build : str
        32 lowercase hexadecimal digits. They are random, unless the environment variable
        ``TVM_MODEL_HASH_BUILD`` has a text: then they follow from that and from how many
        compilations there were in this process, so that a process that compiles the same models
        in the same order gives them the same builds.
    """
    number = next(_compilations)
    text = os.environ.get(BUILD_VARIABLE)
    if not text:
        return secrets.token_hex(_BUILD_BYTES)
    return hashlib.sha256(f"{text}\0{number}".encode()).hexdigest()[: 2 * _BUILD_BYTES]


def check_params(record: Record | None, params: Any) -> None:
    """Check that parameters are of the model that they are to be compiled with.

    Parameters
    ----------
    record : Record, optional
        The record of the model, None where it is not known.
    params : dict, optional
        The parameters by their names. Those that ``from_onnx(..., get_hash=True)`` returned know
        their record.

    Raises
    ------
    HashConflictError
        If they are another model's.
    """
    others = getattr(params, "record", None)
    reason = conflict(record, others) if record and others else None
    if reason:
        raise HashConflictError(
            f"the module and the parameters are of {reason}: compile it with the parameters that "
            "the same call of from_onnx returned"
        )


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
    from .model.contents import check_model_type

    activation.require()
    check_model_type(model)  # the digests would take a path as well
    try:
        return model_record(model)
    except InvalidModelError as error:
        # Whether such a model can be imported is for the importer to say. Its hash is defined.
        warn(f"the record has the model's hash alone, and no digests of graph and weights: {error}")
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
    keyword = inspect.Parameter("get_hash", inspect.Parameter.KEYWORD_ONLY, default=None)
    if signature.return_annotation is not signature.empty:
        keyword = keyword.replace(annotation=bool | None)  # as the others have one
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
        If the directory does not exist, is not a directory, or cannot be written to.
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


@contextmanager
def new_deployment(executable: Any, directory: Any, overwrite: bool, sealed: bool) -> Iterator[str]:
    """Save a whole deployment: all of it, or nothing.

    Parameters
    ----------
    executable : Executable
        What is saved; it has a hash.
    directory : str, os.PathLike or TVM's TempDirectory
        The directory to make, and those above it.
    overwrite : bool
        Whether a deployment that is there is replaced.
    sealed : bool
        Whether the directory gets a manifest.

    Yields
    ------
    temporary : str
        Where to write the files. ``hash.txt`` and the manifest are added when the block ends.

    Raises
    ------
    NoHashError
        If the executable carries no hash.
    OutputError
        If the directory is not empty, has files that are not of a deployment, or cannot be written.
    """
    if get_hash(executable) is None:
        raise no_hash()
    directory = directory_path(directory)
    if overwrite and os.path.isdir(directory):
        check_replaceable(directory)
    with new_directory(directory, overwrite=overwrite) as temporary:
        try:
            yield temporary
        except (ModelHashError, OSError):
            raise
        except Exception as error:  # what TVM and its linkers raise
            raise OutputError(
                f"cannot write {directory!r}: {type(error).__name__}: {error}"
            ) from error
        save_hash(executable, temporary)
        if sealed:
            seal(temporary)


@contextmanager
def checked_deployment(directory: Any, expected: Any) -> Iterator[Deployment]:
    """Check a deployment against a model, in copies that nobody changes after the check.

    Parameters
    ----------
    directory : str, os.PathLike or TVM's TempDirectory
        The directory.
    expected : onnx.ModelProto, Record, str or os.PathLike, or None
        The model, as for :func:`check_hash`. None means: of whichever model it is, as long as its
        parts are of one.

    Yields
    ------
    deployment : Deployment
        Its ``files`` are the copies of the parts, for as long as the block lasts.

    Raises
    ------
    ModelHashMismatch
        If the deployment is not of that model.
    HashConflictError
        If no model is expected, and the parts are of different ones.
    ModelHashError
        If the deployment or the model cannot be read.
    """
    directory = directory_path(directory)
    files = list_files(directory)
    # What else lies there is not loaded, and may be large.
    parts = read_parts(files).parts
    for part in parts:
        if part.file != part.name:
            raise ArtifactError(
                f"{part.name!r} in {directory!r} lies in an archive, and nothing is loaded from "
                "one: unpack it into a directory of its own"
            )
        if part.artifact.files:
            raise ArtifactError(
                f"{part.name!r} in {directory!r} is a {part.artifact.kind}, which is not loaded: "
                "put the weights into one file, as save does"
            )
    # A shard that is a link out of the directory is not among the files.
    names = [part.name for part in parts if part.name in files]
    with private_copies({name: files[name] for name in names}) as copies:
        deployment = Deployment.read(directory, {**files, **copies})
        for part in deployment.parts:
            if part.name not in copies:
                raise ArtifactError(
                    f"{part.name!r} in {directory!r} was written while the directory was read: "
                    "load it again"
                )
        if expected is not None:
            verdict.check(expected, deployment).require()
        elif deployment.record is not None and (deployment.disagreement or deployment.unknown):
            reason = verdict.read(deployment).unknown if deployment.unknown else None
            raise HashConflictError(f"{directory!r}: {deployment.disagreement or reason}")
        for part in deployment.parts:
            if part.artifact.container != "file":
                refuse_dependencies(part.name, deployment.files[part.name])
        yield deployment


def require_same(loaded: Record | None, deployment: Deployment, part: Part | None = None) -> None:
    """Check that what was loaded has the record that was found in its files.

    Parameters
    ----------
    loaded : Record, optional
        The record of what was loaded.
    deployment : Deployment
        The deployment that it was loaded from.
    part : Part, optional
        The part of it, by default the first.

    Raises
    ------
    ModelHashMismatch
        If it is another one.
    """
    found = (part or deployment.parts[0]).record
    reason = None
    if found is not None:
        reason = "nothing" if loaded is None else conflict(found, loaded)
    elif loaded is not None:
        found, reason = loaded, "another model than its files say"
    if found is not None and reason:
        raise verdict.ModelHashMismatch(
            verdict.Verdict(
                verdict.Status.MISMATCH,
                found,
                loaded,
                f"what was loaded from {deployment.directory!r} and its files are of {reason}",
            )
        )


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
