# SPDX-License-Identifier: Apache-2.0
"""The recipe in a record: which TVM compiled the part, for what, and for inputs of which shapes.

Each is one value without a space and without ``=``. FORMAT.md states their grammar.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from urllib.parse import quote

from .record import RECIPE_KEYS, SHAPES_KEY, TARGET_KEY, TVM_KEY, Record

#: Longest value; a digest stands for a longer one.
MAX_VALUE_BYTES = 200

#: What stands for the shapes of a function without inputs.
NO_INPUTS = "none"
_SCALAR, _ANY, _DYNAMIC = "scalar", "any", "?"


def with_recipe(
    record: Record,
    tvm: str,
    targets: Iterable[tuple[str, str | None]],
    inputs: Iterable[tuple[str, Sequence[int | None] | None]] | None,
) -> Record:
    """Put the recipe into the record of a part, in place of the one that it may have.

    Parameters
    ----------
    record : Record
        The record.
    tvm : str
        The version of TVM.
    targets : iterable of (str, str or None)
        Of each target its kind, and the triple of the machine that its code or its host's is for,
        None where it is not known.
    inputs : iterable of (str, sequence or None), optional
        Of each input its name and shape, with None for a dimension that is not static, and None
        for what is of unknown rank or no tensor. None if the inputs are not known.

    Returns
    -------
    record : Record

    Raises
    ------
    RecordError
        If the record gets too long.
    """
    texts = {
        TVM_KEY: quote(tvm, safe="+"),
        TARGET_KEY: target_text(targets),
        SHAPES_KEY: None if inputs is None else shapes_text(inputs),
    }
    recipe = [(key, shortened(text)) for key, text in texts.items() if text]
    others = [field for field in record.extra if field[0] not in RECIPE_KEYS]
    return replace(record, extra=(*recipe, *others))


def target_text(targets: Iterable[tuple[str, str | None]]) -> str:
    """Write targets as one text: sorted, each once.

    Parameters
    ----------
    targets : iterable of (str, str or None)
        As for :func:`with_recipe`.

    Returns
    -------
    text : str
        For example ``llvm:x86_64-unknown-linux-gnu``.
    """
    words = [":".join(quote(word, safe="") for word in target if word) for target in targets]
    return ",".join(sorted(set(words)))


def shapes_text(inputs: Iterable[tuple[str, Sequence[int | None] | None]]) -> str:
    """Write names and shapes of inputs as one text.

    Parameters
    ----------
    inputs : iterable of (str, sequence or None)
        As for :func:`with_recipe`.

    Returns
    -------
    text : str
        For example ``data:?x3x224x224,scale:scalar``.
    """
    texts = [f"{quote(name)}:{_shape_text(shape)}" for name, shape in inputs]
    return ",".join(texts) or NO_INPUTS


def _shape_text(shape: Sequence[int | None] | None) -> str:
    if shape is None:
        return _ANY
    return "x".join(_DYNAMIC if size is None else str(size) for size in shape) or _SCALAR


def shortened(text: str) -> str:
    """Put a digest in the place of a text that is too long for a record.

    Parameters
    ----------
    text : str
        The text, in ASCII.

    Returns
    -------
    value : str
        The text, or ``sha256:`` and 64 hexadecimal digits.
    """
    if len(text) <= MAX_VALUE_BYTES:
        return text
    return f"sha256:{hashlib.sha256(text.encode('ascii')).hexdigest()}"


def kinds(record: Record | None) -> tuple[str, ...]:
    """Get the kinds of the targets that a part was compiled for.

    Parameters
    ----------
    record : Record, optional
        Its record.

    Returns
    -------
    kinds : tuple of str
        Empty where the record does not say.
    """
    text = record.field(TARGET_KEY) if record else None
    if text is None or text.startswith("sha256:"):
        return ()
    return tuple(dict.fromkeys(word.partition(":")[0] for word in text.split(",")))
