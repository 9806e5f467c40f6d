# SPDX-License-Identifier: Apache-2.0
"""The files in which a model keeps tensors outside of its own file."""

from __future__ import annotations

import functools
import os
import posixpath
import re
import stat
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, cast

import onnx

from .. import limits
from ..errors import ArtifactError, ExternalDataError, ModelHashError, RemoteError
from ..files import AnyState, FileState, is_url, join, open_regular, state_of

_FIELDS = ("location", "offset", "length")


class FileVersion(NamedTuple):
    """A regular file as it was when it was looked at.

    Parameters
    ----------
    path : str
        Where it is, without symbolic links.
    state : FileState or State
        By what one notices that it changed.
    """

    path: str
    state: AnyState

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.state.size


class FileRange(NamedTuple):
    """The part of a file that holds a tensor's data.

    Parameters
    ----------
    file : FileVersion
        The file.
    start, size : int
        Where the data begins, and how many bytes it has.
    failed : callable
        Makes the error of what went wrong, which it is given in words.
    """

    file: FileVersion
    start: int
    size: int
    failed: Callable[[str], ModelHashError]

    def read(self, start: int, size: int) -> bytes:
        """Read a part of the data.

        Parameters
        ----------
        start, size : int
            Where the part begins in the tensor's data, and how many bytes it has.

        Returns
        -------
        data : bytes
            So many bytes.

        Raises
        ------
        ModelFileError, ExternalDataError
            If the file cannot be read, or is no longer the one that was looked at.
        """
        # Opened each time: a model may have more files than a process may have open. And read,
        # not mapped: where a mapped file is cut off meanwhile, the process dies.
        path = self.file.path
        try:
            with _open(path) as file:
                same = self.file.state == state_of(file)
                file.seek(self.start + start)
                data = file.read(size) if same else b""
                while data and len(data) < size:  # as a signal or a network file system may do
                    more = file.read(size - len(data))
                    data = data + more if more else b""
        except RemoteError as error:
            raise self.failed(f"cannot be read: {error}") from error
        except OSError as error:
            raise self.failed(_unreadable(error)) from error
        if len(data) < size:
            raise self.failed("changed while it was read")
        return data


class ExternalFiles:
    """The directory of a model, and the files below it that hold its tensors.

    Nothing outside of the directory is read: a model may come from anybody, and the digest of a
    file tells something about it. onnx checks paths too, but not the same ones in each version,
    and not what is at the path.

    Stores that keep files by their digests make a model's directory of symbolic links. There a
    file may lie where the model's own does, so that nothing is read that the model could not have
    from its real place.

    Parameters
    ----------
    directory : str
        The directory of the model's path; locations are relative to it.
    store : str, optional
        The directory that the model's file really lies in, without symbolic links, if the model's
        path is itself a symbolic link; else None.
    """

    def __init__(self, directory: str, store: str | None = None):
        self.directory = directory
        self.store = store
        self._files: dict[str, FileVersion] = {}
        self._left: dict[FileVersion, int] = {}

    def find(self, tensor: onnx.TensorProto) -> FileRange:
        """Find a tensor's bytes, without reading them yet.

        Parameters
        ----------
        tensor : onnx.TensorProto
            A tensor whose ``data_location`` is ``EXTERNAL``.

        Returns
        -------
        source : FileRange
            Where they are.

        Raises
        ------
        ExternalDataError
            If the tensor points out of the directory, to something that is no regular file, or
            to a part of it that does not exist.
        """
        fields: dict[str, str] = {}
        for entry in tensor.external_data:
            # A field that stands twice would let two readers read two places.
            if entry.key in fields and entry.key in _FIELDS:
                raise _error(tensor, f"has two fields '{entry.key}', expected one")
            fields[entry.key] = entry.value
        location, offset, length = (fields.get(key) for key in _FIELDS)
        if not isinstance(location, str) or not location:  # protobuf gives bytes if not UTF-8
            raise _error(
                tensor, f"has the location {_shown(location)}, expected the path of a file"
            )
        if location not in self._files:
            self._files[location] = self._open(tensor, location)
        file = self._files[location]
        start = _number(tensor, "offset", offset) or 0
        size = _number(tensor, "length", length)
        if size == 0 and start < file.size:
            raise _error(
                tensor,
                f"has the length 0 at offset {start} of {_shown(location)}, which has {file.size} "
                "bytes: onnx.load would read all the rest, so leave the length out for that, or "
                "give the number of bytes",
            )
        if start + (size or 0) > file.size:
            raise _error(
                tensor,
                f"is said to be {size or 0} bytes at offset {start} of {_shown(location)}, which "
                f"has {file.size} bytes: is the file truncated, or of another model?",
            )
        # Without a length it is all the rest, as onnx.load reads it.
        size = file.size - start if size is None else size
        allowed = limits.EXTERNAL_BYTES + limits.EXTERNAL_SHARES * file.size
        self._left[file] = self._left.get(file, allowed) - size
        if self._left[file] < 0:
            raise _error_at(
                tensor,
                location,
                f"has {file.size} bytes, and is said to hold more than {allowed} bytes of tensors, "
                "which is the limit: that many share the same bytes",
            )
        return FileRange(file, start, size, functools.partial(_error_at, tensor, location))

    def _open(self, tensor: onnx.TensorProto, location: str) -> FileVersion:
        # Joined to a directory, an absolute path replaces it.
        if os.path.isabs(location) or "\0" in location:
            raise _error(tensor, f"has the location {_shown(location)}, expected a relative path")
        # Systems and readers differ in what "none/../w.bin" and "w.bin/" are.
        if {"", os.pardir} & set(location.split("/")):
            raise _error(
                tensor,
                f"has the location {_shown(location)}, expected the path of a file below the "
                "model's directory, without an empty part or '..' in it",
            )
        if is_url(self.directory):
            return self._open_object(tensor, location)
        # A symlink may lead anywhere, at each step of the path. One that stays inside is fine.
        root = os.path.realpath(self.directory)
        path = os.path.realpath(os.path.join(root, location))
        try:
            inside = os.path.commonpath([root, path]) == root
        except ValueError:  # on different drives
            inside = False
        if not inside and os.path.dirname(path) != self.store:
            store = "" if self.store is None else f", here {self.store!r}"
            raise _error(
                tensor,
                f"is at {_shown(location)}, by a symlink to {path!r} outside of the model's "
                "directory: it may lead to a file below that directory, or, where the model's path "
                "is a symlink too, to one in the directory in which the model's own file lies"
                f"{store}. "
                "Put the file itself there, if it is the right one",
            )
        try:
            with open(path, "rb", opener=_open_without_links) as file:
                # Of what was opened, so that nobody can exchange it in between.
                status = os.fstat(file.fileno())
        except OSError as error:
            problem = _unreadable(error)
            if self.store is not None and os.path.exists(os.path.join(self.store, location)):
                problem += (
                    f". It lies in {self.store!r}, where the symlink that is the model's path "
                    "leads to: give the path of the model's file there"
                )
            raise _error_at(tensor, location, problem) from error
        # A device may never end, and stands for no data of a model.
        if not stat.S_ISREG(status.st_mode):
            raise _error_at(tensor, location, "is not a regular file")
        try:
            limits.check_file_size(path, status.st_size)
        except ArtifactError as error:
            raise _error(tensor, f"cannot be read: {error}") from error
        return FileVersion(path, FileState.of(status))

    def _open_object(self, tensor: onnx.TensorProto, location: str) -> FileVersion:
        url = join(self.directory, posixpath.normpath(location))
        try:
            with open_regular(url) as file:
                return FileVersion(url, state_of(file))
        except RemoteError as error:
            raise _error_at(tensor, location, f"cannot be read: {error}") from error


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's data is in a file of its own.

    Parameters
    ----------
    tensor : onnx.TensorProto
        Any tensor.

    Returns
    -------
    external : bool
        What the tensor says of itself.
    """
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def describe_tensor(tensor: onnx.TensorProto) -> str:
    """Name a tensor, for an error's message.

    Parameters
    ----------
    tensor : onnx.TensorProto
        Any tensor.

    Returns
    -------
    text : str
        ``tensor 'its name'``.
    """
    return f"tensor {tensor.name!r}" if tensor.name else "an unnamed tensor"


def _open(path: str) -> BinaryIO:
    if is_url(path):
        return open_regular(path)
    return cast(BinaryIO, open(path, "rb", buffering=0, opener=_open_safely))


def _open_safely(path: str, flags: int) -> int:
    # The path is resolved: a symlink that is there now has just been put there. And to open a
    # FIFO would wait for somebody who writes into it.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _open_without_links(path: str, flags: int) -> int:
    # As above, for the directories too, where the system can open one just to go through it.
    only_path = getattr(os, "O_PATH", 0)
    if not only_path:
        return _open_safely(path, flags)
    through = only_path | getattr(os, "O_DIRECTORY", 0)
    directory = os.open(os.sep, through)
    try:
        for name in path.split(os.sep)[1:-1]:
            below = os.open(name, through | getattr(os, "O_NOFOLLOW", 0), dir_fd=directory)
            os.close(directory)
            directory = below
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        return os.open(os.path.basename(path), flags, dir_fd=directory)
    finally:
        os.close(directory)


def _number(tensor: onnx.TensorProto, field: str, text: str | None) -> int | None:
    # int() would take signs, spaces, underscores and the digits of other scripts too.
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,19}", str(text)):
        raise _error(
            tensor,
            f"has the {field} {_shown(text)}, expected a number of bytes in at most 19 digits",
        )
    return int(text)


def _error(tensor: onnx.TensorProto, problem: str) -> ExternalDataError:
    return ExternalDataError(f"the external data of {describe_tensor(tensor)} {problem}")


def _error_at(tensor: onnx.TensorProto, location: str, problem: str) -> ExternalDataError:
    return _error(tensor, f"is at {_shown(location)}, which {problem}")


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 300 else f"{shown[:300]}... ({len(shown)} characters)"


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"
