# SPDX-License-Identifier: Apache-2.0
"""What a carrier is: the place in an artifact where the record lies."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, NamedTuple

from ..errors import ArtifactError
from ..record import Record
from .tvm_library import TvmLibrary
from .vm_header import VirtualDevice

_PIECE_BYTES = 1024 * 1024


class Role(str, enum.Enum):
    """What an artifact is in a deployment."""

    #: What was compiled: code, graph and kernels in one, or code that needs kernels.
    EXECUTABLE = "executable"
    #: Machine code that an executable or a graph calls.
    KERNELS = "kernels"
    #: The graph executor's graph.
    GRAPH = "graph"
    #: Tensors by their names: weights, or inputs for a test.
    PARAMETERS = "parameters"


@dataclass(frozen=True)
class Artifact:
    """What there is to say about an artifact without loading it.

    Parameters
    ----------
    path : str
        The file.
    kind : str
        What it holds, for example ``"Relay VM executable"``.
    container : str
        In what: ``"file"``, ``"shared library"``, ``"program"``, ``"object file"``,
        ``"static library"`` or ``"tar"``.
    size : int
        Size of the file, in bytes.
    role : Role
        What it is in a deployment.
    record : Record, optional
        The record, None where there is none.
    platform : str, optional
        File format and machine of a library, for example ``"ELF x86_64"``.
    tvm_version : str, optional
        The version of the TVM that wrote it, where the artifact says so.
    devices : tuple of VirtualDevice
        The device table of a VM executable, without the record's entry.
    needs_kernels : bool
        Whether it calls kernels that are in another artifact.
    needs : tuple of str
        Names of the tensors that it needs from a file of parameters.
    inputs : tuple of str, optional
        Names of the parameters of ``main``, None where the artifact does not say. Those of a
        graph are all that it takes, as it does not tell inputs and parameters apart.
    tensors : tuple of str
        Names of the tensors in a file of parameters.
    files : tuple of str
        Names of the files beside it that hold its tensors' data, and have no record themselves.
    kernels_record : Record, optional
        What the kernels in a library carry whose executable carries nothing.
    """

    path: str
    kind: str
    container: str
    size: int
    role: Role
    record: Record | None = None
    platform: str | None = None
    tvm_version: str | None = None
    devices: tuple[VirtualDevice, ...] = ()
    needs_kernels: bool = False
    needs: tuple[str, ...] = ()
    inputs: tuple[str, ...] | None = None
    tensors: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    kernels_record: Record | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give what it is, as JSON has it.

        Returns
        -------
        fields : dict
            Without its path, and without the names of tensors.
        """
        return {
            "kind": self.kind,
            "role": self.role.value,
            "container": self.container,
            "platform": self.platform,
            "size": self.size,
            "tvm_version": self.tvm_version,
            "record": self.record and self.record.to_dict(),
        }


class Interface(NamedTuple):
    """What an executable wants from outside: names of parameters, and of constants."""

    parameters: tuple[str, ...]
    late_bound: tuple[str, ...]


class StoredTensor(NamedTuple):
    """A tensor in a file of parameters.

    Parameters
    ----------
    name : str
        Its name there.
    dtype : str, optional
        NumPy's name of the element type; None of one that is not stored as its elements' whole
        bytes, in little-endian order and the order of the indices.
    shape : tuple of int
        Its shape.
    read : callable
        Reads the data, as an iterator of pieces of bytes.
    """

    name: str
    dtype: str | None
    shape: tuple[int, ...]
    read: Callable[[], Iterator[bytes]]


class Source:
    """A file that was opened to look for a record in it.

    Parameters
    ----------
    path : str
        The file's path.
    file : file object
        The file, opened for reading bytes; it can seek.
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path = path
        self.name = repr(path)
        self.file = file
        self.size = file.seek(0, 2)
        file.seek(0)
        self.head = file.read(16)

    @cached_property
    def library(self) -> TvmLibrary | None:
        """The file as a library, None if it is not one."""
        return TvmLibrary.open(self.file, self.size, self.name)

    def pieces(self, start: int, size: int) -> Iterator[bytes]:
        """Read a range of the file.

        Parameters
        ----------
        start, size : int
            Where it begins, and how many bytes it has.

        Yields
        ------
        data : bytes
            The next ones, so that there are ``size`` in all.

        Raises
        ------
        ArtifactError
            If the file has become shorter, or can't be read.
        """
        while size:
            try:
                self.file.seek(start)
                data = self.file.read(min(size, _PIECE_BYTES))
            except OSError as error:
                raise ArtifactError(
                    f"cannot read {self.name}: {error.strerror or error}"
                ) from error
            if not data:
                raise ArtifactError(f"{self.name} has become shorter while it was read")
            yield data
            start += len(data)
            size -= len(data)


class Patch(NamedTuple):
    """A change of one range of a file's bytes."""

    start: int
    end: int
    data: bytes


class Carrier(ABC):
    """A carrier in one artifact. Its subclasses are the carriers that there are."""

    @classmethod
    @abstractmethod
    def find(cls, source: Source) -> Carrier | None:
        """Find out by the content whether this is the carrier of an artifact.

        Parameters
        ----------
        source : Source
            The artifact.

        Returns
        -------
        carrier : Carrier or None
            None for artifacts that other carriers are for. With an artifact that may have a
            record here and has none, a carrier.
        """

    @abstractmethod
    def artifact(self) -> Artifact:
        """Read the record and all else there is to say, to the end of the structure.

        Returns
        -------
        artifact : Artifact

        Raises
        ------
        ArtifactError
            If the artifact is damaged.
        RecordError
            If the record is malformed.
        """

    @abstractmethod
    def patch(self, record: Record | None) -> Patch:
        """Say how the file has to be changed.

        Parameters
        ----------
        record : Record, optional
            The record that it is to have; None removes the one there is.

        Returns
        -------
        patch : Patch

        Raises
        ------
        FixedRecordError
            If a record cannot be changed in such an artifact.
        """

    def tensors(self) -> Iterator[StoredTensor]:
        """Give the tensors whose contents lie in the file, or in files beside it.

        Yields
        ------
        tensor : StoredTensor
            To be read before the next one is asked for, and while the file is open.

        Raises
        ------
        ArtifactError
            If a tensor can't be read.
        """
        yield from ()
