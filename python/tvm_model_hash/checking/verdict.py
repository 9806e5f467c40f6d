# SPDX-License-Identifier: Apache-2.0
"""Comparing an artifact with a model: the verdict, and what it is about."""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactError, BrokenSealError, ModelHashError, without_secrets
from ..files import one_version
from ..record import Record
from . import deployment
from .deployment import Deployment
from .expected import Expected

if TYPE_CHECKING:
    import onnx


class Status(str, enum.Enum):
    """How an artifact and a model compare."""

    #: The model hashes are equal.
    MATCH = "match"
    #: The model was serialized differently, and computes the same: graph and weights are equal.
    EQUIVALENT = "equivalent"
    #: The artifact is of another model, or its parts are of several.
    MISMATCH = "mismatch"
    #: The artifact, or one of its parts, does not say which model it is of.
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
    deployment : Deployment, optional
        The parts that were looked at, of a directory that could be read.
    """

    status: Status
    expected: Record
    found: Record | None
    reason: str
    deployment: Deployment | None = None

    @property
    def sealed(self) -> bool:
        """Whether a manifest was there, and each file is the one that it lists.

        Without it a match says of which model the parts are, not that no bit of them was changed.
        """
        return self.deployment is not None and self.deployment.seal is not None

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


class ModelHashMismatch(ModelHashError):  # noqa: N818 (the name that its users were promised)
    """An artifact is not of the model that was asked for.

    Parameters
    ----------
    verdict : Verdict
        What was compared, and what differs.
    """

    def __init__(self, verdict: Verdict) -> None:
        message = verdict.reason
        if verdict.found is None or verdict.found.model != verdict.expected.model:
            found = "no record" if verdict.found is None else f"model {verdict.found.model}"
            message += f": expected model {verdict.expected.model}, found {found}"
        super().__init__(message)
        self.verdict = verdict


@one_version()
def check(
    model_or_hash: onnx.ModelProto | Record | str | os.PathLike[str], artifact: Any
) -> Verdict:
    """Check an artifact against a model.

    Nothing of the artifact is loaded or executed, and TVM is not needed for files.

    Parameters
    ----------
    model_or_hash : onnx.ModelProto, Record, str or os.PathLike
        The model: an ``onnx.ModelProto``, the path or URL of an ONNX file or ``hash.txt``, a model
        hash of 64 hexadecimal digits, or a record. An ONNX file without external data is parsed
        only if the hash of its bytes is not the one in the artifact; then the hash of its
        serialized form counts.
    artifact : str, os.PathLike, Executable, VirtualMachine or tvm.runtime.Module
        The path or URL of a file that TVM wrote, or of a directory with a deployment; or what was
        loaded from them.

    Returns
    -------
    verdict : Verdict
        Of a directory, it is a match only if every part is covered: by a record of its own, or by
        a manifest with a record.

    Raises
    ------
    ArtifactError
        If the artifact cannot be read, or is no artifact.
    RemoteError
        If what a URL names cannot be read there, or changes meanwhile.
    InvalidHashError
        If a hash or a ``hash.txt`` is malformed.
    ModelHashError
        If the model cannot be read or digested.
    """
    expected = Expected(model_or_hash)
    try:
        found = read(artifact)
    except BrokenSealError as error:
        return Verdict(Status.MISMATCH, expected.record, None, str(error))
    if found.disagreement:
        verdict = Verdict(
            Status.MISMATCH, expected.record_beside(found.record), found.record, found.disagreement
        )
    else:
        verdict = compare(expected.record_beside(found.record), found.record)
        if verdict.status is Status.MATCH:
            verdict = _match(expected, verdict, found)
        elif verdict.status is Status.MISMATCH:
            verdict = replace(verdict, reason=_difference(expected, verdict, found))
        if verdict.ok and found.unknown:
            verdict = replace(verdict, status=Status.NO_RECORD, reason=found.unknown)
        if verdict.ok and found.deployment is not None and found.deployment.is_listed_by_server:
            reason = f"{verdict.reason}; which files there are was taken from the server's list"
            verdict = replace(verdict, reason=reason)
    return replace(verdict, deployment=found.deployment)


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
        One sentence, if the artifact has several parts that are not of one model or compilation.
    unknown : str, optional
        One sentence, if nothing says which model a part is of.
    deployment : Deployment, optional
        The parts, of a directory.
    """

    record: Record | None
    names: Callable[[], Sequence[str] | None]
    disagreement: str | None = None
    unknown: str | None = None
    deployment: Deployment | None = None


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
def read_path(path: str | os.PathLike[str]) -> Found:
    """Read a file, or the deployment in a directory."""
    artifact = deployment.read(path)
    if isinstance(artifact, Deployment):
        return read_deployment(artifact)
    needs = ["the kernels of a library"] * artifact.needs_kernels
    if artifact.needs:
        count = "a tensor" if len(artifact.needs) == 1 else f"{len(artifact.needs)} tensors"
        needs.append(f"{count} from a file of parameters")
    unknown = None
    if needs:
        name = without_secrets(os.fsdecode(path))
        unknown = (
            f"{name!r} is of this model, but needs {' and '.join(needs)}, of which "
            "nothing is known here: check the directory that they are in together"
        )
    return Found(artifact.record, lambda: artifact.inputs, unknown=unknown)


@read.register
def read_deployment(found: Deployment) -> Found:
    """Take what a check needs from a deployment."""
    unknown = None
    if found.unknown:
        named = ", ".join(f"{part.name!r} ({part.artifact.kind})" for part in found.unknown)
        unknown = (
            f"nothing says which model {named} is of. Compile again with get_hash=True; or, where "
            "it is known, tag the part, or seal the directory with a part that carries a record"
        )
    executable = found.parts[0].artifact
    return Found(found.record, lambda: executable.inputs, found.disagreement, unknown, found)


def _match(expected: Expected, verdict: Verdict, found: Found) -> Verdict:
    reason = verdict.reason
    if expected.file_hash not in (None, verdict.expected.model):
        reason += ", once parsed: the file's own bytes have another hash"
    if found.deployment is not None and found.deployment.by_seal:
        named = ", ".join(repr(part.name) for part in found.deployment.by_seal)
        reason += f"; {named} carries no record, and is covered by the seal"
    return replace(verdict, reason=reason)


def _difference(expected: Expected, verdict: Verdict, found: Found) -> str:
    # A sentence only if a model is at hand; the digests have found the difference already.
    graphs = {verdict.expected.graph, verdict.found.graph if verdict.found else None}
    if len(graphs) == 1 or expected.interface is None:
        return verdict.reason
    names = found.names()
    if names is None:
        return verdict.reason
    inputs, weights = expected.interface
    differences = [
        f"input {name!r} of the model is none of the artifact's"
        for name in inputs
        if name not in names
    ]
    differences += [
        f"input {name!r} of the artifact is none of the model's"
        for name in names
        if name not in inputs and name not in weights
    ]
    return "other interface: " + "; ".join(differences) if differences else verdict.reason
