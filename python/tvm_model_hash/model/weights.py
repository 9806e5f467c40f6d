# SPDX-License-Identifier: Apache-2.0
"""A model's tensors, to be compared with those in a file of parameters by their contents."""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Callable
from typing import TypeAlias

import onnx
from onnx import TensorProto

from ..errors import ModelHashError
from .contents import open_model, tensors
from .elements import ELEMENT_TYPES, raw_bytes
from .external import is_external

#: ONNX's name of an element type, and a shape.
Form: TypeAlias = tuple[str, tuple[int, ...]]


class Likeness(enum.Enum):
    """What a tensor is to a model."""

    #: It has the type, shape and content of one of the model's, whatever that is called.
    SAME = enum.auto()
    #: It has the name, type and shape of one of the model's, and the content of none.
    CHANGED = enum.auto()
    #: Nothing can be said: transposed, packed or folded, weights are tensors of other forms.
    OTHER = enum.auto()


class ModelTensors:
    """The initializers of a model, and the tensors in attributes of its nodes.

    Contents are only read of those whose form is asked for, and of each its digest is kept.

    Parameters
    ----------
    model : onnx.ModelProto, str or os.PathLike
        A model, or the path of its file.

    Raises
    ------
    ModelHashError
        As :func:`~tvm_model_hash.model.contents.open_model`.
    """

    def __init__(self, model: onnx.ModelProto | str | os.PathLike[str]) -> None:
        proto, self._contents = open_model(model, measured=True)
        self._by_form: dict[Form, list[TensorProto]] = {}
        for tensor in tensors(proto):
            form = _form(tensor)
            if form is not None:
                self._by_form.setdefault(form, []).append(tensor)
        self._named = {(tensor.name, _form(tensor)) for tensor in proto.graph.initializer}
        self._digests: dict[Form, set[bytes]] = {}

    def compare(self, name: str, form: Form | None, sha256: Callable[[], bytes]) -> Likeness:
        """Compare a tensor with the model's.

        Parameters
        ----------
        name : str
            Its name.
        form : (str, tuple of int), optional
            Its element type, as ONNX calls it, and its shape; None of what can't be compared.
        sha256 : callable
            Digests its content, which is only done if the model has tensors of this form.

        Returns
        -------
        likeness : Likeness

        Raises
        ------
        ModelHashError
            If a content can't be read.
        """
        if form is None or form not in self._by_form:
            return Likeness.OTHER
        if form not in self._digests:
            self._digests[form] = {*filter(None, map(self._digest, self._by_form[form]))}
        if sha256() in self._digests[form]:
            return Likeness.SAME
        return Likeness.CHANGED if (name, form) in self._named else Likeness.OTHER

    def _digest(self, tensor: TensorProto) -> bytes | None:
        if is_external(tensor) or tensor.HasField("raw_data"):
            return self._contents.of(tensor).sha256()
        try:
            return hashlib.sha256(raw_bytes(tensor)).digest()
        except ModelHashError:
            raise
        except ValueError:  # elements that their type can't have, in a tensor that nothing uses
            return None


def _form(tensor: TensorProto) -> Form | None:
    element = ELEMENT_TYPES.get(tensor.data_type)
    return (element.name, tuple(tensor.dims)) if element is not None and element.bits else None
