# SPDX-License-Identifier: Apache-2.0
"""Opening and replacing files."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from .errors import ArtifactError, OutputError
from .progress import hashing

_CHUNK_BYTES = 1024 * 1024


def open_regular(path: str, follow_symlinks: bool = True) -> BinaryIO:
    """Open a regular file for reading; nothing else is opened, and nothing blocks.

    Parameters
    ----------
    path : str
        The file to open.
    follow_symlinks : bool
        Whether the path may end in a symbolic link.

    Returns
    -------
    file : file object
        The file, opened for reading bytes.

    Raises
    ------
    ArtifactError
        If the file does not exist, is not a regular one, or cannot be read.
    """
    try:
        # Asked before, because to open a device can already do something to it.
        _check_regular(path, os.stat(path, follow_symlinks=follow_symlinks))
        flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow_symlinks else os.O_NOFOLLOW)
        file = open(os.open(path, flags), "rb")  # noqa: SIM115
    except OSError as error:
        raise ArtifactError(f"cannot read {path!r}: {error.strerror or error}") from error
    try:
        _check_regular(path, os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return file


def file_sha256(path: str, follow_symlinks: bool = True) -> tuple[int, str]:
    """Hash a regular file, with progress.

    Parameters
    ----------
    path : str
        The file.
    follow_symlinks : bool
        Whether the path may end in a symbolic link.

    Returns
    -------
    size : int
        Its size in bytes.
    sha256 : str
        64 lowercase hexadecimal digits.

    Raises
    ------
    ArtifactError
        If the file cannot be read, or is not a regular one.
    """
    digest = hashlib.sha256()
    size = 0
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    with open_regular(path, follow_symlinks) as file:
        total = os.fstat(file.fileno()).st_size
        with hashing(total, os.path.basename(path)) as progress:
            try:
                while count := file.readinto(buffer):  # type: ignore[attr-defined]
                    digest.update(buffer[:count])
                    size += count
                    progress.update(count)
            except OSError as error:
                raise ArtifactError(f"cannot read {path!r}: {error.strerror or error}") from error
    return size, digest.hexdigest()


def _check_regular(path: str, status: os.stat_result) -> None:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        found = kinds.get(kind, "a device")
        raise ArtifactError(f"cannot read {path!r}: it is {found}, expected a regular file")


@contextmanager
def replacing(path: str, mode: int | None = None) -> Iterator[BinaryIO]:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Parameters
    ----------
    path : str
        The file to create or replace.
    mode : int, optional
        The permissions that it gets; by default those that the user's umask asks for.

    Yields
    ------
    file : file object
        What is written to it becomes the content of the file when the block ends. If the block
        raises, what was there stays.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there is unchanged.
    """
    # In the same directory, because a rename is atomic within a file system only; opened here
    # and not by tempfile, so that the file gets the permissions the user's umask asks for.
    temporary = f"{path}.{secrets.token_hex(8)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with open(descriptor, "wb") as file:
                yield file
                file.flush()
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path!r}: {error.strerror or error}") from error


@contextmanager
def new_directory(path: str, overwrite: bool = False) -> Iterator[str]:
    """Make a directory with all its files, or nothing.

    Parameters
    ----------
    path : str
        The directory to make; an empty one that exists is replaced.
    overwrite : bool
        Whether one that is not empty is replaced too.

    Yields
    ------
    temporary : str
        A directory beside it, which takes its place when the block ends. If the block raises,
        it is removed.

    Raises
    ------
    OutputError
        If there is something other than an empty directory, or the place cannot be written.
    """
    path = path.rstrip(os.sep) or path
    temporary = f"{path}.{secrets.token_hex(8)}.tmp"
    try:
        os.makedirs(os.path.dirname(path) or os.curdir, exist_ok=True)
        exists = os.path.lexists(path) and (os.path.islink(path) or bool(os.listdir(path)))
        if exists and not overwrite:
            raise OutputError(
                f"cannot write {path!r}: it is not empty, expected a directory that is new or empty"
            )
        os.mkdir(temporary)
        try:
            yield temporary
            if exists:
                os.rename(path, f"{temporary}.old")
            os.rename(temporary, path)
            shutil.rmtree(f"{temporary}.old", ignore_errors=True)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path!r}: {error.strerror or error}") from error
