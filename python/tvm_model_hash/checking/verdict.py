# SPDX-License-Identifier: Apache-2.0
"""Comparing an artifact with a model: the verdict, and what it is about."""

from __future__ import annotations

import enum
import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactError, BrokenSealError, InvalidHashError, ModelHashMismatch
from ..files import file_sha256, open_regular
from ..record import RECORD_TAG, Record
from .deployment import Deployment
from .hash_file import parse_hash, read_hash_file

if TYPE_CHECKING:
    import onnx

_HASH = re.compile("(sha256:)?[0-9a-fA-F]{64}")
_HEAD_BYTES = 512


class Status(str, enum.Enum):
    """How an artifact and a model compare."""

    #: The model hashes are equal.
    MATCH = "match"
    #: The model was serialized differently, and computes the same: graph and weights are equal.
    EQUIVALENT = "equivalent"
    #: The artifact is of another model, or its parts are of several.
    MISMATCH = "mismatch"
    #: The artifact does not say which model it is of.
    NO_RECORD = "no_record"


@dataclass(frozen=True)
class Verdict:
    """The result of a check.

    Parameters
    ----------
    status : Status
        How artifact and model compare.
    expected : Record
        The identities of the model; of a bare hash, just that.
    found : Record, optional
        The record of the artifact, None where there is none.
    reason : str
        One sentence that says what is equal, or what differs.
    """

    status: Status
    expected: Record
    found: Record | None
    reason: str

    @property
    def ok(self) -> bool:
        """Whether the artifact computes what the model does: match or equivalent."""
        return self.status in (Status.MATCH, Status.EQUIVALENT)

    def require(self, exact: bool = False) -> Verdict:
        """Raise an error unless the artifact is of the model.

        Parameters
        ----------
        exact : bool
            Whether only a match will do, and not an equivalent model.

        Returns
        -------
        verdict : Verdict
            The verdict itself.

        Raises
        ------
        ModelHashMismatch
            With the verdict on it.
        """
        if self.status is Status.MATCH or (self.ok and not exact):
            return self
        raise ModelHashMismatch(self)


def check(
    model_or_hash: onnx.ModelProto | Record | str | os.PathLike[str], artifact: Any
) -> Verdict:
    """Check an artifact against a model.

    Nothing of the artifact is loaded or executed, and TVM is not needed for files.

    Parameters
    ----------
    model_or_hash : onnx.ModelProto, Record, str or os.PathLike
        The model: an ``onnx.ModelProto``, the path of an ONNX file or of a ``hash.txt``, a model
        hash of 64 hexadecimal digits, or a record. An ONNX file is parsed only if the hash of its
        bytes is not the one in the artifact; then the hash of its serialized form counts.
    artifact : str, os.PathLike, Executable, VirtualMachine or tvm.runtime.Module
        The path of a ``code.ro``, of a single-file library, or of a directory with a deployment;
        or what was loaded from them.

    Returns
    -------
    verdict : Verdict

    Raises
    ------
    ArtifactError
        If the artifact cannot be read, or is no artifact.
    InvalidHashError
        If a hash or a ``hash.txt`` is malformed.
    ModelHashError
        If the model cannot be read or digested.
    """
    try:
        found = read(artifact)
    except BrokenSealError as error:
        return Verdict(Status.MISMATCH, expected_record(model_or_hash), None, str(error))
    record = found.record
    wanted = record.model if record else None
    path = _model_path(model_or_hash)
    if path is None:
        expected, own_bytes = expected_record(model_or_hash), wanted
    else:
        # Not parsed if it is the same file.
        own_bytes = wanted and file_sha256(path)[1]
        expected = Record(wanted) if own_bytes == wanted is not None else expected_record(path)
    if found.disagreement:
        return Verdict(Status.MISMATCH, expected, record, found.disagreement)
    verdict = compare(expected, record)
    if verdict.status is Status.MATCH and own_bytes != wanted:
        reason = "same model, once parsed: the file's own bytes have another hash"
        return replace(verdict, reason=reason)
    if verdict.status is Status.MISMATCH and record and expected.graph not in (None, record.graph):
        difference = _interface_difference(path or model_or_hash, found.names())
        return replace(verdict, reason=difference or verdict.reason)
    return verdict


def compare(expected: Record, found: Record | None) -> Verdict:
    """Compare the identities of a model with a record.

    Parameters
    ----------
    expected : Record
        The identities of the model.
    found : Record, optional
        The record of an artifact, None where there is none.

    Returns
    -------
    verdict : Verdict
    """
    if found is None:
        status, reason = Status.NO_RECORD, "the artifact carries no record of its model"
    elif found.model == expected.model:
        status, reason = Status.MATCH, "same model"
    elif None in (found.graph, found.weights, expected.graph, expected.weights):
        reason = "other model, as far as a hash alone tells"
        if None in (found.graph, found.weights):
            reason += ": the artifact's record has no digests of graph and weights"
        status = Status.MISMATCH
    elif found.graph != expected.graph:
        status, reason = Status.MISMATCH, "other model"
    elif found.weights != expected.weights:
        status, reason = Status.MISMATCH, "same graph, other weights"
    else:
        status = Status.EQUIVALENT
        reason = "serialized differently, with the same graph and the same weights"
    return Verdict(status, expected, found, reason)


def expected_record(model_or_hash: onnx.ModelProto | Record | str | os.PathLike[str]) -> Record:
    """Find the identities that are asked for.

    Parameters
    ----------
    model_or_hash : onnx.ModelProto, Record, str or os.PathLike
        As in :func:`check`.

    Returns
    -------
    record : Record
        All digests of a model; of a hash just that.

    Raises
    ------
    InvalidHashError
        If a hash or ``hash.txt`` is malformed, or a string is neither that nor a file.
    ModelHashError
        If the model cannot be read or digested.
    """
    if isinstance(model_or_hash, Record):
        return model_or_hash
    if isinstance(model_or_hash, str):
        if model_or_hash.startswith(RECORD_TAG):
            return Record.parse(model_or_hash)
        if _HASH.fullmatch(model_or_hash):
            return Record(parse_hash(model_or_hash, "the hash"))
        if not os.path.lexists(model_or_hash):
            raise InvalidHashError(
                f"{model_or_hash!r} is neither a file nor a model hash: expected the path of an "
                "ONNX model or of a hash.txt, 64 hexadecimal digits, or a record"
            )
    if isinstance(model_or_hash, (str, os.PathLike)) and not _model_path(model_or_hash):
        return read_hash_file(os.fspath(model_or_hash))
    from ..model.digest import model_record

    return model_record(model_or_hash)


@dataclass(frozen=True)
class Found:
    """What a check reads from an artifact.

    Parameters
    ----------
    record : Record, optional
        The record, None where there is none.
    names : callable
        Reads the names of the parameters of ``main``, None where the artifact does not say; only
        called where they matter.
    disagreement : str, optional
        One sentence, if the artifact has several parts that are not of one model.
    """

    record: Record | None
    names: Callable[[], Sequence[str] | None]
    disagreement: str | None = None


@functools.singledispatch
def read(artifact: Any) -> Found:
    """Read what a check needs from an artifact; integrations register their own types.

    Parameters
    ----------
    artifact : object
        As in :func:`check`.

    Returns
    -------
    found : Found

    Raises
    ------
    ArtifactError
        If this is no artifact, or it is damaged.
    """
    raise ArtifactError(
        f"expected an artifact, the path of a file or directory or what TVM loaded from it, found "
        f"{type(artifact).__name__}"
    )


@read.register(str)
@read.register(os.PathLike)
def _(artifact: str | os.PathLike[str]) -> Found:
    from ..artifact.record_io import read_interface, read_record

    if os.path.isdir(artifact):
        return read(Deployment.read(artifact))

    def names() -> Sequence[str] | None:
        interface = read_interface(artifact)
        return None if interface is None else interface.parameters

    return Found(read_record(artifact), names)


@read.register
def _(artifact: Deployment) -> Found:
    interface = artifact.interface
    parameters = None if interface is None else interface.parameters
    return Found(artifact.record, lambda: parameters, artifact.disagreement)


def _model_path(model_or_hash: Any) -> str | None:
    """The path of a model's file, None for everything else that a model can be given as."""
    if isinstance(model_or_hash, os.PathLike):
        path = os.fspath(model_or_hash)
    elif isinstance(model_or_hash, str) and os.path.lexists(model_or_hash):
        path = model_or_hash
    else:
        return None
    # A model begins with a field's tag and soon has bytes that are no text; an empty file could
    # be either, and is an empty hash.txt if it is not called a model.
    with open_regular(path) as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return path if path.endswith(".onnx") else None
    is_text = all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in head)
    return None if is_text else path


def _interface_difference(model_or_hash: Any, names: Sequence[str] | None) -> str | None:
    # A sentence only if a model is at hand; the digests have found the difference already.
    if names is None or isinstance(model_or_hash, Record):
        return None
    if isinstance(model_or_hash, str):
        import onnx

        model_or_hash = onnx.load(model_or_hash, load_external_data=False)
    graph = model_or_hash.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    differences = [f"input {name!r} of the model is none of the artifact's" for name in inputs
                   if name not in names]  # fmt: skip
    differences += [f"input {name!r} of the artifact is none of the model's" for name in names
                    if name not in inputs and name not in weights]  # fmt: skip
    return "other interface: " + "; ".join(differences) if differences else None
