# SPDX-License-Identifier: Apache-2.0
"""Sealing a directory: a manifest that lists each file with its size and SHA-256.

FORMAT.md states the manifest's format; ``sha256sum -c`` checks the files by it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..artifact.record_io import read_record
from ..errors import (
    ArtifactError,
    BrokenSealError,
    HashConflictError,
    ModelHashError,
    SealError,
    UnknownArtifactError,
)
from ..files import file_sha256, open_regular, replacing
from ..record import Record

MANIFEST_NAME = "SHA256SUMS"

_VERSION_LINE = "# tvm-model-hash seal/1"
_NO_RECORD = "none"
_LAST_LINE = "# sha256 of the lines above: "
_FILE_LINES = re.compile(r"# ([0-9]+) bytes:\n([0-9a-f]{64})  (.+)\n")
# Far above what a deployment's manifest needs, so that another file isn't read as one.
_MAX_MANIFEST_BYTES = 64 * 1024 * 1024


class SealedFile(NamedTuple):
    """A file as the manifest lists it: its name below the directory, its size, its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Seal:
    """What the manifest of a directory says.

    Parameters
    ----------
    record : Record, optional
        The record that the artifacts in the directory carry, None where none carries one.
    files : tuple of SealedFile
        The files, sorted by name.
    """

    record: Record | None
    files: tuple[SealedFile, ...]

    def __str__(self) -> str:
        lines = [_VERSION_LINE, f"# record: {self.record or _NO_RECORD}"]
        for name, size, sha256 in self.files:
            lines += [f"# {size} bytes:", f"{sha256}  {name}"]
        text = "".join(f"{line}\n" for line in lines)
        return f"{text}{_LAST_LINE}{_sha256_of(text)}\n"


def seal(directory: str | os.PathLike[str]) -> str:
    """Write the manifest of a directory: ``SHA256SUMS``, which replaces the one there.

    Parameters
    ----------
    directory : str or os.PathLike
        The directory of a deployment; files in directories below it belong to it.

    Returns
    -------
    path : str
        The path of the manifest.

    Raises
    ------
    SealError
        If there is no such directory, no file in it, or something that a manifest can't list: a
        symbolic link, a device, a name that ``sha256sum`` would not take as it is.
    HashConflictError
        If the artifacts in it carry different records.
    ArtifactError
        If an artifact in it is damaged or can't be read.
    OutputError
        If the manifest can't be written; the one there is unchanged.
    """
    directory = os.fsdecode(directory)
    found: dict[str, tuple[Record, str]] = {}  # by model
    files = []
    for name in sorted(_names(directory)):
        path = os.path.join(directory, name)
        files.append(_sealed_file(path, name))
        try:
            record = read_record(path)
        except UnknownArtifactError:
            continue
        if record is not None:
            found.setdefault(record.model, (record, name))
    if not files:
        raise SealError(f"cannot seal {directory!r}: there is no file in it")
    if len(found) > 1:
        models = "; ".join(f"{name!r} carries '{record}'" for record, name in found.values())
        raise HashConflictError(
            f"cannot seal {directory!r}: its files are of different models, expected one: {models}"
        )
    path = os.path.join(directory, MANIFEST_NAME)
    _check_replaceable(path)
    with replacing(path) as file:
        record = next(iter(found.values()))[0] if found else None
        file.write(str(Seal(record, tuple(files))).encode())
    return path


def read_seal(directory: str | os.PathLike[str]) -> Seal:
    """Read the manifest of a directory, without looking at the files.

    Parameters
    ----------
    directory : str or os.PathLike
        The directory.

    Returns
    -------
    seal : Seal
        What the manifest says.

    Raises
    ------
    SealError
        If there is no manifest, or it is not as :func:`seal` has written it, to the byte.
    """
    path = os.path.join(os.fsdecode(directory), MANIFEST_NAME)
    try:
        with open_regular(path, follow_symlinks=False) as file:
            data = file.read(_MAX_MANIFEST_BYTES + 1)
    except (ArtifactError, OSError) as error:
        raise SealError(f"there is no manifest to check by: {error}") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _malformed(path, f"it is not UTF-8 ({error})") from error
    if not text.startswith(_VERSION_LINE + "\n"):
        found = text.partition("\n")[0][:100]
        raise _malformed(path, f"it begins with {found!r}, expected {_VERSION_LINE!r}")
    body, last, digest = text.rpartition(_LAST_LINE)
    if not last or digest != _sha256_of(body) + "\n":
        raise _malformed(
            path, f"its last line is not {_LAST_LINE + _sha256_of(body)!r}: it was altered or cut"
        )
    try:
        found_seal = _parse(body)
    except ModelHashError as error:
        raise _malformed(path, str(error)) from error
    if str(found_seal) != text:
        raise _malformed(path, "its lines are not in the form or the order that seal writes")
    return found_seal


def verify_seal(directory: str | os.PathLike[str]) -> Seal:
    """Check that the files of a directory are the ones that its manifest lists.

    Parameters
    ----------
    directory : str or os.PathLike
        The directory.

    Returns
    -------
    seal : Seal
        What the manifest says, all of which is so.

    Raises
    ------
    BrokenSealError
        If files are missing, extra or changed; it has their names.
    SealError
        If there is no manifest, or it was altered.
    ArtifactError
        If a file can't be read.
    """
    directory = os.fsdecode(directory)
    found_seal = read_seal(directory)
    listed = {file.name: file for file in found_seal.files}
    present = set(_names(directory))
    missing = tuple(name for name in listed if name not in present)
    extra = tuple(sorted(present - set(listed)))
    differences = [f"{name!r} is missing" for name in missing]
    differences += [f"{name!r} is not in the manifest" for name in extra]
    changed = []
    for name, expected in listed.items():
        if name in present:
            found = _sealed_file(os.path.join(directory, name), name)
            if found != expected:
                changed.append(name)
                differences.append(
                    f"{name!r} is changed: expected {expected.size} bytes with SHA-256 "
                    f"{expected.sha256}, found {found.size} with {found.sha256}"
                )
    if differences:
        raise BrokenSealError(
            f"the files in {directory!r} are not the ones that were sealed: "
            + "; ".join(differences),
            missing,
            extra,
            tuple(changed),
        )
    return found_seal


def _check_replaceable(path: str) -> None:
    # Many projects have a file of this name, and what is in it may be all there is.
    if not os.path.isfile(path):
        return
    with open_regular(path, follow_symlinks=False) as file:
        head = file.read(len(_VERSION_LINE) + 1)
    if head != f"{_VERSION_LINE}\n".encode():
        raise SealError(
            f"cannot write {path!r}: there is a file of that name which tvm-model-hash did not "
            "write; move it away first"
        )


def _parse(body: str) -> Seal:
    match = re.match(r".*\n# record: (.*)\n", body)
    if not match:
        raise SealError("its second line is not the record's")
    record = None if match[1] == _NO_RECORD else Record.parse(match[1])
    files = []
    position = match.end()
    while position < len(body):
        lines = _FILE_LINES.match(body, position)
        if not lines:
            found = body[position:].partition("\n")[0][:100]
            raise SealError(f"expected the lines of a file, found {found!r}")
        _check_name(lines[3])
        files.append(SealedFile(lines[3], int(lines[1]), lines[2]))
        position = lines.end()
    names = [file.name for file in files]
    if names != sorted(set(names)):
        raise SealError("its files are not sorted, or one is listed twice")
    return Seal(record, tuple(files))


def _names(directory: str, below: str = "") -> Iterator[str]:
    """The names of all files below a directory but its manifest, separated by ``/``."""
    path = os.path.join(directory, below)
    try:
        with os.scandir(path) as entries:
            modes = {entry.name: entry.stat(follow_symlinks=False).st_mode for entry in entries}
    except OSError as error:
        raise SealError(f"cannot list the directory {path!r}: {error.strerror or error}") from error
    for entry, mode in modes.items():
        name = below + entry
        if name == MANIFEST_NAME:
            continue
        if stat.S_ISDIR(mode):
            yield from _names(directory, name + "/")
        elif stat.S_ISREG(mode):
            _check_name(name)
            yield name
        else:
            found = "a symbolic link" if stat.S_ISLNK(mode) else "neither file nor directory"
            raise SealError(
                f"{name!r} in {directory!r} is {found}, which says nothing about a content: put "
                "the file itself there, or remove it"
            )


def _check_name(name: str) -> None:
    # sha256sum escapes backslashes and line ends, each version of it others, and "-" is not a
    # file to it. Names from a manifest must not lead out of the directory.
    parts = name.split("/")
    if name == "-" or "\\" in name or not name.isprintable() or {"", ".", ".."} & set(parts):
        raise SealError(
            f"the name {name!r} cannot stand in a manifest: expected a path below the directory, "
            "of printable characters without backslash"
        )


def _sealed_file(path: str, name: str) -> SealedFile:
    return SealedFile(name, *file_sha256(path, follow_symlinks=False))


def _sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _malformed(path: str, why: str) -> SealError:
    return SealError(
        f"{path!r} is not a manifest as it was written by tvm-model-hash: {why}. If the files are "
        "known to be right, seal the directory again"
    )
