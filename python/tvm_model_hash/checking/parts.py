# SPDX-License-Identifier: Apache-2.0
"""The parts of a deployment, and whether they belong together.

A directory's files are told by their contents, whatever they are called. What computes or holds
weights is a part; a match has to cover every part.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from .. import limits
from ..artifact.carrier import Artifact, Role
from ..artifact.record_io import read_artifact
from ..boundary import reading
from ..errors import ArtifactError, ModelHashError, UnknownArtifactError
from ..files import directory_of, is_temporary, is_url, join, mode_of, regular_size
from ..record import DIGEST_KEYS, Record, conflict
from .package import is_archive, unpacked

_DIGITS = "0123456789"


class Part(NamedTuple):
    """A file of a deployment that computes or holds weights.

    Parameters
    ----------
    name : str
        Its name below the directory, with ``/`` between the parts of the name. Of a file in an
        archive, the archive's name is before it.
    artifact : Artifact
        What it is.
    file : str
        Name of the file that holds it: its own, or the archive's.
    """

    name: str
    artifact: Artifact
    file: str

    @property
    def record(self) -> Record | None:
        """The record that it carries itself."""
        return self.artifact.record


class Parts(NamedTuple):
    """What is in a directory.

    Parameters
    ----------
    parts : tuple of Part
        What computes or holds weights, in the order in which it is told of: executables, graphs,
        kernels, parameters.
    others : tuple of str
        Names of the files that are not of a model.
    """

    parts: tuple[Part, ...]
    others: tuple[str, ...]


_ORDER = (Role.EXECUTABLE, Role.GRAPH, Role.KERNELS, Role.PARAMETERS)


def file_names(directory: str) -> Iterator[tuple[str, int]]:
    """Find all files below a directory but those that this package had not finished to write.

    Parameters
    ----------
    directory : str
        The directory, or its URL.

    Yields
    ------
    name : str
        Of what is no directory, separated by ``/``.
    mode : int
        Its mode, of a symbolic link the link's own.

    Raises
    ------
    ArtifactError
        If a directory cannot be read, or there are more files, or deeper ones, than the limits.
    RemoteError
        If one cannot be listed where a URL says that it is.
    """
    if is_url(directory):
        from ..remote.store import walk

        for name in walk(directory):
            if not any(map(is_temporary, name.split("/"))):
                yield name, stat.S_IFREG
        return
    waiting = [("", stat.S_IFDIR, 0)]
    count = 0
    while waiting:
        name, mode, depth = waiting.pop()
        if not stat.S_ISDIR(mode):
            yield name, mode
            continue
        if depth > limits.DIRECTORY_DEPTH:
            raise ArtifactError(
                f"cannot read {os.path.join(directory, name)!r}: it lies deeper in {directory!r} "
                f"than the limit of {limits.DIRECTORY_DEPTH} directories"
            )
        path = os.path.join(directory, name)
        found = []
        with reading(path), os.scandir(path) as entries:
            for entry in entries:
                if is_temporary(entry.name):
                    continue
                found.append((entry.name, mode_of(entry)))
                count += 1
                _check_count(count, directory)
        below = f"{name}/" if name else ""
        waiting += [(below + entry, mode, depth + 1) for entry, mode in sorted(found, reverse=True)]


def _check_count(count: int, directory: str) -> None:
    if count > limits.DIRECTORY_FILES:
        raise ArtifactError(
            f"cannot read {directory!r}: more files are below it than the limit of "
            f"{limits.DIRECTORY_FILES}"
        )


def read_parts(files: Mapping[str, str], damaged: dict[str, str] | None = None) -> Parts:
    """Read what files are, and tell the parts of a deployment from others.

    Parameters
    ----------
    files : mapping of str to str
        For each file its name, for messages, and the path to read it by.
    damaged : dict of str to str, optional
        Where to put, by their names, why files can't be read; by default that is an error.

    Returns
    -------
    parts : Parts

    Raises
    ------
    ArtifactError
        If an artifact is damaged or can't be read.
    RecordError
        If a record is malformed.
    """
    found = {}
    for name, path in files.items():
        try:
            found[name] = _read_file(name, path)
        except ModelHashError as error:
            if damaged is None:
                raise
            damaged[name] = str(error)
    groups = [group for groups in found.values() for group in groups]
    artifacts = [part.artifact for group in groups for part in group]
    wanted = {name for artifact in artifacts for name in tensors_of(artifact)}
    if len(groups) > limits.PARTS:
        raise ArtifactError(
            f"it has {len(groups)} artifacts, more than the limit of {limits.PARTS} for a "
            "deployment"
        )
    needed = {len(artifact.needs) for artifact in artifacts if artifact.needs}
    parts: dict[str, Part] = {}
    others = {name for name, groups_in_it in found.items() if not groups_in_it}
    for first, *further in groups:
        artifact = first.artifact
        # Any array file has tensors. Those of a sample input are nobody's weights.
        if (
            artifact.role is not Role.PARAMETERS
            or artifact.record is not None
            or not wanted.isdisjoint(artifact.tensors)
            or _numbered(artifact.tensors) in needed
        ):
            # A file that is named is one part, however many name it.
            parts |= {part.name: part for part in (first, *further)}
        else:
            others.add(first.name)
    ordered = sorted(parts.values(), key=lambda part: (_ORDER.index(part.artifact.role), part.name))
    return Parts(tuple(ordered), tuple(sorted(others - parts.keys())))


def _read_file(name: str, path: str) -> list[list[Part]]:
    """What a file is, or the files in it are, each with the files that it only names."""
    try:
        artifact = read_artifact(path)
    except UnknownArtifactError:
        pass
    else:
        return [[Part(name, artifact, name), *_shards(name, artifact)]]
    groups = []
    with unpacked(path) as files:
        for inner, copy in (files or {}).items():
            try:
                artifact = read_artifact(copy)
            except UnknownArtifactError:
                if is_archive(copy):
                    raise ArtifactError(
                        f"{f'{name}/{inner}'!r} is an archive in an archive, into which nobody "
                        f"looks: unpack {name!r}"
                    ) from None
                continue
            first = Part(f"{name}/{inner}", artifact, name)
            groups.append([first, *_shards(first.name, artifact, name)])
    return groups


def parts_in_file(name: str, path: str) -> list[Part]:
    """Read what a file is, or what the files in an archive are.

    Parameters
    ----------
    name : str
        The file's name, for messages.
    path : str
        The path to read it by.

    Returns
    -------
    parts : list of Part
        Also those of which only a deployment tells whether they are a part of it.

    Raises
    ------
    ArtifactError, RecordError
        As :func:`read_parts`.
    """
    return [part for group in _read_file(name, path) for part in group]


def _shards(name: str, artifact: Artifact, archive: str | None = None) -> list[Part]:
    """The files that a part only names, which hold weights and have no place for a record."""
    shards = []
    for shard in artifact.files:
        path = join(directory_of(artifact.path), shard)
        beside = posixpath.join(posixpath.dirname(name), shard)
        with reading(path):
            size = regular_size(path)
        kind = f"weights of {posixpath.basename(name)}"
        own = Artifact(path, kind, "file", size, Role.PARAMETERS, tensors=artifact.tensors)
        shards.append(Part(beside, own, archive or beside))
    return shards


def tensors_of(artifact: Artifact) -> tuple[str, ...]:
    """Names of the tensors that an artifact may take from a file of parameters."""
    if artifact.role is Role.GRAPH and not artifact.needs:
        return artifact.inputs or ()  # a graph does not say which of them are weights
    return artifact.needs


def check_complete(where: str, parts: Iterable[Part]) -> None:
    """Check that what each part needs is met by another one.

    Parameters
    ----------
    where : str
        The directory, for messages.
    parts : iterable of Part
        The parts of a deployment.

    Raises
    ------
    ArtifactError
        If kernels or tensors are missing, or a file has tensors that no part needs.
    """
    parts = tuple(parts)
    if not any(part.artifact.role in (Role.EXECUTABLE, Role.GRAPH) for part in parts):
        found = ", ".join(f"{part.name!r} ({part.artifact.kind})" for part in parts)
        raise ArtifactError(
            f"{where!r} is no deployment: expected an executable or a graph, found "
            + (f"only {found}" if found else "no artifact at all")
        )
    has_kernels = any(part.artifact.role is Role.KERNELS for part in parts)
    for part in parts:
        if part.artifact.needs_kernels and not has_kernels:
            raise ArtifactError(
                f"{where!r} is incomplete: {part.name!r} ({part.artifact.kind}) calls the kernels "
                "of a library, and there is none in it"
            )
    files = [part for part in parts if part.artifact.role is Role.PARAMETERS]
    # One, of all the shards of a cache.
    lists = {id(part.artifact.tensors): part.artifact.tensors for part in files}
    found_names = {name for names in lists.values() for name in names}
    found_count = _numbered(tuple(found_names))
    for part in parts:
        missing = [name for name in part.artifact.needs if name not in found_names]
        if missing and found_count != len(part.artifact.needs):
            raise ArtifactError(
                f"{where!r} is incomplete: {part.name!r} ({part.artifact.kind}) needs "
                f"{_some(missing)} from a file of parameters, and no file has "
                + ("it" if len(missing) == 1 else "them")
            )
    wanted = {name for part in parts for name in tensors_of(part.artifact)}
    counts = {len(part.artifact.needs) for part in parts}
    for part in files if wanted else ():
        names = lists.pop(id(part.artifact.tensors), ())
        extra = [name for name in names if name not in wanted]
        if extra and _numbered(names) not in counts:
            raise ArtifactError(
                f"{part.name!r} in {where!r} has {_some(extra)}, which no part needs: it is of "
                "another compilation or of another model"
            )


def disagreement(records: Mapping[str, Record | None], parts: Iterable[Part]) -> str | None:
    """Find out whether parts are not of one model, or not of one compilation.

    Parameters
    ----------
    records : mapping of str to (Record or None)
        What is said by the parts, and beside them, by name.
    parts : iterable of Part
        The parts.

    Returns
    -------
    sentence : str or None
        What disagrees; None if nothing does.
    """
    known = {name: record for name, record in records.items() if record is not None}
    for key in DIGEST_KEYS:
        said = {name: getattr(record, key) for name, record in known.items()}
        if len(set(said.values()) - {None}) > 1:
            each = ", ".join(f"{name!r} is of {key} {said[name]}" for name in said if said[name])
            return f"the parts are of different models: {each}"
    partners = _partners(tuple(parts))
    for part, others in partners if known else ():
        for role in Role:
            of_role = [other for other in others if other.artifact.role is role]
            # Code and kernels for each of several platforms are of a compilation of their own; so
            # one partner is enough.
            if of_role and all(_conflict(part, other) for other in of_role):
                return _conflict(part, of_role[0])
    return None


def _partners(parts: tuple[Part, ...]) -> list[tuple[Part, list[Part]]]:
    """The parts, each with those that it works together with, whether it needs them or they it."""
    partners: dict[int, list[Part]] = {index: [] for index in range(len(parts))}
    for index, one in enumerate(parts):
        needs = one.artifact.needs
        wanted = frozenset(tensors_of(one.artifact))
        takes: dict[int, bool] = {}  # once for all the shards of a cache, which have one list
        if not wanted and not one.artifact.needs_kernels:
            continue
        for place, other in enumerate(parts):
            names = other.artifact.tensors
            if other.artifact.role is Role.KERNELS:
                together = one.artifact.needs_kernels
            elif other.artifact.role is Role.PARAMETERS and wanted:
                if id(names) not in takes:
                    takes[id(names)] = not wanted.isdisjoint(names) or _numbered(names) == len(
                        needs
                    )
                together = takes[id(names)]
            else:
                together = False
            if together:
                partners[index].append(other)
                partners[place].append(one)
    return [(part, partners[index]) for index, part in enumerate(parts)]


def _conflict(a: Part, b: Part) -> str | None:
    if a.record is None or b.record is None:
        return None
    found = conflict(a.record, b.record)
    return found and f"{found}: {a.name!r} and {b.name!r} were not compiled together"


def _numbered(names: Sequence[str]) -> int | None:
    """How many names there are, if they are those of a list; None if they are not.

    TVM's tutorials name the parameters of a list in a file so: p_0, p_1; param_0, param_1.
    """
    prefixes, numbers = set(), set()
    for name in names:
        digits = name[len(name.rstrip(_DIGITS)) :]
        number = digits.lstrip("0") or digits[-1:]
        # Of no list, or one that is longer than this.
        if not number or len(number) > len(str(len(names))):
            return None
        prefixes.add(name[: len(name) - len(number)])
        numbers.add(int(number))
    return len(names) if len(prefixes) == 1 and numbers == set(range(len(names))) else None


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    what = "the tensor" if len(names) == 1 else f"{len(names)} tensors,"
    return f"{what} {shown}" + (", ..." if len(names) > 3 else "")
