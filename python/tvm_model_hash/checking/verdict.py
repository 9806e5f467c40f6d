# SPDX-License-Identifier: Apache-2.0
"""Comparing an artifact with a model: the verdict, and what it is about."""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactError, BrokenSealError, ModelHashError, without_secrets
from ..files import is_url, join, one_version
from ..record import Record
from . import deployment
from .deployment import Deployment
from .expected import Expected
from .manifest import MANIFEST_NAME, require_nothing_beside
from .no_record import why_no_record, why_not_known
from .requirements import Answer, check_requirements, compare_records, records_of

if TYPE_CHECKING:
    import onnx


class Status(str, enum.Enum):
    """How an artifact and a model compare."""

    #: The model hashes are equal.
    MATCH = "match"
    #: The model was serialized differently, and computes the same: graph and weights are equal.
    EQUIVALENT = "equivalent"
    #: The artifact is of another model, or its parts are of several; or it was compiled in another
    #: way than is required.
    MISMATCH = "mismatch"
    #: The artifact, or one of its parts, does not say which model it is of, or what is required.
    NO_RECORD = "no_record"
    #: The files are not the ones that were sealed.
    BROKEN_SEAL = "broken_seal"
    #: A seal was demanded, and there is none. But for that it would be a match, or equivalent.
    NOT_SEALED = "not_sealed"

    @property
    def label(self) -> str:
        """What it is called in a text."""
        return self.value.replace("_", " ")


@dataclass(frozen=True)
class Verdict:
    """The result of a check.

    Parameters
    ----------
    status : Status
        How artifact and model compare.
    expected : Record, optional
        The identities of the model; of a bare hash, just that. None where no model is expected, as
        in :func:`check_consistent`.
    found : Record, optional
        The record of the artifact, None where there is none.
    reason : str
        One sentence that says what is equal, or what differs.
    deployment : Deployment, optional
        The parts that were looked at, of a directory that could be read.
    remarks : tuple of str
        What else there is to know, a sentence each: what a match does not cover, for example.
    missing, extra, changed : tuple of str
        Of a broken seal: names of the files that are missing, that are not listed and may not be
        there, and that have another content.
    """

    status: Status
    expected: Record | None
    found: Record | None
    reason: str
    deployment: Deployment | None = None
    remarks: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return f"{self.status.label}: {self.reason}"

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

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it; docs/json.md describes that.

        Returns
        -------
        fields : dict
            Of strings, numbers, lists and further ones of these. ``parts`` and what belongs to them
            are None where it is not of a deployment.
        """
        deployment = dict.fromkeys(("parts", "others", "damaged", "stated"))
        if self.deployment is not None:
            deployment = self.deployment.to_dict()
        return {
            "status": self.status.value,
            "reason": self.reason,
            "expected": self.expected and self.expected.to_dict(),
            "found": self.found and self.found.to_dict(),
            "sealed": self.sealed,
            **deployment,
            "missing": list(self.missing),
            "extra": list(self.extra),
            "changed": list(self.changed),
            "remarks": list(self.remarks),
        }

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
        expected, found = verdict.expected, verdict.found
        if expected is not None and (found is None or found.model != expected.model):
            text = "no record" if found is None else f"model {found.model}"
            message += f": expected model {expected.model}, found {text}"
        super().__init__(message)
        self.verdict = verdict


# Nobody can see of a hash what it was taken of.
_FILE_SUM = (
    "if this hash is sha256sum of a model with external data: that is not the model's hash, which "
    "covers the data too; check with the model's file"
)


@one_version()
def check(
    model_or_hash: onnx.ModelProto | Record | Expected | str | os.PathLike[str],
    artifact: Any,
    *,
    sealed: bool = False,
    follow_links: bool = False,
    require: Mapping[str, str] | None = None,
) -> Verdict:
    """Check an artifact against a model.

    Nothing of the artifact is loaded or executed, and TVM is not needed for files.

    Parameters
    ----------
    model_or_hash : onnx.ModelProto, Record, Expected, str or os.PathLike
        The model: an ``onnx.ModelProto``, the path or URL of an ONNX file or ``hash.txt``, a model
        hash of 64 hexadecimal digits, or a record. An ONNX file without external data is parsed
        only if the hash of its bytes is not the one in the artifact; then the hash of its
        serialized form counts. An :class:`~tvm_model_hash.checking.expected.Expected` of one of
        these has it read once for several checks.
    artifact : str, os.PathLike, Executable, VirtualMachine or tvm.runtime.Module
        The path or URL of a file that TVM wrote, or of a directory with a deployment; or what was
        loaded from them.
    sealed : bool
        Whether a seal is demanded, and that nothing lies beside the files that it lists but what it
        says to ignore.
    follow_links : bool
        Whether a symbolic link in a directory stands for the file that it leads to, wherever that
        lies, for directories that a store has made of links. By default one that leads out of the
        directory is an error.
    require : mapping of str to str, optional
        Further fields that the records must have, ``{"target": "llvm", "tvm": "0.19.0"}`` for
        example: another value is a mismatch, and what does not say is no match either. A target
        may be named by its kind alone.

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
    RequirementError
        If no record could have what is required.
    ModelHashError
        If the model cannot be read or digested.
    """
    check_requirements(require or {})
    expected = model_or_hash if isinstance(model_or_hash, Expected) else Expected(model_or_hash)
    found = _read(artifact, follow_links)
    if found.broken or found.disagreement:
        verdict = _worse_than_any_model(found, expected.record_beside(found.record))
    else:
        verdict = compare(expected.record_beside(found.record), found.record)
        if verdict.status is Status.MATCH:
            verdict = _match(expected, verdict, found)
        elif verdict.status is Status.MISMATCH:
            verdict = replace(verdict, reason=_difference(expected, verdict, found))
        elif found.why_no_record:
            verdict = replace(verdict, reason=f"{verdict.reason}: {found.why_no_record}")
    verdict = _complete(verdict, found, artifact, sealed, require or {})
    if expected.hash_path and _lies_in(expected.hash_path, artifact):
        remark = (
            f"{expected.hash_path!r} lies in {os.fsdecode(artifact)!r} itself: this compares the "
            "deployment with what it says of itself, not with a model that you know"
        )
        verdict = replace(verdict, remarks=(remark, *verdict.remarks))
    if verdict.status is Status.MISMATCH and expected.is_hash and not found.disagreement:
        verdict = replace(verdict, remarks=(*verdict.remarks, _FILE_SUM))
    return verdict


@one_version()
def check_consistent(
    artifact: Any,
    *,
    sealed: bool = False,
    follow_links: bool = False,
    require: Mapping[str, str] | None = None,
) -> Verdict:
    """Check that an artifact is of one model, whichever that is, and its parts belong together.

    Parameters
    ----------
    artifact, sealed, follow_links, require
        As in :func:`check`.

    Returns
    -------
    verdict : Verdict
        It expects no model. A match says that every part is of one model and compilation; which
        model, ``found`` says.

    Raises
    ------
    ArtifactError
        If the artifact cannot be read, or is no artifact.
    RequirementError
        If no record could have what is required.
    """
    check_requirements(require or {})
    found = _read(artifact, follow_links)
    if found.broken or found.disagreement:
        verdict = _worse_than_any_model(found, None)
    elif found.record is None:
        verdict = compare(None, None)
        if found.why_no_record:
            verdict = replace(verdict, reason=f"{verdict.reason}: {found.why_no_record}")
    else:
        verdict = Verdict(
            Status.MATCH, None, found.record, f"all of it is of model {found.record.model}"
        )
    return _complete(verdict, found, artifact, sealed, require or {})


def _read(artifact: Any, follow_links: bool) -> Found:
    if isinstance(artifact, (str, os.PathLike)):
        return read_path(artifact, follow_links)
    return read(artifact)


def _worse_than_any_model(found: Found, expected: Record | None) -> Verdict:
    """The verdict where no model could be the right one."""
    broken = found.broken
    if broken is None:
        reason = found.disagreement or ""
        return Verdict(Status.MISMATCH, expected, found.record, reason)
    return Verdict(
        Status.BROKEN_SEAL,
        expected,
        found.record,
        "; and ".join(filter(None, (str(broken), found.disagreement))),
        missing=broken.missing,
        extra=broken.extra,
        changed=broken.changed,
    )


def _complete(
    verdict: Verdict, found: Found, artifact: Any, sealed: bool, require: Mapping[str, str]
) -> Verdict:
    """Say what does not depend on the model: how it was compiled, what nothing is known of, ..."""
    verdict = replace(verdict, deployment=found.deployment)
    if verdict.ok:
        answer = _answer(require, found)
        unknown = found.unknown or answer.unknown
        if answer.unmet:
            verdict = replace(verdict, status=Status.MISMATCH, reason=answer.unmet)
        elif unknown:
            verdict = replace(verdict, status=Status.NO_RECORD, reason=unknown)
    if not verdict.ok:
        return verdict
    if sealed:
        verdict = _with_a_seal(verdict, artifact)
    if verdict.ok and isinstance(artifact, (str, os.PathLike)):
        verdict = replace(verdict, remarks=_scope(verdict))
    return verdict


def _answer(require: Mapping[str, str], found: Found) -> Answer:
    if found.deployment is None:
        return compare_records(require, [("the artifact", found.record, True)])
    return compare_records(require, records_of(found.deployment.parts))


def _with_a_seal(verdict: Verdict, artifact: Any) -> Verdict:
    deployment = verdict.deployment
    if deployment is None or deployment.seal is None:
        found = "it is no directory" if deployment is None else f"it has no {MANIFEST_NAME}"
        reason = f"a seal is demanded, and {found}. 'seal' writes one into a directory"
        return replace(verdict, status=Status.NOT_SEALED, reason=f"{verdict.reason}; but {reason}")
    try:
        require_nothing_beside(deployment.directory, deployment.seal, deployment.files)
    except BrokenSealError as error:
        return replace(verdict, status=Status.BROKEN_SEAL, reason=str(error), extra=error.extra)
    return verdict


def _scope(verdict: Verdict) -> tuple[str, ...]:
    """What a match does not cover."""
    deployment = verdict.deployment
    remarks: list[str] = []
    if deployment is not None and deployment.is_listed_by_server:
        remarks.append("which files there are is what the server's list says, which may omit some")
    if deployment is None or deployment.seal is None:
        remarks.append("not sealed: whose the files are was checked, not their contents bit by bit")
        return tuple(remarks)
    beside = deployment.beside_seal
    ignored = [name for name in beside if deployment.seal.ignores(name)]
    remarks += [f"not covered by the seal: {name}" for name in beside if name not in ignored]
    if ignored:
        count = "1 file" if len(ignored) == 1 else f"{len(ignored)} files"
        patterns = ", ".join(deployment.seal.ignored)
        remarks.append(f"not covered by the seal, as it says itself: {count} ({patterns})")
    return tuple(remarks)


def _lies_in(path: str, artifact: Any) -> bool:
    if not isinstance(artifact, (str, os.PathLike)):
        return False
    whole, inner = os.fsdecode(artifact), path
    if not is_url(whole) and not is_url(inner):
        whole, inner = os.path.realpath(whole), os.path.realpath(inner)
    return inner == whole or inner.startswith(join(whole, ""))


def compare(expected: Record | None, found: Record | None) -> Verdict:
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
    if found is None or expected is None:
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
    why_no_record : str, optional
        If there is no record, why, and what to do, where that can be known.
    broken : BrokenSealError, optional
        If the files are not the ones that were sealed, which.
    """

    record: Record | None
    names: Callable[[], Sequence[str] | None]
    disagreement: str | None = None
    unknown: str | None = None
    deployment: Deployment | None = None
    why_no_record: str | None = None
    broken: BrokenSealError | None = None


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
def read_path(path: str | os.PathLike[str], follow_links: bool = False) -> Found:
    """Read a file, or the deployment in a directory."""
    artifact = deployment.read(path, take_broken=True, follow_links=follow_links)
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
    why = None if artifact.record else why_no_record(artifact)
    return Found(artifact.record, lambda: artifact.inputs, unknown=unknown, why_no_record=why)


@read.register
def read_deployment(found: Deployment) -> Found:
    """Take what a check needs from a deployment."""
    unknown = why = None
    if found.unknown:
        named = ", ".join(f"{part.name!r} ({part.artifact.kind})" for part in found.unknown)
        why = why_not_known(found)
        unknown = f"nothing says which model {named} is of: {why}"
    inputs = found.parts[0].artifact.inputs if found.parts else None
    return Found(
        found.record,
        lambda: inputs,
        found.disagreement,
        unknown,
        found,
        why_no_record=why,
        broken=found.broken,
    )


def _match(expected: Expected, verdict: Verdict, found: Found) -> Verdict:
    reason = verdict.reason
    if expected.file_hash not in (None, verdict.expected and verdict.expected.model):
        if expected.has_external_data:
            reason += ", with its external data"
        else:
            reason += ", once parsed: the file's own bytes have another hash"
    if found.deployment is not None and found.deployment.by_seal:
        named = ", ".join(repr(part.name) for part in found.deployment.by_seal)
        reason += f"; {named} carries no record, and is covered by the seal"
    return replace(verdict, reason=reason)


def _difference(expected: Expected, verdict: Verdict, found: Found) -> str:
    found_model = verdict.found and verdict.found.model
    if expected.file_hash == found_model and expected.has_external_data:
        return (
            f"the artifact has the SHA-256 of {expected.path!r} alone, and the model has external "
            "data, of which that says nothing: the hash of such a model is not sha256sum of its "
            "file. Compile it with get_hash=True, or, where it is known to be of this model, tag "
            "it with the model instead of the sum"
        )
    # A sentence only if a model is at hand; the digests have found the difference already.
    graphs = {record and record.graph for record in (verdict.expected, verdict.found)}
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
