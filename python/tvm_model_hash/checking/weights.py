# SPDX-License-Identifier: Apache-2.0
"""Comparing the tensors in files of parameters with a model's, by their contents."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..artifact.carrier import Artifact, Role, StoredTensor
from ..artifact.record_io import read_tensors
from .expected import Expected

if TYPE_CHECKING:
    from ..model.weights import Likeness, ModelTensors

# What ONNX calls the types that NumPy has another name for.
_ONNX_TYPES = {"float32": "FLOAT", "float64": "DOUBLE"}


@dataclass(frozen=True)
class ComparedWeights:
    """How many tensors of a file of parameters are a model's.

    Parameters
    ----------
    name : str
        The file, as it was given, or below its directory.
    tensors : int
        How many there are.
    unchanged : int
        How many of them have the type, shape and content of one of the model's.
    changed : tuple of str
        Names of those that have the name, type and shape of a weight, and the content of none.
    """

    name: str
    tensors: int
    unchanged: int
    changed: tuple[str, ...]

    def __str__(self) -> str:
        count = "1 tensor" if self.tensors == 1 else f"{self.tensors} tensors"
        if not self.unchanged:
            return f"none of {count} is one of the model's weights, unchanged"
        are = "is" if self.unchanged == 1 else "are"
        return f"{self.unchanged} of {count} {are} the model's weights, unchanged"

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {
            "name": self.name,
            "tensors": self.tensors,
            "unchanged": self.unchanged,
            "changed": list(self.changed),
        }


class Comparison:
    """Compares files of parameters with a model, which is read when the first one comes.

    Parameters
    ----------
    expected : Expected
        The model.
    """

    def __init__(self, expected: Expected) -> None:
        self._expected = expected

    @cached_property
    def _model(self) -> ModelTensors | None:
        from ..model.weights import ModelTensors

        return None if self._expected.model is None else ModelTensors(self._expected.model)

    def compare(self, name: str, artifact: Artifact) -> ComparedWeights | None:
        """Compare a file.

        Parameters
        ----------
        name : str
            Its name.
        artifact : Artifact
            What it is.

        Returns
        -------
        weights : ComparedWeights or None
            None if it is no file of parameters, or the model is not at hand.

        Raises
        ------
        ModelHashError
            If a file can't be read.
        """
        if not artifact.tensors or artifact.role is not Role.PARAMETERS or self._model is None:
            return None
        from ..model.weights import Likeness

        unchanged, changed = 0, []
        for tensor in read_tensors(artifact.path):
            likeness = _compare_tensor(tensor, self._model)
            unchanged += likeness is Likeness.SAME
            if likeness is Likeness.CHANGED:
                changed.append(tensor.name)
        return ComparedWeights(name, len(artifact.tensors), unchanged, tuple(changed))


def _compare_tensor(tensor: StoredTensor, model: ModelTensors) -> Likeness:
    if tensor.dtype is None:
        return model.compare(tensor.name, None, bytes)

    def sha256() -> bytes:
        digest = hashlib.sha256()
        for piece in tensor.read():
            digest.update(piece)
        return digest.digest()

    form = _ONNX_TYPES.get(tensor.dtype, tensor.dtype.upper()), tensor.shape
    return model.compare(tensor.name, form, sha256)
