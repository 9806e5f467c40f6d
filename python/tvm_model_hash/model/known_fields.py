# SPDX-License-Identifier: Apache-2.0
"""The fields of ONNX's messages that FORMAT.md knows: those of onnx 1.23.

A field that is not known may change what a model computes, so none may stand in what a digest is
of, whether the installed onnx is older than the field or newer than this table.
"""

from __future__ import annotations

import functools
from typing import Any

from google.protobuf.message import Message

from ..errors import InvalidModelError

try:
    from google.protobuf.unknown_fields import UnknownFieldSet
except ImportError:  # protobuf before 4.22

    def UnknownFieldSet(message: Any) -> Any:  # noqa: N802 (the name of protobuf's class)
        """Collect the fields of a message that its class does not know."""
        return message.UnknownFields()


_NUMBERS: dict[str, set[int]] = {
    "ModelProto": {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26},
    "GraphProto": {1, 2, 5, 10, 11, 12, 13, 14, 15, 16},
    "FunctionProto": {1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14},
    "NodeProto": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
    "AttributeProto": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 20, 21, 22, 23},
    "TensorProto": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16},
    "SparseTensorProto": {1, 2, 3},
    "ValueInfoProto": {1, 2, 3, 4},
    "TypeProto": {1, 4, 5, 6, 7, 8, 9},
    "TypeProto.Tensor": {1, 2},
    "TypeProto.SparseTensor": {1, 2},
    "TypeProto.Sequence": {1},
    "TypeProto.Map": {1, 2},
    "TypeProto.Optional": {1},
    "TypeProto.Opaque": {1, 2},
    "TensorShapeProto": {1},
    "TensorShapeProto.Dimension": {1, 2, 3},
    "OperatorSetIdProto": {1, 2},
    "StringStringEntryProto": {1, 2},
}


def check_fields(message: Message, place: object) -> None:
    """Check that a message, without those in it, has only fields that FORMAT.md knows.

    Parameters
    ----------
    message : google.protobuf.message.Message
        A message of ONNX's.
    place : object
        Where it stands; its text is taken if there is an error.

    Raises
    ------
    InvalidModelError
        If it has another field, or a value that an enum does not know.
    """
    unknown = UnknownFieldSet(message)
    newer = _newer_fields(message.DESCRIPTOR)
    if not len(unknown) and not newer:
        return
    name = message.DESCRIPTOR.full_name.removeprefix("onnx.")
    # Of an older onnx, device configurations are unknown fields, which do not count.
    known = _NUMBERS[name] - {field.number for field in message.DESCRIPTOR.fields}
    found = {field.field_number for field in unknown} - known
    found |= {field.number for field, _ in message.ListFields() if field.number in newer}
    if found:
        raise InvalidModelError(
            f"{f'{place}: ' if str(place) else ''}{name} has the field {min(found)}, or a value of "
            "it, which is not known: it may change what the model computes. Is the model of a "
            "newer ONNX than this package knows?"
        )


@functools.cache
def _newer_fields(descriptor: Any) -> set[int]:
    name = descriptor.full_name.removeprefix("onnx.")
    return {field.number for field in descriptor.fields} - _NUMBERS[name]
