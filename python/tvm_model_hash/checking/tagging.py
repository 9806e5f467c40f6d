# SPDX-License-Identifier: Apache-2.0
"""Saying of files that have no record which model they are of: one file, or a deployment."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..artifact.record_io import check_writable, read_artifact, write_record
from ..errors import (
    ArtifactError,
    BrokenSealError,
    FixedRecordError,
    HashConflictError,
    OutputError,
    SealError,
    UnknownArtifactError,
)
from ..files import locked, refuse_url
from ..record import Record
from .deployment import Deployment
from .expected import Expected
from .hash_file import HASH_FILE_NAME, write_hash_file
from .manifest import (
    MANIFEST_NAME,
    check_manifest_replaceable,
    file_states,
    read_seal,
    seal,
    sealed_files,
)
from .package import is_archive
from .parts import Part, check_complete, disagreement, parts_in_file, tensors_of
from .verdict import compare
from .weights import ComparedWeights, Comparison

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Tagged:
    """What was tagged.

    Parameters
    ----------
    path : str
        The file that was written; of a deployment its manifest.
    record : Record
        The record, of a deployment without what is said of single parts.
    parts : tuple of str
        Of a deployment, names of the parts that have the record now.
    by_seal : tuple of str
        Of a deployment, names of those that have no place for one, or have the one that they were
        compiled with, and are covered by the seal.
    weights : tuple of ComparedWeights
        What could be compared with the model, where that is at hand.
    """

    path: str
    record: Record
    parts: tuple[str, ...] = ()
    by_seal: tuple[str, ...] = ()
    weights: tuple[ComparedWeights, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it, without its path."""
        return {
            "record": self.record.to_dict(),
            "tagged": list(self.parts),
            "by_seal": list(self.by_seal),
            "weights": [weights.to_dict() for weights in self.weights],
        }


def tag(
    path: str | os.PathLike[str],
    model_or_hash: onnx.ModelProto | Record | Expected | str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Tagged:
    """Put the record of a model into an artifact, or into all parts of a deployment, and seal that.

    It is for what was compiled without a hash, and says what its caller claims. What can be
    compared is: weights that lie in a file of parameters as they are in the model.

    Of a deployment everything is checked before anything is written. Then file by file is replaced,
    and the manifest at last; who is interrupted leaves files as they were and as they are to be,
    and a manifest, if there was one, that says so.

    Parameters
    ----------
    path : str or os.PathLike
        A file that has a place for a record, as for
        :func:`~tvm_model_hash.artifact.record_io.write_record`; or the directory of a deployment.
    model_or_hash : onnx.ModelProto, Record, Expected, str or os.PathLike
        The model, as for :func:`~tvm_model_hash.checking.verdict.check`.
    output : str or os.PathLike, optional
        Of a file, the file to write; by default it is replaced.
    force : bool
        Whether what speaks against it is overruled: the record of another model, weights that are
        called as the model's and are others, a broken seal.

    Returns
    -------
    tagged : Tagged
        What was written. Where there was a record of this model, its further fields are kept.

    Raises
    ------
    HashConflictError
        If something has the record of another model, or other weights, and ``force`` was not
        given; or has it where it can't be changed.
    FixedRecordError
        If there is no place for a record in the file, or in any part of the deployment.
    BrokenSealError
        If the files are not the ones that were sealed, and ``force`` was not given.
    SealError
        If the directory can't be sealed, or something changed in it meanwhile.
    OutputError
        If a file can't be written.
    ModelHashError
        If the model or an artifact can't be read.
    """
    path = os.fsdecode(path)
    for named in (path, os.fsdecode(output or "")):
        refuse_url(named)
    expected = model_or_hash if isinstance(model_or_hash, Expected) else Expected(model_or_hash)
    if not os.path.isdir(path):
        return _tag_file(path, expected, output, force)
    if output is not None:
        raise OutputError(
            f"cannot write {os.fsdecode(output)!r}: {path!r} is a directory, whose files are "
            "replaced. Tag a copy of it, or its files one by one"
        )
    return _tag_deployment(path, expected, force)


def _tag_file(
    path: str, expected: Expected, output: str | os.PathLike[str] | None, force: bool
) -> Tagged:
    try:
        artifact = read_artifact(path)
    except UnknownArtifactError as error:
        if is_archive(path):
            raise UnknownArtifactError(
                f"{path!r} is an archive, in which nothing is changed: unpack it into a directory, "
                "tag that, and pack it again"
            ) from error
        raise
    record = _new_record(expected.record, artifact.record)
    compared = Comparison(expected).compare(path, artifact)
    weights = () if compared is None else (compared,)
    if not force:
        _refuse_others(path, _of_others(expected.record, {path: artifact.record}), weights)
    written = write_record(path, record, output)
    return Tagged(written, record, weights=weights)


def _tag_deployment(directory: str, expected: Expected, force: bool) -> Tagged:
    record = expected.record
    with locked(directory):
        files = sealed_files(directory)
        check_manifest_replaceable(os.path.join(directory, MANIFEST_NAME))
        before = file_states(files)
        deployment = _read(directory, force)
        comparison = Comparison(expected)
        parts = (*deployment.parts, *_weights_beside(deployment, comparison))
        writable = _writable(parts, record)
        _check_fixed(directory, parts, writable, record)
        compared = (comparison.compare(p.name, p.artifact) for p in parts if p.name in writable)
        weights = tuple(filter(None, compared))
        if not force:
            said = {part.name: part.record for part in parts}
            said[HASH_FILE_NAME] = deployment.stated
            said[MANIFEST_NAME] = None if deployment.seal is None else deployment.seal.record
            _refuse_others(directory, _of_others(record, said), weights)
        if file_states(sealed_files(directory)) != before:
            raise SealError(
                f"cannot tag {directory!r}: a file changed meanwhile. Tag it again when nobody "
                "writes into it"
            )
        for part in parts:
            if part.name in writable and part.record != writable[part.name]:
                write_record(files[part.name], writable[part.name])
        if deployment.stated is not None and deployment.stated.model != record.model:
            write_hash_file(directory, record.model)
    path = seal(directory, _ignored(directory, deployment))
    sealed = read_seal(directory).record
    if sealed is None or sealed.model != record.model:
        raise SealError(f"{directory!r} was tagged by someone else meanwhile: check it")
    by_seal = tuple(part.name for part in parts if part.name not in writable)
    return Tagged(path, record, tuple(writable), by_seal, weights)


def _read(directory: str, take_broken: bool) -> Deployment:
    try:
        deployment = Deployment.read(directory, take_broken=take_broken)
    except BrokenSealError as error:
        error.args = (
            f"cannot tag {directory!r}: {error}. If they are known to be right, as after a 'tag' "
            "that was interrupted, force it (--force, force=True)",
        )
        raise
    for reason in deployment.damaged.values():
        raise ArtifactError(reason)
    check_complete(directory, deployment.parts)
    return deployment


def _ignored(directory: str, deployment: Deployment) -> tuple[str, ...]:
    """The patterns of the seal that is replaced, which its maker has chosen."""
    if deployment.seal is not None:
        return deployment.seal.ignored
    if deployment.broken is not None and MANIFEST_NAME not in deployment.broken.changed:
        return read_seal(directory).ignored
    return ()


def _new_record(record: Record, found: Record | None) -> Record:
    """The record to write: nothing that is known of the same model and its compilation is lost."""
    if found is None or not compare(record, found).ok:
        return record
    fields = dict(record.extra)
    return replace(
        record,
        graph=record.graph or found.graph,
        weights=record.weights or found.weights,
        extra=(*record.extra, *(field for field in found.extra if field[0] not in fields)),
    )


def _writable(parts: Iterable[Part], record: Record) -> dict[str, Record]:
    """The records to write, by the names of the parts that have a place for one."""
    parts = tuple(parts)
    shards = {
        posixpath.join(posixpath.dirname(part.name), shard)
        for part in parts
        for shard in part.artifact.files
    }
    writable = {}
    for part in parts:
        if part.name != part.file or part.name in shards:
            continue
        new = _new_record(record, part.record)
        try:
            check_writable(part.artifact.path, new)
        except (FixedRecordError, UnknownArtifactError):
            continue
        writable[part.name] = new
    return writable


def _check_fixed(
    directory: str, parts: Iterable[Part], writable: Mapping[str, Record], record: Record
) -> None:
    """Check that what can't be changed goes with what is to be written."""
    parts = tuple(parts)
    fixed = [part for part in parts if part.name not in writable]
    others = _of_others(record, {part.name: part.record for part in fixed})
    if others:
        raise HashConflictError(
            f"cannot tag {directory!r}: the record of another model is in {_named(others)}, where "
            "it can't be changed. Compile that anew, or give the model that it is of"
        )
    if not writable and all(part.record is None for part in fixed):
        raise FixedRecordError(
            f"cannot tag {directory!r}: no part of it has a place for a record that can be "
            f"changed, found only {_named([part.name for part in fixed])}. Compile it with "
            "get_hash=True; or, if weights lie beside it that could not be told, tag their file "
            "first"
        )
    after = [
        part._replace(artifact=replace(part.artifact, record=writable.get(part.name, part.record)))
        for part in parts
    ]
    different = disagreement({part.name: part.record for part in after}, after)
    if different:
        raise HashConflictError(f"cannot tag {directory!r}: {different}")


def _of_others(record: Record, said: Mapping[str, Record | None]) -> list[str]:
    return [
        name for name, found in said.items() if found is not None and not compare(record, found).ok
    ]


def _refuse_others(path: str, others: list[str], weights: Iterable[ComparedWeights]) -> None:
    force = "If it is known to be of this one, force it (--force, force=True)"
    if others:
        where = "it" if others == [path] else _named(others)
        raise HashConflictError(
            f"cannot tag {path!r}: the record of another model is in {where}. {force}"
        )
    for found in weights:
        if found.changed:
            where = "" if found.name == path else f" of {found.name!r}"
            are = "is called as one" if len(found.changed) == 1 else "are called as ones"
            raise HashConflictError(
                f"cannot tag {path!r}: {_named(found.changed)}{where} {are} of the model's "
                "weights, with the same type and shape, and other values: another model, it seems "
                f"({found}). {force}"
            )


def _weights_beside(deployment: Deployment, comparison: Comparison) -> list[Part]:
    """The files of parameters that belong to a library which does not say what it takes.

    As long as they have no record, they could be anybody's; but here the model is at hand.
    """
    if any(tensors_of(part.artifact) for part in deployment.parts):
        return []
    found = []
    for name in deployment.others:
        if name not in deployment.files:  # it is in an archive
            continue
        parts = parts_in_file(name, deployment.files[name])
        if not parts or parts[0].name != name:
            continue
        weights = comparison.compare(name, parts[0].artifact)
        # One number of a sample input may be in the model by chance.
        if weights and (weights.changed or 2 * weights.unchanged >= weights.tensors):
            found += parts
    return found


def _named(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
