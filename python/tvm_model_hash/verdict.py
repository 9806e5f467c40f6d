# SPDX-License-Identifier: Apache-2.0
"""Comparing an artifact with a model: the verdict, and what it is about."""

from __future__ import annotations

import enum
import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .deployment import Deployment
from .errors import ArtifactError, BrokenSealError, InvalidHashError, ModelHashMismatch
from .files import file_sha256, open_regular
from .hash_file import parse_hash, read_hash_file
from .record import RECORD_TAG, Record

if TYPE_CHECKING:
    import onnx

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
    expected = expected_record(model_or_hash, record.model if record else None)
    if found.disagreement:
        return Verdict(Status.MISMATCH, expected, record, found.disagreement)
    verdict = compare(expected, record)
    if verdict.status is Status.MISMATCH and record and expected.graph not in (None, record.graph):
        difference = _interface_difference(model_or_hash, found.names())
        if difference:
            return Verdict(Status.MISMATCH, expected, record, difference)
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


def expected_record(
    model_or_hash: onnx.ModelProto | Record | str | os.PathLike[str],
    wanted: str | None = None,
) -> Record:
    """Find the identities that are asked for.

    Parameters
    ----------
    model_or_hash : onnx.ModelProto, Record, str or os.PathLike
        As in :func:`check`.
    wanted : str, optional
        The model hash that a match would need. A file of these bytes is not parsed.

    Returns
    -------
    record : Record
        All digests of a model; of a hash, and of a file with the wanted hash, just that.

    Raises
    ------
    InvalidHashError
        If a hash or ``hash.txt`` is malformed, or a string is neither that nor a file.
    ModelHashError
        If the model cannot be read or digested.
    """
    if isinstance(model_or_hash, Record):
        return model_or_hash
    if not isinstance(model_or_hash, (str, os.PathLike)):
        from .digest import model_record

        return model_record(model_or_hash)
    text = os.fspath(model_or_hash)
    if isinstance(model_or_hash, str):
        if text.startswith(RECORD_TAG):
            return Record.parse(text)
        if re.fullmatch("(sha256:)?[0-9a-fA-F]{64}", text):
            return Record(parse_hash(text, "the hash"))
        if not os.path.lexists(text):
            raise InvalidHashError(
                f"{text!r} is neither a file nor a model hash: expected the path of an ONNX model "
                "or of a hash.txt, 64 hexadecimal digits, or a record"
            )
    if _is_text(text):
        return read_hash_file(text)
    return _model_file_record(text, wanted)


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
    from .carriers import read_interface, read_record

    if os.path.isdir(artifact):
        deployment = Deployment.read(artifact)
        interface = deployment.interface
        parameters = None if interface is None else interface.parameters
        return Found(deployment.record, lambda: parameters, deployment.disagreement)

    def names() -> Sequence[str] | None:
        interface = read_interface(artifact)
        return None if interface is None else interface.parameters

    return Found(read_record(artifact), names)


def _is_text(path: str) -> bool:
    # A model begins with a field's tag and soon has bytes that are no text; an empty file could
    # be either, and is an empty hash.txt if it is not called a model.
    with open_regular(path) as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return not path.endswith(".onnx")
    return all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in head)


def _model_file_record(path: str, wanted: str | None) -> Record:
    if wanted is not None and file_sha256(path)[1] == wanted:
        return Record(wanted)
    from .digest import model_record

    return model_record(path)


def _interface_difference(model_or_hash: Any, names: Sequence[str] | None) -> str | None:
    # A sentence only if a model is at hand; the digests have found the difference already.
    if names is None or isinstance(model_or_hash, Record):
        return None
    if isinstance(model_or_hash, (str, os.PathLike)):
        if not os.path.lexists(model_or_hash) or _is_text(os.fspath(model_or_hash)):
            return None
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
