# SPDX-License-Identifier: Apache-2.0
"""A directory with a deployment: its parts, what is said beside them, and its seal."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..artifact.carrier import Artifact, Role
from ..artifact.record_io import read_artifact
from ..boundary import reading, reads
from ..errors import (
    ArtifactError,
    BrokenSealError,
    ModelHashError,
    OutputError,
    RecordError,
    UnknownArtifactError,
)
from ..files import is_directory, is_url, join, one_version
from ..record import Record
from .hash_file import HASH_FILE_NAME, read_hash_file
from .manifest import MANIFEST_NAME, Seal, compare_with_seal, sealed_files
from .package import unpacked
from .parts import (
    Part,
    check_complete,
    disagreement,
    file_names,
    parts_in_file,
    read_parts,
)

#: The names that the files get when a deployment is saved; ONNX Runtime's TVM provider reads these.
LIBRARY_NAME = "lib.so"
CODE_NAME = "code.ro"
CONSTANTS_NAME = "consts"
GRAPH_NAME = "graph.json"
PARAMETERS_NAME = "params"
RELAX_PARAMETERS_NAME = "params.bin"

_SAVED_NAMES = (
    *(LIBRARY_NAME, CODE_NAME, CONSTANTS_NAME, GRAPH_NAME),
    *(PARAMETERS_NAME, RELAX_PARAMETERS_NAME, HASH_FILE_NAME, MANIFEST_NAME),
)


@dataclass(frozen=True)
class Deployment:
    """The parts of a deployment, and what their records say.

    Parameters
    ----------
    directory : str
        The directory.
    files : mapping of str to str
        For each file its name below the directory, and the path by which it was read.
    parts : tuple of Part
        What computes or holds weights: executables first.
    others : tuple of str
        Names of the files that are not of a model.
    stated : Record, optional
        What ``hash.txt`` says, None where there is none.
    seal : Seal, optional
        What the manifest says, and is so; None where there is none.
    broken : BrokenSealError, optional
        How the files differ from the manifest, if they do.
    damaged : mapping of str to str
        Of a deployment with a broken seal: names of the files that could not be read, and why.
    """

    directory: str
    files: Mapping[str, str]
    parts: tuple[Part, ...]
    others: tuple[str, ...]
    stated: Record | None
    seal: Seal | None
    broken: BrokenSealError | None = field(default=None, compare=False)
    damaged: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    @one_version()
    def read(
        cls,
        directory: str | os.PathLike[str],
        files: Mapping[str, str] | None = None,
        *,
        take_broken: bool = False,
        follow_links: bool = False,
    ) -> Deployment:
        """Read the parts of a deployment, and compare its files with its manifest if it has one.

        Parameters
        ----------
        directory : str or os.PathLike
            The directory, or an archive of one.
        files : mapping of str to str, optional
            For each file its name below the directory and the path to read it by, a private copy
            for example; by default all files that are there.
        take_broken : bool
            Whether a deployment with a broken seal is read too, as far as that goes. Then
            ``broken`` has to be looked at.
        follow_links : bool
            Whether a symbolic link to a file, wherever that lies, stands for the file.

        Returns
        -------
        deployment : Deployment

        Raises
        ------
        ArtifactError
            If the directory holds no deployment, or a part is damaged, missing, or a symbolic link
            to a place outside.
        InvalidHashError
            If ``hash.txt`` is malformed.
        BrokenSealError
            If a file is not the one that the manifest lists.
        SealError
            If the manifest is not as it was written.
        """
        directory = os.fsdecode(directory)
        with reading(directory):
            files = list_files(directory, follow_links) if files is None else files
            own = (HASH_FILE_NAME, MANIFEST_NAME)
            others = {name: path for name, path in files.items() if name not in own}
            seal = None
            try:
                if MANIFEST_NAME in files:
                    seal = compare_with_seal(directory, files, follow_links)
            except BrokenSealError as error:
                if not take_broken:
                    raise
                return cls._read_broken(directory, files, others, error)
            found = read_parts(others)
            check_complete(directory, found.parts)
            stated = read_hash_file(files[HASH_FILE_NAME]) if HASH_FILE_NAME in files else None
            return cls(directory, files, found.parts, found.others, stated, seal)

    @classmethod
    def _read_broken(
        cls,
        directory: str,
        files: Mapping[str, str],
        others: Mapping[str, str],
        error: BrokenSealError,
    ) -> Deployment:
        damaged: dict[str, str] = {}
        found = read_parts(others, damaged)
        stated = None
        if HASH_FILE_NAME in files:
            try:
                stated = read_hash_file(files[HASH_FILE_NAME])
            except ModelHashError as unreadable:
                damaged[HASH_FILE_NAME] = str(unreadable)
        return cls(directory, files, found.parts, found.others, stated, None, error, damaged)

    @property
    def record(self) -> Record | None:
        """The record of the first part that has one."""
        return next((part.record for part in self.parts if part.record is not None), None)

    @cached_property
    def disagreement(self) -> str | None:
        """One sentence if the parts are not of one model or compilation; None if they are."""
        records: dict[str, Record | None] = {part.name: part.record for part in self.parts}
        if self.record is not None:
            records[HASH_FILE_NAME] = self.stated
            records[MANIFEST_NAME] = None if self.seal is None else self.seal.record
        return disagreement(records, self.parts)

    @property
    def is_listed_by_server(self) -> bool:
        """Whether a web server's page said which files there are, which may leave some out."""
        return any(path.startswith(("http://", "https://")) for path in self.files.values())

    @property
    def sealed(self) -> frozenset[str]:
        """Names of the files that a manifest with a record covers."""
        if self.seal is None or self.seal.record is None:
            return frozenset()
        return frozenset(file.name for file in self.seal.files)

    @property
    def unknown(self) -> tuple[Part, ...]:
        """The parts of which nothing says which model they are of."""
        sealed = self.sealed
        return tuple(p for p in self.parts if p.record is None and p.file not in sealed)

    @property
    def by_seal(self) -> tuple[Part, ...]:
        """The parts that carry no record themselves, and that the seal covers."""
        sealed = self.sealed
        return tuple(p for p in self.parts if p.record is None and p.file in sealed)

    @property
    def beside_seal(self) -> tuple[str, ...]:
        """Names of the files that the manifest, if there is one, does not list."""
        return () if self.seal is None else self.seal.beside(self.files)

    def covers(self, part: Part) -> tuple[str, ...]:
        """Find what says which model a part is of.

        Parameters
        ----------
        part : Part
            One of the parts.

        Returns
        -------
        covers : tuple of str
            ``"record"`` and ``"seal"``, both, one or none.
        """
        of_itself = ("record",) if part.record is not None else ()
        return (*of_itself, "seal") if part.file in self.sealed else of_itself

    def to_dict(self) -> dict[str, Any]:
        """Give what is in it, as JSON has it.

        Returns
        -------
        fields : dict
            Without its path.
        """
        return {
            "parts": [
                {
                    "name": part.name,
                    **part.artifact.to_dict(),
                    "covered_by": list(self.covers(part)),
                }
                for part in self.parts
            ],
            "others": list(self.others),
            "damaged": dict(self.damaged),
            "stated": self.stated and self.stated.to_dict(),
        }

    def only(self, role: Role) -> Part | None:
        """Find the one part of a role.

        Parameters
        ----------
        role : Role
            The role.

        Returns
        -------
        part : Part or None
            None if there is no such part.

        Raises
        ------
        ArtifactError
            If there are several, so that one can't say which to load.
        """
        found = [part for part in self.parts if part.artifact.role is role]
        if len(found) > 1:
            names = ", ".join(repr(part.name) for part in found)
            raise ArtifactError(
                f"{self.directory!r} has {len(found)} parts that are {role.value}: {names}. One "
                "of them has to be chosen: put the files that belong together into a directory"
            )
        return found[0] if found else None


@one_version()
@reads()
def read(
    path: str | os.PathLike[str], *, take_broken: bool = False, follow_links: bool = False
) -> Artifact | Deployment:
    """Read whatever is at a path: one artifact, or a deployment in a directory or an archive.

    Parameters
    ----------
    path : str or os.PathLike
        The path, or a URL; at a web server that of a directory ends in ``/``.
    take_broken, follow_links : bool
        As for :meth:`Deployment.read`.

    Returns
    -------
    found : Artifact or Deployment

    Raises
    ------
    ModelHashError
        As :func:`~tvm_model_hash.artifact.record_io.read_artifact` and :meth:`Deployment.read`
        raise them.
    """
    path = os.fsdecode(path)
    if is_directory(path):
        return Deployment.read(path, take_broken=take_broken, follow_links=follow_links)
    try:
        return read_artifact(path)
    except UnknownArtifactError:
        with unpacked(path) as files:
            if files is None:
                raise
            return Deployment.read(path, _from_their_top(files), take_broken=take_broken)


def _from_their_top(files: Mapping[str, str]) -> Mapping[str, str]:
    """Names from where the deployment begins in an archive of a directory, as tar makes it."""
    while all("/" in name for name in files) and len({n.partition("/")[0] for n in files}) == 1:
        files = {name.partition("/")[2]: path for name, path in files.items()}
    return files


def list_files(directory: str, follow_links: bool = False) -> dict[str, str]:
    """List what may be read in a directory.

    Parameters
    ----------
    directory : str
        The directory, or its URL.
    follow_links : bool
        Whether a symbolic link to a file stands for the file where that lies outside, too.

    Returns
    -------
    files : dict of str to str
        For each file its name below the directory, and its path.

    Raises
    ------
    RemoteError
        If the directory cannot be listed behind its URL.
    ArtifactError
        If the directory cannot be read, or an artifact in it is a symbolic link to a place outside.
    SealError
        If it has a manifest, and something in it that a manifest can't list.
    """
    if is_url(directory):
        # No links: all that is listed is a file. A name that no manifest can list, none can miss.
        return {name: join(directory, name) for name, _ in file_names(directory)}
    manifest = os.path.join(directory, MANIFEST_NAME)
    if os.path.lexists(manifest):
        return {**sealed_files(directory, follow_links), MANIFEST_NAME: manifest}
    files = {}
    root = os.path.realpath(directory)
    for name, mode in file_names(directory):
        path = os.path.join(directory, name)
        if stat.S_ISLNK(mode):
            target = os.path.realpath(path)
            is_inside = target.startswith(os.path.join(root, ""))
            if not is_inside and not (follow_links and os.path.isfile(target)):
                _refuse_parts_outside(name, path, target)
                continue
            if not os.path.isfile(target):
                continue
        elif not stat.S_ISREG(mode):
            continue
        files[name] = path
    return files


def check_replaceable(directory: str) -> None:
    """Check that a directory holds nothing but a deployment, so that it may be replaced.

    Parameters
    ----------
    directory : str
        The directory.

    Raises
    ------
    OutputError
        If there is anything else in it, which would be lost.
    """
    others = []
    for name, mode in file_names(directory):
        if name in (HASH_FILE_NAME, MANIFEST_NAME) and stat.S_ISREG(mode):
            continue
        try:
            artifact = read_artifact(os.path.join(directory, name))
            # Arrays without a record may be anybody's: a sample input, the weights as trained.
            if artifact.role is Role.PARAMETERS and artifact.record is None:
                others.append(name)
        except UnknownArtifactError:
            others.append(name)
        except (ArtifactError, RecordError):
            # A damaged part is one all the same; but anything can look like a damaged one.
            if name not in _SAVED_NAMES or not stat.S_ISREG(mode):
                others.append(name)
    if others:
        named = ", ".join(map(repr, others[:3])) + (", ..." if len(others) > 3 else "")
        raise OutputError(
            f"cannot replace {directory!r}: {named} in it is not of a deployment, and would be "
            "lost. Move it away, or save elsewhere"
        )


def _refuse_parts_outside(name: str, path: str, target: str) -> None:
    if os.path.isdir(target):
        found = "a directory"
    elif os.path.isfile(target) and (parts := parts_in_file(name, path)):
        found = parts[0].artifact.kind
    else:
        return
    raise ArtifactError(
        f"{name!r} ({found}) is a symbolic link to {target!r}, outside of the directory: what is "
        "there can change without the directory. Put what it leads to in its place; or, where that "
        "is a file, ask for links to be followed (--follow-links, follow_links=True)"
    )
