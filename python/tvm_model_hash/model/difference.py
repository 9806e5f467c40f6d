# SPDX-License-Identifier: Apache-2.0
"""What differs between two models, in words."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..boundary import reads
from ..errors import ModelFileError
from ..files import one_version

if TYPE_CHECKING:
    import onnx

    from .canonical import CanonicalModel, Data, Part

# Lists and strings up to this length are shown, of longer ones the first element that differs.
_SHOWN = 40

# Contents that differ are compared in pieces of so many bytes.
_PIECE_BYTES = 1 << 16


@one_version()
def explain(
    model_a: onnx.ModelProto | str | os.PathLike[str],
    model_b: onnx.ModelProto | str | os.PathLike[str],
) -> str | None:
    """Name the first difference between two models.

    It looks at the inputs and outputs first, then goes through nodes, functions, types of the
    weights and their values in the order of the digests.

    Parameters
    ----------
    model_a, model_b : onnx.ModelProto, str or os.PathLike
        Two models, which are not changed, or paths of their files.

    Returns
    -------
    sentence : str or None
        What differs; None if the digests ``graph`` and ``weights`` of the two are equal.

    Raises
    ------
    ModelTypeError, ModelFileError, InvalidModelError, ExternalDataError
        As :func:`~tvm_model_hash.model.digest.model_record` raises them.
    """
    a, b = _canonical(model_a), _canonical(model_b)
    return (
        _first_difference(a.interface(), b.interface())
        or _first_difference(a.graph(), b.graph())
        or _first_difference(a.weights(), b.weights())
    )


@reads(ModelFileError)
def _canonical(model: onnx.ModelProto | str | os.PathLike[str]) -> CanonicalModel:
    from .canonical import CanonicalModel
    from .contents import open_model

    return CanonicalModel(*open_model(model, measured=True))


def _first_difference(parts_a: Iterable[Part], parts_b: Iterable[Part]) -> str | None:
    from .canonical import NODE_COUNT

    counts: tuple[Part, Part] | None = None
    for a, b in zip(parts_a, parts_b, strict=True):
        if a.data == b.data:
            continue
        if counts is not None and a.what != b.what:
            # One graph is at its end, and the other one has a node more.
            more = _value(counts[0]) < _value(counts[1])
            return f"{(a, b)[more].place} is in the {('first', 'second')[more]} model only"
        if a.what != NODE_COUNT:
            return _sentence(a, b)
        # The first node that differs says more than how many there are: go on to it.
        counts = (a, b)
    return None


def _sentence(a: Part, b: Part) -> str:
    from .canonical import Data

    place, place_b = str(a.place), str(b.place)
    if place != place_b:
        place += f" (in the second model {place_b})"
    subject = f"{place}: {a.what}" if place else a.what
    value_a, value_b = _value(a), _value(b)
    if isinstance(value_a, Data) and isinstance(value_b, Data):
        at, value_a, value_b = _first_elements(value_a, value_b)
        subject += at
    elif _is_list(value_a) and _is_list(value_b) and max(len(value_a), len(value_b)) > _SHOWN:
        unit = "byte" if isinstance(value_a, bytes) else "element"
        if len(value_a) != len(value_b):
            value_a, value_b = (f"{len(value)} {unit}s long" for value in (value_a, value_b))
        else:
            index = _first_index(value_a, value_b)
            subject += f", at {unit} {index},"
            value_a, value_b = value_a[index], value_b[index]
    text_a, text_b = _text(value_a), _text(value_b)
    if text_a == text_b:  # nothing that can be shown
        return f"{subject.removesuffix(' is').removesuffix(' are')} differs"
    return f"{subject} {text_a} in the first model, {text_b} in the second"


def _first_elements(a: Data, b: Data) -> tuple[str, Any, Any]:
    """Read two contents up to the first element that differs, and say which one it is.

    They have as many elements of the same type, because these come first in the stream.
    """
    from .elements import shown_elements

    before = 0
    for piece_a, piece_b in zip(_pieces(a), _pieces(b), strict=True):
        if piece_a == piece_b:
            before += len(piece_a)
            continue
        list_a, list_b = (shown_elements(a.data_type, piece) for piece in (piece_a, piece_b))
        if not before and len(piece_a) < _PIECE_BYTES and len(list_a) <= _SHOWN:
            return "", list_a, list_b
        width = len(piece_a) // len(list_a)
        index = next(i for i, x in enumerate(piece_a) if x != piece_b[i]) // width
        return f", at element {before // width + index},", list_a[index], list_b[index]
    return "", None, None  # only if a file changed since


def _pieces(data: Data) -> Iterator[bytes]:
    content = data.content
    read: Iterable[bytes] = (
        [content] if isinstance(content, bytes) else map(content.read, range(len(content)))
    )
    for piece in read:
        for start in range(0, len(piece), _PIECE_BYTES):
            yield piece[start : start + _PIECE_BYTES]


def _value(part: Part) -> Any:
    return part.value() if callable(part.value) else part.value


def _is_list(value: Any) -> bool:
    # Repeated fields of protobuf are sequences too.
    return isinstance(value, Sequence) and not isinstance(value, str)


def _first_index(a: Sequence[object], b: Sequence[object]) -> int:
    # By text: 0.0 equals -0.0, and nan does not equal itself.
    pairs = zip(a, b, strict=True)
    return next((i for i, (x, y) in enumerate(pairs) if _text(x) != _text(y)), 0)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.9g}"  # enough to tell any two 32-bit numbers apart
    if isinstance(value, bytes):
        return repr(value[:_SHOWN].decode(errors="backslashreplace"))
    if isinstance(value, Sequence):
        items = (repr(item) if isinstance(item, str) else _text(item) for item in value[:_SHOWN])
        return f"[{', '.join(items)}{', ...' * (len(value) > _SHOWN)}]"
    return repr(value)
