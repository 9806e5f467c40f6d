# SPDX-License-Identifier: Apache-2.0
"""The files in which a model keeps tensors outside of its own file."""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Iterator

import onnx
import onnx.external_data_helper

from .errors import ExternalDataError, ModelFileError

_FIELDS = ("location", "offset", "length")


class ExternalFiles:
    """The directory of a model, and the files below it that hold its tensors.

    Nothing outside of the directory is read: a model may come from anybody, and the digest of a
    file tells something about it. onnx and onnx-ir check paths too, but not the same ones in
    each version, and not what is at the path.

    Parameters
    ----------
    directory : str
        The directory of the model's file; locations are relative to it.
    """

    def __init__(self, directory: str):
        self.directory = directory
        self._views: dict[str, memoryview] = {}

    def view(self, tensor: onnx.TensorProto) -> memoryview:
        """Look at a tensor's bytes, without reading them yet.

        Parameters
        ----------
        tensor : onnx.TensorProto
            A tensor whose ``data_location`` is ``EXTERNAL``.

        Returns
        -------
        view : memoryview
            Its bytes, mapped from the file.

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
            raise _error(tensor, f"has the location {location!r}, expected the path of a file")
        if location not in self._views:
            self._views[location] = self._map(tensor, location)
        data = self._views[location]
        start = _number(tensor, "offset", offset) or 0
        size = _number(tensor, "length", length)
        if start + (size or 0) > len(data):
            raise _error(
                tensor,
                f"is said to be {size or 0} bytes at offset {start} of {location!r}, which has "
                f"{len(data)} bytes: is the file truncated, or of another model?",
            )
        # Without a length it is all the rest, as onnx.load reads it.
        return data[start:] if size is None else data[start : start + size]

    def _map(self, tensor: onnx.TensorProto, location: str) -> memoryview:
        # Joined to a directory, an absolute path replaces it.
        if os.path.isabs(location) or "\0" in location:
            raise _error(tensor, f"has the location {location!r}, expected a relative path")
        if os.path.normpath(location).split(os.sep)[0] == os.pardir:
            raise _error(tensor, f"is at {location!r}, outside of the model's directory")
        # A symlink may lead anywhere, at each step of the path. One that stays inside is fine.
        root = os.path.realpath(self.directory)
        path = os.path.realpath(os.path.join(root, location))
        try:
            inside = os.path.commonpath([root, path]) == root
        except ValueError:  # on different drives
            inside = False
        if not inside:
            raise _error(
                tensor,
                f"is at {location!r}, by a symlink to {path!r} outside of the model's directory",
            )
        try:
            with open(path, "rb", opener=_open_safely) as file:
                # Of what was opened, so that nobody can exchange it in between.
                status = os.fstat(file.fileno())
                # A device may never end, and stands for no data of a model.
                if not stat.S_ISREG(status.st_mode):
                    raise _error(tensor, f"is at {location!r}, which is not a regular file")
                if not status.st_size:  # there is no map of nothing
                    return memoryview(b"")
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise _error(
                tensor, f"is at {location!r}, which cannot be read: {error.strerror or error}"
            ) from error


def load_model(path: str | os.PathLike[str]) -> tuple[onnx.ModelProto, ExternalFiles]:
    """Read a model's file, and check what it says of external data.

    Parameters
    ----------
    path : str or os.PathLike
        A ``.onnx`` file, or another one that ``onnx.load`` reads.

    Returns
    -------
    model : onnx.ModelProto
        The model, without the external data.
    files : ExternalFiles
        Where its external data is.

    Raises
    ------
    ModelFileError
        If the file cannot be read, or holds no model.
    ExternalDataError
        If any external tensor is not where it may be, used or not.
    """
    path = os.path.abspath(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ModelFileError(f"cannot read {path!r}: {error.strerror or error}") from error
    except Exception as error:  # each format that onnx reads has its own
        raise ModelFileError(
            f"{path!r} is not an ONNX model, it cannot be parsed ({type(error).__name__}: {error})"
        ) from error
    if not model.HasField("graph"):
        raise ModelFileError(f"{path!r} is not an ONNX model, it has no graph")
    files = ExternalFiles(os.path.dirname(path))
    for tensor in _tensors(model):
        if is_external(tensor):
            files.view(tensor)
    return model, files


def load_external_data(model: onnx.ModelProto, files: ExternalFiles) -> None:
    """Put the external data into the model, as ``onnx.load`` does.

    Parameters
    ----------
    model : onnx.ModelProto
        The model that :func:`load_model` returned; it is changed.
    files : ExternalFiles
        What it returned with it.

    Raises
    ------
    ExternalDataError
        If onnx refuses to read it. It has rules of its own, other ones in each version.
    """
    try:
        onnx.external_data_helper.load_external_data_for_model(model, files.directory)
    except Exception as error:  # of several types
        raise ExternalDataError(f"onnx cannot load the model's external data: {error}") from error


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


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a model, wherever they stand."""
    pending = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        if isinstance(graph, onnx.FunctionProto):
            attributes += graph.attribute_proto
            sparse = []
        else:
            yield from graph.initializer
            sparse = list(graph.sparse_initializer)
        for attribute in attributes:
            yield from [*attribute.tensors, attribute.t]
            sparse += [*attribute.sparse_tensors, attribute.sparse_tensor]
            pending += attribute.graphs
            if attribute.HasField("g"):
                pending.append(attribute.g)
        for tensor in sparse:
            yield from (tensor.values, tensor.indices)


def _open_safely(path: str, flags: int) -> int:
    # The path is resolved: a symlink that is there now has just been put there. And to open a
    # FIFO would wait for somebody who writes into it.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _number(tensor: onnx.TensorProto, field: str, text: str | None) -> int | None:
    # int() would take signs, spaces, underscores and the digits of other scripts too.
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,19}", str(text)):
        raise _error(tensor, f"has the {field} {text!r}, expected a number of bytes from 0 on")
    return int(text)


def _error(tensor: onnx.TensorProto, problem: str) -> ExternalDataError:
    return ExternalDataError(f"the external data of {describe_tensor(tensor)} {problem}")
