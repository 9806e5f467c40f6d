# SPDX-License-Identifier: Apache-2.0
"""Sealing a directory: a manifest that lists each file with its size and SHA-256.

FORMAT.md states the manifest's format; ``sha256sum -c`` checks the files by it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .. import limits
from ..boundary import reading, reads
from ..errors import (
    ArtifactError,
    BrokenSealError,
    HashConflictError,
    ModelHashError,
    SealError,
)
from ..files import (
    FileState,
    file_sha256,
    join,
    locked,
    one_version,
    open_regular,
    refuse_url,
    replacing,
)
from ..record import Record
from .hash_file import HASH_FILE_NAME
from .parts import check_complete, disagreement, file_names, read_parts

MANIFEST_NAME = "SHA256SUMS"

_VERSION_LINE = "# tvm-model-hash seal/1"
_NO_RECORD = "none"
_IGNORE_LINE = re.compile(r"# ignore: (.*)\n")
_LAST_LINE = "# sha256 of the lines above: "
_FILE_LINES = re.compile(r"# ([0-9]{1,19}) bytes:\n([0-9a-f]{64})  (.+)\n")
# What Windows takes for a device wherever it lies, with an ending too.
_DEVICE = re.compile(
    r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(\.|$)", re.I | re.A
)


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
    ignored : tuple of str
        Patterns of the names that files may have which are not listed, sorted.
    """

    record: Record | None
    files: tuple[SealedFile, ...]
    ignored: tuple[str, ...] = ()

    def ignores(self, name: str) -> bool:
        """Whether a file that is not listed may lie there, if it is no part of a deployment.

        Parameters
        ----------
        name : str
            Its name below the directory.

        Returns
        -------
        ignores : bool
        """
        return name != HASH_FILE_NAME and any(
            fnmatch.fnmatchcase(name, pattern) for pattern in self.ignored
        )

    def beside(self, names: Iterable[str]) -> tuple[str, ...]:
        """Find the files of a directory that are not listed, nor the manifest itself.

        Parameters
        ----------
        names : iterable of str
            The names of all files below the directory.

        Returns
        -------
        names : tuple of str
        """
        listed = {MANIFEST_NAME, *(file.name for file in self.files)}
        return tuple(name for name in names if name not in listed)

    def __str__(self) -> str:
        lines = [_VERSION_LINE, f"# record: {self.record or _NO_RECORD}"]
        lines += [f"# ignore: {pattern}" for pattern in self.ignored]
        for name, size, sha256 in self.files:
            lines += [f"# {size} bytes:", f"{sha256}  {name}"]
        text = "".join(f"{line}\n" for line in lines)
        return f"{text}{_LAST_LINE}{_sha256_of(text)}\n"


@reads(SealError)
def seal(
    directory: str | os.PathLike[str],
    ignore: Collection[str] = (),
    *,
    follow_links: bool = False,
) -> str:
    """Write the manifest of a directory: ``SHA256SUMS``, which replaces the one there.

    Parameters
    ----------
    directory : str or os.PathLike
        The directory of a deployment; files in directories below it belong to it.
    ignore : collection of str
        Patterns, as of ``fnmatch.fnmatchcase``, of the names below the directory of files that are
        not listed, and that may change, come and go: logs, what a file manager leaves. The
        manifest has these patterns. What computes or holds weights, and ``hash.txt``, is never
        ignored.
    follow_links : bool
        Whether a symbolic link to a file, wherever that lies, is listed as the file would be, for
        directories that a store has made of links. Who checks has to say the same; ``sha256sum -c``
        always follows them.

    Returns
    -------
    path : str
        The path of the manifest.

    Raises
    ------
    SealError
        If there is no such directory, no file in it, or something that a manifest can't list: a
        symbolic link, a device, a name that not every system takes as it is. Also if a file was
        changed meanwhile, if a pattern takes in what can't be ignored, or can't stand in a
        manifest.
    HashConflictError
        If the parts in it are of different models, or not of one compilation.
    ArtifactError
        If an artifact in it is damaged, can't be read, or needs a part that is missing.
    OutputError
        If the manifest can't be written, or another process has been sealing the directory for
        over a minute; the manifest that is there is unchanged.
    """
    directory = os.fsdecode(directory)
    refuse_url(directory)
    patterns = Seal(None, (), _checked_patterns(sorted({*ignore})))

    def files_to_list() -> dict[str, str]:
        files = sealed_files(directory, follow_links)
        return {name: path for name, path in files.items() if not patterns.ignores(name)}

    if not files_to_list():
        raise SealError(f"cannot seal {directory!r}: there is no file in it")
    with locked(directory):
        files = files_to_list()
        before = file_states(files, follow_links)
        parts = read_parts(sealed_files(directory, follow_links)).parts
        for part in parts:
            if patterns.ignores(part.file):
                raise SealError(
                    f"cannot seal {directory!r}: {part.file!r} is of the deployment "
                    f"({part.artifact.kind}), and a pattern of what is to be ignored takes it in. "
                    "What runs or holds weights is never ignored: give a narrower pattern"
                )
        if parts:
            check_complete(directory, parts)
        records = {part.name: part.record for part in parts}
        different = disagreement(records, parts)
        if different:
            raise HashConflictError(f"cannot seal {directory!r}: {different}")
        sealed = tuple(
            SealedFile(name, *file_sha256(path, follow_symlinks=follow_links))
            for name, path in files.items()
        )
        after = file_states(files_to_list(), follow_links)
        if after != before:
            names = sorted({name for name, _ in before.items() ^ after.items()})
            raise SealError(
                f"cannot seal {directory!r}: {', '.join(map(repr, names))} changed meanwhile. Seal "
                "it again when nobody writes into it"
            )
        path = os.path.join(directory, MANIFEST_NAME)
        check_manifest_replaceable(path)
        with replacing(path) as file:
            record = next((record for record in records.values() if record is not None), None)
            file.write(_manifest(directory, Seal(record, sealed, patterns.ignored)))
    return path


def _manifest(directory: str, found: Seal) -> bytes:
    data = str(found).encode()
    if len(data) > limits.MANIFEST_BYTES:
        raise SealError(
            f"cannot seal {directory!r}: its manifest would have {len(data)} bytes, more than the "
            f"limit of {limits.MANIFEST_BYTES}"
        )
    return data


@reads(SealError)
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
    return _read_manifest(join(os.fsdecode(directory), MANIFEST_NAME))


def _read_manifest(path: str, follow_symlinks: bool = False) -> Seal:
    try:
        with open_regular(path, follow_symlinks) as file:
            data = file.read(limits.MANIFEST_BYTES + 1)
    except (ArtifactError, OSError) as error:
        raise SealError(f"there is no manifest to check by: {error}") from error
    if len(data) > limits.MANIFEST_BYTES:
        raise SealError(
            f"{path!r} has more bytes than the limit of {limits.MANIFEST_BYTES} for a manifest"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        malformed = _malformed(path, f"it is not UTF-8 ({error})")
        if data.startswith(f"{_VERSION_LINE}\n".encode()):
            raise BrokenSealError(str(malformed), changed=(MANIFEST_NAME,)) from error
        raise malformed from error
    if not text.startswith(_VERSION_LINE + "\n"):
        found = text.partition("\n")[0][:100]
        raise _malformed(path, f"it begins with {found!r}, expected {_VERSION_LINE!r}")
    body, last, digest = text.rpartition(_LAST_LINE)
    if not last or digest != _sha256_of(body) + "\n":
        altered = _malformed(
            path, f"its last line is not {_LAST_LINE + _sha256_of(body)!r}: it was altered or cut"
        )
        raise BrokenSealError(str(altered), changed=(MANIFEST_NAME,))
    try:
        with reading(path, SealError):
            found_seal = _parse(body)
    except ModelHashError as error:
        raise _malformed(path, str(error)) from error
    if str(found_seal) != text:
        raise _malformed(path, "its lines are not in the form or the order that seal writes")
    return found_seal


@one_version()
@reads()
def verify_seal(
    directory: str | os.PathLike[str], strict: bool = False, *, follow_links: bool = False
) -> Seal:
    """Check that the files of a directory are the ones that its manifest lists.

    A file beside them that is no part of a deployment (a note, what a file manager leaves) is not
    covered, and breaks nothing; one that computes or holds weights does.

    Parameters
    ----------
    directory : str or os.PathLike
        The directory.
    strict : bool
        Whether any file beside the listed ones breaks the seal that the manifest does not say to
        ignore.
    follow_links : bool
        Whether a symbolic link to a file, wherever that lies, stands for the file, the manifest's
        own too. Else each link is an error.

    Returns
    -------
    seal : Seal
        What the manifest says, all of which is so.

    Raises
    ------
    BrokenSealError
        If files are missing or changed, there are further parts, or the manifest itself was
        altered or cut; it has their names.
    SealError
        If there is no manifest, or it is not one that :func:`seal` wrote.
    ArtifactError
        If a file can't be read.
    """
    directory = os.fsdecode(directory)
    files = sealed_files(directory, follow_links)
    found = compare_with_seal(directory, files, follow_links)
    if strict:
        require_nothing_beside(directory, found, files)
    return found


def require_nothing_beside(directory: str, seal_: Seal, files: Iterable[str]) -> None:
    """Check that nothing lies in a directory but what its manifest lists, or says to ignore.

    Parameters
    ----------
    directory : str
        The directory, for messages.
    seal_ : Seal
        What the manifest says.
    files : iterable of str
        The names of all files below the directory.

    Raises
    ------
    BrokenSealError
        If there is anything else; it has the names.
    """
    extra = tuple(name for name in seal_.beside(files) if not seal_.ignores(name))
    if extra:
        named = ", ".join(map(repr, extra[:3])) + (", ..." if len(extra) > 3 else "")
        raise BrokenSealError(
            f"in {directory!r} lies what the manifest neither lists nor says to ignore: {named}. "
            "Remove it, or seal the directory again, with a pattern of what is to be ignored",
            extra=extra,
        )


def compare_with_seal(directory: str, files: Mapping[str, str], follow_links: bool = False) -> Seal:
    """Check that files are the ones that the manifest of a directory lists.

    Parameters
    ----------
    directory : str
        The directory, for messages.
    files : mapping of str to str
        For each file below it its name, and the path to read it by.
    follow_links : bool
        As for :func:`verify_seal`.

    Returns
    -------
    seal : Seal
        What the manifest says.

    Raises
    ------
    BrokenSealError, SealError, ArtifactError
        As :func:`verify_seal`.
    """
    path = join(directory, MANIFEST_NAME)
    copy = files.get(MANIFEST_NAME, path)  # who made a copy has looked at where it is from
    found_seal = _read_manifest(copy, follow_symlinks=follow_links or copy != path)
    listed = {file.name: file for file in found_seal.files}
    missing = tuple(name for name in listed if name not in files)
    differences = [f"{name!r} is missing" for name in missing]
    changed = []
    for name, expected in listed.items():
        if name in files:
            found = SealedFile(name, *file_sha256(files[name]))
            if found != expected:
                changed.append(name)
                differences.append(
                    f"{name!r} is changed: expected {expected.size} bytes with SHA-256 "
                    f"{expected.sha256}, found {found.size} with {found.sha256}"
                )
    extra = _further_parts(files, listed, bool(differences))
    differences += [f"{name!r} is not in the manifest" for name in extra]
    if differences:
        raise BrokenSealError(
            f"the files in {directory!r} are not the ones that were sealed: "
            + "; ".join(differences),
            missing,
            extra,
            tuple(changed),
        )
    return found_seal


def _further_parts(
    files: Mapping[str, str], listed: Container[str], is_broken: bool
) -> tuple[str, ...]:
    further = {name for name in files if name not in listed and name != MANIFEST_NAME}
    if not further:
        return ()
    # What was changed may be unreadable for that.
    damaged: dict[str, str] | None = {} if is_broken else None
    parts = {part.name for part in read_parts(files, damaged).parts}
    return tuple(name for name in files if name in further & (parts | (damaged or {}).keys()))


def check_manifest_replaceable(path: str) -> None:
    """Check that nothing of others is lost when a manifest is written.

    Parameters
    ----------
    path : str
        Its path.

    Raises
    ------
    SealError
        If another file lies there.
    """
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
    patterns = []
    while ignored := _IGNORE_LINE.match(body, position):
        patterns.append(ignored[1])
        position = ignored.end()
    if patterns != sorted({*_checked_patterns(patterns)}):
        raise SealError("its patterns are not sorted, or one stands twice")
    while position < len(body):
        lines = _FILE_LINES.match(body, position)
        if not lines:
            found = body[position:].partition("\n")[0][:100]
            raise SealError(f"expected the lines of a file, found {found!r}")
        _check_name(lines[3])
        if lines[3] == MANIFEST_NAME:
            raise SealError("it lists itself")
        files.append(SealedFile(lines[3], int(lines[1]), lines[2]))
        if len(files) > limits.DIRECTORY_FILES:
            raise SealError(f"it has more files than the limit of {limits.DIRECTORY_FILES}")
        position = lines.end()
    names = [file.name for file in files]
    if names != sorted(set(names)):
        raise SealError("its files are not sorted, or one is listed twice")
    return Seal(record, tuple(files), tuple(patterns))


def _checked_patterns(patterns: Collection[str]) -> tuple[str, ...]:
    if len(patterns) > limits.MANIFEST_PATTERNS:
        raise SealError(
            f"{len(patterns)} patterns to ignore, more than the limit of {limits.MANIFEST_PATTERNS}"
        )
    for pattern in patterns:
        try:
            pattern.encode()
            fits = 0 < len(pattern) <= limits.PATTERN_LENGTH
        except UnicodeEncodeError:
            fits = False
        if not fits or any(character < " " or character == "\x7f" for character in pattern):
            raise SealError(
                f"the pattern {pattern!r} cannot stand in a manifest: expected 1 to "
                f"{limits.PATTERN_LENGTH} characters of UTF-8, none of them a control character"
            )
    return tuple(patterns)


def file_states(files: Mapping[str, str], follow_links: bool = False) -> dict[str, FileState]:
    """Look at what tells whether files change.

    Parameters
    ----------
    files : mapping of str to str
        For each file its name, and its path.
    follow_links : bool
        Whether a symbolic link stands for the file that it leads to.

    Returns
    -------
    states : dict of str to FileState
        By their names.

    Raises
    ------
    SealError
        If there is no such file.
    """
    states = {}
    for name, path in files.items():
        try:
            states[name] = FileState.of(os.stat(path, follow_symlinks=follow_links))
        except OSError as error:
            raise SealError(f"cannot read {path!r}: {error.strerror or error}") from error
    return states


def sealed_files(directory: str, follow_links: bool = False) -> dict[str, str]:
    """List the files of a directory that a manifest of it covers, or would cover.

    Parameters
    ----------
    directory : str
        The directory.
    follow_links : bool
        Whether a symbolic link to a file is taken for the file.

    Returns
    -------
    files : dict of str to str
        For each file but the manifest its name, in the order of the names, and its path.

    Raises
    ------
    SealError
        If the directory cannot be read, or has something in it that a manifest can't list.
    """
    files = {}
    try:
        for name, mode in file_names(directory):
            if name == MANIFEST_NAME:
                continue
            path = join(directory, name)
            problem = _no_content(path, mode, follow_links)
            if problem:
                raise SealError(
                    f"{name!r} in {directory!r} is {problem}: put the file itself there, or "
                    "remove it"
                )
            _check_name(name)
            files[name] = path
    except ArtifactError as error:
        raise SealError(str(error)) from error
    return dict(sorted(files.items()))


def _no_content(path: str, mode: int, follow_links: bool) -> str | None:
    """Say what it is at a path that a manifest can't list; None if it can."""
    if stat.S_ISREG(mode):
        return None
    if not stat.S_ISLNK(mode):
        return "neither file nor directory, which says nothing about a content"
    if not follow_links:
        return (
            "a symbolic link, which says nothing about a content, unless you ask for links to be "
            "followed (--follow-links, follow_links=True)"
        )
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return None
    except OSError as error:
        return f"a symbolic link that can't be followed ({error.strerror or error})"
    return "a symbolic link to what is no file"


def _check_name(name: str) -> None:
    # A rule on bytes, which is the same in every version of Python and for every reader, and on
    # every system, so that what one sealed another can check. sha256sum escapes backslashes and
    # line ends, each version of it others; "-" is not a file to it. Windows has no such characters
    # in names, drops a dot or space at the end, and takes some names for devices. Names must not
    # lead out of the directory.
    problem = None
    if name == "-" or {"", ".", ".."} & set(name.split("/")):
        problem = "a path below the directory, other than '-'"
    elif any(character < " " or character in '\x7f\\:*?"<>|' for character in name):
        problem = 'no control character, and none of \\ : * ? " < > | in it'
    elif any(part[-1] in ". " for part in name.split("/")):
        problem = "no part of it to end in a dot or a space"
    elif any(_DEVICE.match(part) for part in name.split("/")):
        problem = "no part of it to be a device's on Windows"
    else:
        try:
            name.encode()
        except UnicodeEncodeError:  # bytes that the file system had, and that are not UTF-8
            problem = "UTF-8"
    if problem:
        raise SealError(f"the name {name!r} cannot stand in a manifest: expected {problem}")


def _sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _malformed(path: str, why: str) -> SealError:
    return SealError(
        f"{path!r} is not a manifest as it was written by tvm-model-hash: {why}. If the files are "
        "known to be right, seal the directory again"
    )
