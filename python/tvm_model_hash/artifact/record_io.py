# SPDX-License-Identifier: Apache-2.0
"""Reading and changing the record in an artifact on disk, without TVM and without loading it.

A new carrier is a module here with a subclass of :class:`Carrier`, and its name in ``_CARRIERS``.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ..boundary import reading
from ..errors import OutputError, RecordError, UnknownArtifactError
from ..files import check_unchanged, one_version, open_regular, refuse_url, replacing, state_of
from ..record import Record
from .carrier import Artifact, Carrier, Interface, Patch, Role, Source, StoredTensor
from .code_ro import RelayVM
from .graph_json import GraphJson
from .library_record import TvmLibraryCarrier
from .npz import Npz
from .safetensors import Safetensors
from .tensor_cache import TensorCache
from .tensor_list import TensorList
from .vm_header import MAGIC

__all__ = [
    "Artifact",
    "Carrier",
    "Interface",
    "Patch",
    "Role",
    "Source",
    "StoredTensor",
    "check_writable",
    "read_artifact",
    "read_interface",
    "read_record",
    "read_tensors",
    "write_record",
]

# The last two look into libraries, which takes longer than to look at a file's beginning.
_CARRIERS: tuple[type[Carrier], ...] = (
    TensorList,
    Npz,
    Safetensors,
    TensorCache,
    GraphJson,
    RelayVM,
    TvmLibraryCarrier,
)

# First bytes of files that are easily taken for an artifact.
_OTHER_FILES = {
    struct.pack(">Q", MAGIC): "a Relay VM executable in big-endian byte order, which is not "
    "supported",
}


@one_version()
def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read what an artifact says about itself; tensors are not read, however many there are.

    Parameters
    ----------
    path : str or os.PathLike
        Path or URL of ``code.ro``, a library of any platform from ``export_library``, the graph
        executor's JSON, or a file of parameters: ``save_param_dict``'s or late-bound constants,
        ``.npz``, ``tensor-cache.json``, ``.safetensors``. What it is is told by its content, not
        its name.

    Returns
    -------
    artifact : Artifact

    Raises
    ------
    UnknownArtifactError
        If the file is nothing that carries a record.
    ArtifactError
        If it cannot be read, is damaged or truncated, or written to meanwhile.
    RemoteError
        If it cannot be read where a URL says that it is.
    RecordError
        If the record is malformed, or there are several.
    """
    with _open(path) as source:
        state = state_of(source.file)
        artifact = _find(source).artifact()
        check_unchanged(source.path, source.file, state)
        return artifact


def read_record(path: str | os.PathLike[str]) -> Record | None:
    """Read the record of an artifact.

    Parameters
    ----------
    path : str or os.PathLike
        As in :func:`read_artifact`.

    Returns
    -------
    record : Record or None
        None if the artifact carries none.

    Raises
    ------
    UnknownArtifactError, ArtifactError, RecordError
        As :func:`read_artifact`.
    """
    return read_artifact(path).record


def read_interface(path: str | os.PathLike[str]) -> Interface | None:
    """Read what an artifact's executable wants from outside.

    Parameters
    ----------
    path : str or os.PathLike
        As in :func:`read_artifact`.

    Returns
    -------
    interface : Interface or None
        Names of the parameters of ``main``, and of the constants that are bound late; None if the
        artifact holds no executable, or one without ``main``.

    Raises
    ------
    UnknownArtifactError, ArtifactError, RecordError
        As :func:`read_artifact`.
    """
    artifact = read_artifact(path)
    # A graph's are its parameters too.
    if artifact.role is not Role.EXECUTABLE or artifact.inputs is None:
        return None
    return Interface(artifact.inputs, artifact.needs)


def write_record(
    path: str | os.PathLike[str],
    record: Record | None,
    output: str | os.PathLike[str] | None = None,
) -> str:
    """Put a record into an artifact, replace the one there, or remove it.

    Parameters
    ----------
    path : str or os.PathLike
        A ``code.ro``, the graph executor's JSON, or a file of parameters, as in
        :func:`read_artifact`.
    record : Record, optional
        The record to have; None gives back the bytes that were there before there was one.
    output : str or os.PathLike, optional
        The file to write, with the permissions of ``path``; by default ``path`` is replaced.

    Returns
    -------
    path : str
        The file that was written.

    Raises
    ------
    FixedRecordError
        If the artifact is one whose record cannot be changed, as in a library.
    OutputError
        If the file cannot be written, or is a symbolic link; nothing is changed.
    UnknownArtifactError, ArtifactError, RecordError
        As :func:`read_artifact`.
    """
    if record is not None and not isinstance(record, Record):
        raise RecordError(
            f"expected a Record to write, found {type(record).__name__}: Record.parse makes one "
            "from its text"
        )
    target = os.fsdecode(path if output is None else output)
    for named in (os.fsdecode(path), target):
        refuse_url(named)
    if os.path.islink(target):
        raise OutputError(
            f"cannot write {target!r}: it is a symbolic link, which would be replaced by a file. "
            f"Name the file itself: {os.path.realpath(target)!r}"
        )
    with _open(path) as source:
        mode, state = os.fstat(source.file.fileno()).st_mode, state_of(source.file)
        patch = _find(source).patch(record)
        with replacing(target, stat.S_IMODE(mode)) as file:
            _copy(source, 0, patch.start, file)
            file.write(patch.data)
            _copy(source, patch.end, source.size, file)
            check_unchanged(source.path, source.file, state)
            source.file.close()  # Windows replaces no file that is open
    return target


def check_writable(path: str | os.PathLike[str], record: Record) -> None:
    """Check that an artifact has a place for a record, as far as that shows without writing it.

    Parameters
    ----------
    path : str or os.PathLike
        As in :func:`write_record`.
    record : Record
        The record.

    Raises
    ------
    FixedRecordError, UnknownArtifactError, ArtifactError, RecordError
        As :func:`write_record`.
    """
    with _open(path) as source:
        _find(source).patch(record)


def read_tensors(path: str | os.PathLike[str]) -> Iterator[StoredTensor]:
    """Read the tensors in a file of parameters, one after the other.

    Parameters
    ----------
    path : str or os.PathLike
        As in :func:`read_artifact`; other artifacts have none.

    Yields
    ------
    tensor : StoredTensor
        Its data can be read until the next one is asked for.

    Raises
    ------
    UnknownArtifactError, ArtifactError, RecordError
        As :func:`read_artifact`.
    """
    with _open(path) as source:
        yield from _find(source).tensors()


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[Source]:
    path = os.fsdecode(path)
    with reading(path), open_regular(path) as file:
        try:
            yield Source(path, file)
        except RecordError as error:
            raise type(error)(f"{path!r}: {error}") from error


def _find(source: Source) -> Carrier:
    if not source.size:
        raise UnknownArtifactError(f"{source.name} is empty, expected an artifact that TVM wrote")
    for cls in _CARRIERS:
        carrier = cls.find(source)
        if carrier is not None:
            return carrier
    found = _OTHER_FILES.get(
        source.head[:8], f"not an artifact: it begins with {source.head.hex(' ')}"
    )
    raise UnknownArtifactError(
        f"{source.name} is {found}. Expected code.ro, a library from export_library, the graph "
        "executor's JSON, or parameters (of TVM, .npz, tensor-cache.json, .safetensors)"
    )


def _copy(source: Source, start: int, end: int, target: BinaryIO) -> None:
    for data in source.pieces(start, end - start):
        target.write(data)
