# SPDX-License-Identifier: Apache-2.0
"""What an artifact is checked against: a model, a record or a hash."""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any

from .. import limits
from ..boundary import reading
from ..errors import InvalidHashError, ModelFileError, ModelHashError
from ..files import is_url, name_of, open_regular, state_of
from ..progress import hashing
from ..record import RECORD_TAG, Record
from .hash_file import parse_hash, read_hash_file

if TYPE_CHECKING:
    import onnx

_HASH = re.compile("(sha256:)?[0-9a-fA-F]{64}")
_HEAD_BYTES = 512
_CHUNK_BYTES = 1024 * 1024
# The key that every tensor in a file of its own has, as it stands in the model.
_EXTERNAL_KEY = b"location"


class Expected:
    """The model that is expected, or what is known of it; a model is read when it has to be, once.

    Parameters
    ----------
    given : onnx.ModelProto, Record, str or os.PathLike
        As in :func:`~tvm_model_hash.checking.verdict.check`.

    Raises
    ------
    InvalidHashError
        If a hash or a ``hash.txt`` is malformed, or a string is neither that nor a file.
    RecordError
        If the text of a record is malformed.
    ArtifactError
        If a file cannot be read.
    """

    def __init__(self, given: onnx.ModelProto | Record | str | os.PathLike[str]) -> None:
        #: The path of the model's file, None for everything else that a model can be given as.
        self.path: str | None = None
        #: The path of the file that the hash was read from, None for everything else.
        self.hash_path: str | None = None
        #: Why the model can't be read, once that was tried.
        self.error: ModelHashError | None = None
        self._record: Record | None = None
        self._model: Any = None
        if isinstance(given, Record):
            self._record = given
        elif isinstance(given, str) and given.startswith(RECORD_TAG):
            self._record = Record.parse(given)
        elif isinstance(given, str) and _HASH.fullmatch(given):
            self._record = Record(parse_hash(given, "the hash"))
        elif isinstance(given, (str, os.PathLike)):
            self._open(os.fspath(given), isinstance(given, str))
        else:
            self._model = given

    @functools.cached_property
    def record(self) -> Record:
        """The identities of the model: all of them, or of a hash just that.

        Raises
        ------
        ModelHashError
            If the model cannot be read or digested.
        """
        if self._record is not None:
            return self._record
        from ..model.digest import model_record

        try:
            return model_record(self._model if self.path is None else self.path)
        except ModelHashError as error:
            self.error = error
            raise

    def record_beside(self, found: Record | None) -> Record:
        """The identities to compare a record with; a model is not parsed if it is the same file.

        Parameters
        ----------
        found : Record, optional
            The record of the artifact.

        Returns
        -------
        record : Record
            The hash alone where that is enough.
        """
        if found is not None and self.path is not None:
            file_hash, may_have_external_data = self._file_facts
            # The hash of the file says nothing of other files that the model has tensors in.
            if file_hash == found.model and not may_have_external_data:
                return Record(found.model)
        return self.record

    @property
    def file_hash(self) -> str | None:
        """SHA-256 of the bytes of the model's file, None where there is no file."""
        return None if self.path is None else self._file_facts[0]

    @functools.cached_property
    def interface(self) -> tuple[list[str], set[str]] | None:
        """Names of the model's inputs, without those that are weights, and of its weights.

        None where all that is known is a record or a hash.
        """
        if self._record is not None:
            return None
        model = self._model if self.path is None else self._proto
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [value.name for value in model.graph.input if value.name not in weights]
        return inputs, weights

    @property
    def model(self) -> onnx.ModelProto | str | None:
        """The model, or its file's path; None where nothing is known but a record or a hash."""
        return self._model if self.path is None else self.path

    @property
    def is_hash(self) -> bool:
        """Whether nothing is known of the model but its hash."""
        return self._record is not None and self._record.graph is None

    @functools.cached_property
    def has_external_data(self) -> bool:
        """Whether the model is a file that has tensors in further files."""
        if self.path is None or not self._file_facts[1]:
            return False
        from ..model.contents import tensors
        from ..model.external import is_external

        return any(map(is_external, tensors(self._proto)))

    @functools.cached_property
    def _proto(self) -> onnx.ModelProto:
        from ..model.file import load_model

        assert self.path is not None
        return load_model(self.path).proto

    @functools.cached_property
    def _file_facts(self) -> tuple[str, bool]:
        import hashlib

        assert self.path is not None
        digest, found, before = hashlib.sha256(), False, b""
        with reading(self.path, ModelFileError), open_regular(self.path) as file:
            size = state_of(file).size
            limits.check_file_size(self.path, size, ModelFileError)
            with hashing(size, name_of(self.path), is_url(self.path)) as progress:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    border = before + chunk[: len(_EXTERNAL_KEY)]
                    found = found or _EXTERNAL_KEY in chunk or _EXTERNAL_KEY in border
                    before = chunk[-len(_EXTERNAL_KEY) :]
                    progress.update(len(chunk))
        return digest.hexdigest(), found

    def _open(self, path: str, may_be_text: bool) -> None:
        if may_be_text and not is_url(path) and not os.path.lexists(path):
            raise InvalidHashError(
                f"{path!r} is neither a file nor a model hash: expected the path of an ONNX model "
                "or of a hash.txt, 64 hexadecimal digits, or a record"
            )
        # A model begins with a field's tag and soon has bytes that are no text; an empty file could
        # be either, and is an empty hash.txt if it is not called a model.
        with reading(path), open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
        is_text = all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in head)
        if is_text if head else not path.endswith(".onnx"):
            self._record = read_hash_file(path)
            self.hash_path = os.fsdecode(path)
        else:
            self.path = path
